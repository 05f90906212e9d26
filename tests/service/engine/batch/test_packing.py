"""Slices and evaluations come out of the pipe to a worker process as they went in."""

from __future__ import annotations

from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.recent_records import HandledRecord
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.api.problems import internal
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.packing import pack_evaluations, pack_slice, unpack_evaluations, unpack_slice
from ras_triage.service.engine.batch.slice_evaluation import SliceContext
from ras_triage.service.engine.evaluation import Defect, EventDocument, PredecidedEvent, predecide
from ras_triage.service.engine.source_state import SourceSnapshot
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.store.port import HostFacts

PAGE = PoisonedPage(0x5D028000, 12)
EVENT = b'{"id":"e","source":"a","notification":"sea","status_block":{"severity":"fatal","sections":[{"type":"memory"}]}}'


def test_a_slice_is_unpacked_as_it_was_packed() -> None:
    documents = [EventDocument(EVENT), EventDocument(b"{}", b"name", is_live=False)]
    record = HandledRecord(b"content", 5, printed=True, corrected=False, window_ms=3, duplicate=False)
    sources = [SourceSnapshot("a", HostFacts("a", 2, 7, b"{}"), (PAGE,), (record,)), SourceSnapshot("b", None, (), ())]
    context = SliceContext(sources, 11, dry_run=True)
    found, unpacked = unpack_slice(pack_slice(documents, context))
    assert (found, unpacked) == (documents, context)
    assert isinstance(unpacked.sources[0].records[0], HandledRecord)


def test_evaluations_are_unpacked_as_they_were_packed() -> None:
    facts = StoredFacts(None, (PAGE,), UsedFacts(None, None, ("0x5d028000",)))
    decided = predecide(EventDocument(EVENT), Settings(), lambda _keys: facts)
    refused = predecide(EventDocument(EVENT[:-1] + b',"policy":"none"}'), Settings())
    evaluations = [decided, refused, internal(), Defect({"error": "x"})]
    found = unpack_evaluations(pack_evaluations(evaluations))
    assert found == evaluations
    assert list(map(type, found)) == list(map(type, evaluations))
    assert isinstance(found[0], tuple)
    assert PredecidedEvent(EventDocument(EVENT), *found[0]).rests_on(facts)
