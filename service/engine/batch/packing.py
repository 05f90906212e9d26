"""Encoding of slices and their evaluations for the pipe to a worker process.

Plain tuples are pickled in C. Pickling a named tuple or a dataclass calls Python for each instance, which takes several times as long.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import starmap
from typing import Any

from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.recent_records import HandledRecord
from ras_triage.service.api.problems import Problem
from ras_triage.service.engine.batch.slice_evaluation import SliceContext
from ras_triage.service.engine.evaluation import Defect, EncodedDecision, Evaluation, EventDocument, EventKeys
from ras_triage.service.engine.source_state import SourceSnapshot


def pack_slice(documents: Sequence[EventDocument], context: SliceContext) -> bytes:
    """Encode the events of a slice and what they are decided with."""
    sources = [
        (name, facts, [(page.address, page.shift) for page in pages], list(map(tuple, records)))
        for name, facts, pages, records in context.sources
    ]
    events = [(document.data, document.name, document.is_live) for document in documents]
    return pickle.dumps((events, sources, context.now_ms, context.dry_run), pickle.HIGHEST_PROTOCOL)


def unpack_slice(packed: bytes) -> tuple[list[EventDocument], SliceContext]:
    """Decode the result of `pack_slice`."""
    events, sources, now_ms, dry_run = pickle.loads(packed)
    snapshots = [
        SourceSnapshot(name, facts, tuple(starmap(PoisonedPage, pages)), tuple(map(HandledRecord._make, records)))
        for name, facts, pages, records in sources
    ]
    return list(starmap(EventDocument, events)), SliceContext(snapshots, now_ms, dry_run)


def pack_evaluations(evaluations: Sequence[Evaluation]) -> bytes:
    """Encode the evaluations of a slice."""
    return pickle.dumps(list(map(_pack, evaluations)), pickle.HIGHEST_PROTOCOL)


def unpack_evaluations(packed: bytes) -> list[Evaluation]:
    """Decode the result of `pack_evaluations`."""
    return list(map(_unpack, pickle.loads(packed)))


def _pack(evaluation: Evaluation) -> Any:
    """Return the evaluation of a decided event as plain tuples; others, which are few, unchanged."""
    if isinstance(evaluation, Problem | Defect):
        return evaluation
    keys, result, basis = evaluation
    return (tuple(keys), tuple(result), basis) if isinstance(result, EncodedDecision) else evaluation


def _unpack(packed: Any) -> Evaluation:
    if type(packed) is tuple and type(packed[0]) is tuple:
        keys, result, basis = packed
        return EventKeys._make(keys), EncodedDecision._make(result), basis
    evaluation: Evaluation = packed
    return evaluation
