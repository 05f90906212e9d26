"""Evaluation of a slice of a batch in a worker process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from ras_triage.service.api.problems import Problem
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import Defect, EncodedDecision, Evaluation, EventDocument, EventKeys, is_long, predecide
from ras_triage.service.engine.source_state import SourceSnapshot, SourceState
from ras_triage.service.engine.used_facts import StoredFacts

_SOURCE: Final = re.compile(rb'"source"\s*:\s*"([^"\\]+)"')


class SliceContext(NamedTuple):
    """What a slice of a batch is decided with."""

    sources: Sequence[SourceSnapshot] = ()
    now_ms: int = 0
    """The time of events without one, in milliseconds since 1970."""
    dry_run: bool = False
    """Whether each event is decided as if the others were not there."""


def source_in(document: EventDocument) -> str | None:
    """Return the probable source of an event; None: not found. Parsing the event would take as long as deciding it."""
    found = None if is_long(document) else _SOURCE.search(document.data)
    return None if found is None else found[1].decode(errors="replace")


def predecide_slice(settings: Settings, documents: Sequence[EventDocument], context: SliceContext) -> list[Evaluation]:
    """Decide events in order, each after what the earlier ones leave behind."""
    return _Slice(context).predecide(documents, settings)


class _Slice:
    """The states of the sources of a slice, as the event loop will have them when it takes the results."""

    def __init__(self, context: SliceContext) -> None:
        self._context = context
        self._states = {source.name: source.state() for source in context.sources}

    def predecide(self, documents: Sequence[EventDocument], settings: Settings) -> list[Evaluation]:
        found: list[Evaluation] = []
        for document in documents:
            evaluation = predecide(document, settings, self._facts_for)
            if not isinstance(evaluation, Problem | Defect) and not self._context.dry_run:
                self._apply(*evaluation[:2])
            found.append(evaluation)
        return found

    def _state(self, name: str) -> SourceState:
        if name not in self._states:
            self._states[name] = SourceSnapshot(name, None, (), ()).state()
        return self._states[name]

    def _facts_for(self, keys: EventKeys) -> StoredFacts | None:
        if keys.source is None:
            return None
        state = self._state(keys.source)
        return state.facts_for(keys, self._context.now_ms, state.pages or ())

    def _apply(self, keys: EventKeys, result: object) -> None:
        if keys.source is not None and isinstance(result, EncodedDecision):
            record = keys.reported_record(self._context.now_ms) if result.handles_record else None
            self._state(keys.source).apply(result.poisoned, result.panics, record)
