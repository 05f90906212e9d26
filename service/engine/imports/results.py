"""Result lines of an import (newline-delimited JSON) and their counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from ras_triage.models.decision import Decision
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.results import FoundError, Position, UnmatchedAction, UnreadableRecord
from ras_triage.models.observed import AssumedField, ObservedActions
from ras_triage.policies.agreement import Agreement, compare
from ras_triage.service.api.escaping import valid_text
from ras_triage.service.api.problems import Problem, problem_json
from ras_triage.service.engine.imports.prepared_errors import DefectiveItem, PreparedError, PreparedItem
from ras_triage.service.importing.readers import FoundItem


@dataclass(slots=True)
class ImportCounts:
    """Counts of an import."""

    errors: int = 0
    """Errors in the file."""
    decided: int = 0
    refused: int = 0
    """Errors that could not be decided."""
    unread: int = 0
    """Records that could not be read."""
    observations: int = 0
    """Observed actions that could not be assigned to an error."""
    raw: int = 0
    """Database rows that contain no hardware error to decide."""
    actions: Counter[str] = field(default_factory=Counter)
    agreement: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether all records could be read and decided."""
        return not self.unread and not self.refused

    def add(self, item: FoundItem | PreparedItem) -> None:
        """Count an item."""
        if isinstance(item, FoundError | PreparedError):
            self.errors += 1
        elif isinstance(item, UnreadableRecord | DefectiveItem):
            self.unread += 1
        elif isinstance(item, UnmatchedAction) or item.kind == "observation":
            self.observations += 1
        else:
            self.raw += 1

    def decide(self, action: str, agreement: Agreement | None) -> None:
        """Count a decision."""
        self.decided += 1
        self.actions[action] += 1
        if agreement is not None:
            self.agreement[agreement.verdict] += 1

    def summary(self) -> dict[str, Any]:
        """Return the counts by name."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def agreement_of(found: FoundError | PreparedError, decision: Decision) -> Agreement | None:
    """Compare a decision with the observed actions; None: none were observed."""
    return None if found.observed is None else compare(found.observed, decision, assumed=found.assumed)


def error_line(
    found: FoundError | PreparedError, event: bytes, answer: bytes | Problem, agreement: Agreement | None, file: str | None = None
) -> bytes:  # fmt: skip
    """Return the line of an error with its decision, or the problem with it."""
    front = _front(file) | {"place": _place(found.place), "format": str(found.format)}
    front |= {"assumed": [_assumed(one) for one in found.assumed], "lost": list(found.lost)}
    answered = b'"problem":' + problem_json(answer) if isinstance(answer, Problem) else b'"decision":' + answer
    parts = (
        to_json(front)[:-1],
        b'"event":' + event,
        answered,
        b'"observed":' + (b"null" if found.observed is None else _observed().dump_json(found.observed)),
        b'"agreement":' + (b"null" if agreement is None else _agreement().dump_json(agreement)),
    )
    return b",".join(parts) + b"}"


def other_line(item: UnreadableRecord | UnmatchedAction | UnmatchedRow, file: str | None = None) -> bytes:
    """Return the line of an item that is not an error to decide."""
    content: dict[str, Any] = {"place": _place(item.place), "format": str(item.format)}
    if isinstance(item, UnreadableRecord):
        kind, content = "unread", content | {"reason": item.reason}
    elif isinstance(item, UnmatchedAction):
        kind, content = "observation", content | {"source": item.source, "observed": _observed().dump_python(item.observed, mode="json")}
    else:
        kind, content = item.kind, content | {"table": item.table, "id": item.id, "fields": dict(item.fields)}
    return to_json(_front(file) | {kind: content}, bytes_mode="base64", inf_nan_mode="null")


def summary_line(counts: ImportCounts) -> bytes:
    """Return the last line, which marks the result as complete."""
    return to_json({"summary": counts.summary()})


def _front(file: str | None) -> dict[str, Any]:
    return {} if file is None else {"file": valid_text(file)}


def _place(place: Position) -> dict[str, Any]:
    values = {"line": place.line, "offset": place.offset, "item": place.item}
    return {name: value for name, value in values.items() if value is not None}


def _assumed(one: AssumedField) -> dict[str, str]:
    return {"field": one.field, "assumed": str(one.assumed), "because": one.because}


@lru_cache(maxsize=1)
def _observed() -> TypeAdapter[ObservedActions]:
    return TypeAdapter(ObservedActions)


@lru_cache(maxsize=1)
def _agreement() -> TypeAdapter[Agreement]:
    return TypeAdapter(Agreement)


def position_text(place: Position) -> str:
    """Return a position as text; empty if unknown."""
    if place.line is not None:
        return f"line {place.line}"
    return f"byte {place.offset}" if place.offset is not None else place.item or ""
