"""What an import answers: one line of JSON for each thing that was in the file, and a last one that counts them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from ras_triage.models.decision import Decision
from ras_triage.models.formats.items import FoundError, Position, UnmatchedAction, UnreadableRecord
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.observed import AssumedField, ObservedActions
from ras_triage.policies.agreement import Agreement, compare
from ras_triage.service.api.escaping import valid_text
from ras_triage.service.api.problems import Problem, problem_json
from ras_triage.service.engine.imports.prepared_errors import Prepared, Ready, Spoilt
from ras_triage.service.importing.readers import FoundItem


@dataclass(slots=True)
class ImportCounts:
    """How an import went."""

    errors: int = 0
    """Errors that were found."""
    decided: int = 0
    refused: int = 0
    """Errors that could not be decided."""
    unread: int = 0
    """What looked like a record and could not be read."""
    observations: int = 0
    """What was done about an error, and no telling about which."""
    raw: int = 0
    """Rows that are no errors to decide on."""
    actions: Counter[str] = field(default_factory=Counter)
    agreement: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether everything could be read and decided."""
        return not self.unread and not self.refused

    def add(self, item: FoundItem | Ready) -> None:
        """Count what was in the file."""
        if isinstance(item, FoundError | Prepared):
            self.errors += 1
        elif isinstance(item, UnreadableRecord | Spoilt):
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
        """The counts."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def agreement_of(reading: FoundError | Prepared, decision: Decision) -> Agreement | None:
    """The decision beside what the source says was done; None where it says nothing."""
    return None if reading.observed is None else compare(reading.observed, decision, assumed=reading.assumed)


def reading_line(
    reading: FoundError | Prepared, event: bytes, answer: bytes | Problem, agreement: Agreement | None, file: str | None = None
) -> bytes:  # fmt: skip
    """An error and its answer; a problem stands in the place of a decision that could not be made."""
    front = _front(file) | {"place": _place(reading.place), "format": str(reading.format)}
    front |= {"assumed": [_assumed(one) for one in reading.assumed], "lost": list(reading.lost)}
    answered = b'"problem":' + problem_json(answer) if isinstance(answer, Problem) else b'"decision":' + answer
    parts = (
        to_json(front)[:-1],
        b'"event":' + event,
        answered,
        b'"observed":' + (b"null" if reading.observed is None else _observed().dump_json(reading.observed)),
        b'"agreement":' + (b"null" if agreement is None else _agreement().dump_json(agreement)),
    )
    return b",".join(parts) + b"}"


def other_line(item: UnreadableRecord | UnmatchedAction | UnmatchedRow, file: str | None = None) -> bytes:
    """What is no error to decide on."""
    told: dict[str, Any] = {"place": _place(item.place), "format": str(item.format)}
    if isinstance(item, UnreadableRecord):
        kind, told = "unread", told | {"reason": item.reason}
    elif isinstance(item, UnmatchedAction):
        kind, told = "observation", told | {"source": item.source, "observed": _observed().dump_python(item.observed, mode="json")}
    else:
        kind, told = item.kind, told | {"table": item.table, "id": item.id, "fields": dict(item.fields)}
    return to_json(_front(file) | {kind: told}, bytes_mode="base64", inf_nan_mode="null")


def summary_line(tally: ImportCounts) -> bytes:
    """The last line: without it, the answer is not whole."""
    return to_json({"summary": tally.summary()})


def _front(file: str | None) -> dict[str, Any]:
    return {} if file is None else {"file": valid_text(file)}


def _place(place: Position) -> dict[str, Any]:
    told = {"line": place.line, "offset": place.offset, "item": place.item}
    return {name: known for name, known in told.items() if known is not None}


def _assumed(one: AssumedField) -> dict[str, str]:
    return {"field": one.field, "assumed": str(one.assumed), "because": one.because}


@lru_cache(maxsize=1)
def _observed() -> TypeAdapter[ObservedActions]:
    return TypeAdapter(ObservedActions)


@lru_cache(maxsize=1)
def _agreement() -> TypeAdapter[Agreement]:
    return TypeAdapter(Agreement)


def place_words(place: Position) -> str:
    """Where something stands, in words; none where nobody knows."""
    if place.line is not None:
        return f"line {place.line}"
    return f"byte {place.offset}" if place.offset is not None else place.item or ""
