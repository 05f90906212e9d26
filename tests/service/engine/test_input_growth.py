"""Work and memory before and after the decision, bounded by the input's length."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import pytest
from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.models.formats.erst import PSTORE_CREATOR
from ras_triage.models.formats.json_text import MAX_CONTAINERS
from ras_triage.models.formats.results import FoundError, Position, UnmatchedAction, UnreadableRecord
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.cper_record import CperRecord, SectionDescriptor, encode_record
from ras_triage.models.records.guid import guid
from ras_triage.service.api.json_limits import MAX_VALUES
from ras_triage.service.api.problems import URN, invalid
from ras_triage.service.engine import source_state, sources
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter
from ras_triage.service.engine.sources import Sources
from ras_triage.service.importing import readers
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_notification, read_sources
from ras_triage.service.importing.readers import read_items
from ras_triage.service.importing.source import ImportSource
from ras_triage.service.store.port import HostFacts
from ras_triage.service.store.temporary import TemporaryStore
from tests.growth import Work, multiplies, operations, require_n_log_n_of_time, seconds, squares
from tests.service.support.application import EVENT, Call
from tests.service.support.stored_decisions import entry


def splitting(splitter: type[NdjsonSplitter] | type[ArraySplitter], data: bytes, piece: int) -> Work:
    def split() -> int:
        found: ItemSplitter = splitter(1 << 20)
        items = [item for start in range(0, len(data), piece) for item in found.feed(data[start : start + piece])]
        return len(items) + len(found.finish())

    return split


BATCHES: dict[str, Callable[[int], Work]] = {
    "many lines": lambda size: splitting(NdjsonSplitter, b"{}\n" * size, 4096),
    "a long line in pieces": lambda size: splitting(NdjsonSplitter, b"x" * 64 * size, 16),
    "many elements": lambda size: splitting(ArraySplitter, b"[" + b"{}," * size + b"{}]", 4096),
    "a long element in pieces": lambda size: splitting(ArraySplitter, b'[{"a":' + b"[0]," * 16 * size, 16),
    "a long string in pieces": lambda size: splitting(ArraySplitter, b'["' + b'\\"\\\\' * 16 * size, 7),
    "blanks before an array": lambda size: splitting(ArraySplitter, b" " * 64 * size, 16),
    "brackets": lambda size: splitting(ArraySplitter, b"[" * 16 * size, 16),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_split_in_time_that_its_length_takes(name: str) -> None:
    assert not squares(BATCHES[name])
    require_n_log_n_of_time(BATCHES[name], 64)


def refused(document: bytes) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Event.model_validate_json(document)
    return caught.value


def with_pages(good: int, unknown: int) -> bytes:
    page: dict[str, Any] = {"physical_address": 0}
    wrong = page | {f"unknown_{index}": 0 for index in range(unknown)}
    return json.dumps({**EVENT, "host": {"pages": [page] * good + [wrong]}}).encode()


def test_what_is_wrong_with_an_element_is_told_without_going_through_its_list() -> None:
    document = with_pages(3, 1)
    assert invalid(refused(document), document, "event", Event).errors[0].pointer == "/host/pages/3/unknown_0"

    def explaining(good: int) -> Work:
        document = with_pages(good, 100)
        return partial(invalid, refused(document), document, "event", Event)

    require_n_log_n_of_time(explaining, 64)
    assert seconds(explaining(20_000)) < 30 * seconds(explaining(20)), "the list was copied for each of the errors"


def test_error_sources_and_errors_do_not_multiply() -> None:
    assumed = (AssumedField("/notification/type", "gsiv", ""),)

    def notifying(sources: int, errors: int) -> Work:
        table = struct.pack("<4sI28xI", b"HEST", 40 + 64 * sources, sources) + b"".join(map(error_source, range(sources)))
        event = Event(notification=Notification(type=NotificationType.GSIV, source_id=sources - 1), status_block=bytes(20))
        options = ImportOptions(hest=read_sources(table))
        error = FoundError(event, "kernel_log", Position(), assumed)
        return lambda: [apply_notification(options, error).event.notification.type for _ in range(errors)]

    assert notifying(3, 1)() == [NotificationType.GPIO]
    assert not multiplies(notifying)


def error_source(index: int) -> bytes:
    notification = struct.pack("<BB26x", 7, 28)
    register = struct.pack("<BBBBQ", 0, 64, 0, 4, 0x8000_0000)
    return struct.pack("<HHHBBIII12s28sI", 9, index, index, 0, 1, 1, 1, 4096, register, notification, 4096)


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decode", "/v1/syndromes"])
@pytest.mark.parametrize("nested", [b"[" * 100 + b"]" * 100 + b",", b'{"a":' * 100 + b"1" + b"}" * 100 + b","])
def test_lists_in_lists_count_as_values_although_they_need_no_comma(shared_call: Call, path: str, nested: bytes) -> None:
    """Each takes two bytes of a document and 64 of memory."""
    answer = shared_call(
        "POST", path, content=b'{"a":[' + nested * (MAX_VALUES // 100 + 2) + b"1]}", headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["type"]) == (413, f"{URN}too-many-values")


DOCUMENTS = {
    InputFormat.REDFISH: b'{"Members":[',
    InputFormat.LIBCPER: b'{"sections":[',
    InputFormat.EVENT: b"[",
    InputFormat.QMP: b'{"execute":[',
}


@pytest.mark.parametrize("form", DOCUMENTS)
def test_a_document_of_more_values_than_are_held_is_not_read(form: InputFormat) -> None:
    document = DOCUMENTS[form] + b"{}," * MAX_CONTAINERS + b"{}]" + b"}" * (form is not InputFormat.EVENT)
    found = list(read_items(ImportSource(BytesIO(document)), form, None))
    assert [type(one) for one in found] == [UnreadableRecord]
    assert "more than" in found[0].reason  # type: ignore[union-attr]


def pstore(text: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = stream.compress(text) + stream.flush()
    section = SectionDescriptor(
        section_offset=200, section_length=len(packed), section_type=guid("4f118707-04dd-4055-b5dd-956d34ddfac6"), severity=1
    )
    return encode_record(
        CperRecord(severity=1, record_length=200 + len(packed), creator_id=PSTORE_CREATOR, sections=(section,), body=packed)
    )


def test_logs_that_unpack_to_more_than_is_held_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 13,000 records in 16 MiB may unpack to 1 MiB."""
    monkeypatch.setattr(readers, "_MAX_LOG_BYTES", 100_000)
    panic = b"<0>[   12.000001] Kernel panic - not syncing: Fatal hardware error!\n"
    logs = [pstore(b"Panic#%d Part1\n" % index + panic + b"<4>[   12.000002] x\n" * 1000) for index in range(20)]
    found = list(read_items(ImportSource(BytesIO(b"".join(logs))), InputFormat.CPER, None))
    read = [one for one in found if isinstance(one, UnmatchedAction)]
    left_out = [one for one in found if isinstance(one, UnreadableRecord)]
    assert len(read) == 2
    assert len(left_out) == 18
    assert "exceed the limit of 100000 bytes" in left_out[0].reason


def test_facts_of_sources_are_held_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """They were counted, whatever their size: 4096 sources of 4 MiB each."""
    facts = json.dumps({"pci_devices": ["0000:00:00.0"] * 100}).encode()
    monkeypatch.setattr(sources, "CACHED_BYTES", 10 * source_state.GROWTH * len(facts))
    store = TemporaryStore()
    held = Sources(store)
    for index in range(30):
        store.put_host(HostFacts(f"node-{index}", 1, 0, facts))
        assert held.state(f"node-{index}").host is not None
    assert [name for name in held._cached if held._cached[name].host is not None] == [f"node-{index}" for index in range(20, 30)]


def test_facts_that_are_not_durable_are_held_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CACHED_BYTES", 1)
    held = Sources(TemporaryStore())
    for index in range(5):
        held.put_facts(HostFacts(f"node-{index}", 1, 0, b"{}"))
    assert [held.state(f"node-{index}").facts is not None for index in range(5)] == [True] * 5
    for index in range(5):
        held.end_facts_change(f"node-{index}")
    held.state("node-9")
    assert len(held._cached) == 1


def test_poisoned_pages_are_found_by_address_and_not_by_going_through_all() -> None:
    store = TemporaryStore()
    pages = tuple(PoisonedPage(number << 12, 12) for number in range(1000))
    store.append([entry(1, source="node-1", poisons=(*pages, PoisonedPage((1 << 30) + 4096, 30)))])
    assert store.poisoned_at("node-1", [4096 + 8, (1 << 30) + 5, 1 << 40]) == (PoisonedPage(4096, 12), PoisonedPage((1 << 30) + 4096, 30))

    def looking_up(size: int) -> Work:
        store.append([entry(1 + size, source=f"node-{size}", poisons=pages[:size])])
        return lambda: store.poisoned_at(f"node-{size}", [0])

    assert operations(looking_up(1000)) == operations(looking_up(10))
