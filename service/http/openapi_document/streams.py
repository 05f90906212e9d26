"""Lines of an import and events of a stream, as types for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from ras_triage.models.formats.results import Position
from ras_triage.models.frozen import frozen
from ras_triage.models.observed import AssumedField, ObservedActions
from ras_triage.models.scalars import WireModel
from ras_triage.policies.agreement import Agreement
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import Problem


class ErrorLine(WireModel):
    """An error of the file with its decision or its problem."""

    place: Position
    """Where the error is in the file."""
    format: str
    """Format of the item."""
    assumed: tuple[AssumedField, ...]
    """Fields of the event that the file does not contain, and the values used instead."""
    lost: tuple[str, ...]
    """A phrase for each fact that the file does not contain or that an event has no field for."""
    event: dict[str, Any]
    """The error as an event, valid at `POST /v1/decisions`."""
    decision: DecisionResponse | None = None
    """The decision; absent if there is a `problem`."""
    problem: Problem | None = None
    """Why the error could not be decided; absent if there is a `decision`."""
    observed: ObservedActions | None
    """Actions of the kernel for this error; null: the file contains none."""
    agreement: Agreement | None
    """Comparison of the decision with the observed actions; null: there are none."""


class UnreadItem(WireModel):
    """A record that could not be read."""

    place: Position
    """Where the record is in the file."""
    format: str
    """Format of the item."""
    reason: str
    """What is wrong with it."""


class UnreadLine(WireModel):
    """A record of the file that could not be read."""

    unread: UnreadItem
    """The record."""


class OtherItem(WireModel):
    """An item without an error to decide: actions of the kernel in a log, or a row of a database."""

    place: Position
    """Where the item is in the file."""
    format: str
    """Format of the item."""
    source: str | None = None
    """The machine; of a log."""
    observed: ObservedActions | None = None
    """Actions of the kernel; of a log."""
    table: str | None = None
    """Table or trace event; of a row."""
    id: int | None = None
    """Number of the row."""
    fields: dict[str, Any] | None = None
    """Columns of the row."""


class ObservationLine(WireModel):
    """Actions of the kernel that belong to no error of the file."""

    observation: OtherItem
    """The actions."""


class RawLine(WireModel):
    """A row of the file that contains no hardware error to decide."""

    raw: OtherItem
    """The row."""


class ProblemLine(WireModel):
    """The last line of an import that failed in the middle."""

    problem: Problem
    """Why the rest of the file was not imported."""


class ImportSummary(WireModel):
    """Counts of an import."""

    errors: int
    """Errors in the file."""
    decided: int
    """Errors that were decided."""
    refused: int
    """Errors that could not be decided."""
    unread: int
    """Records that could not be read."""
    observations: int
    """Observed actions that could not be assigned to an error."""
    raw: int
    """Database rows that contain no hardware error to decide."""
    actions: dict[str, int]
    """Decisions by action."""
    agreement: dict[str, int]
    """Comparisons by verdict."""


class SummaryLine(WireModel):
    """The last line of a complete import."""

    summary: ImportSummary
    """The counts."""


ImportLine = ErrorLine | UnreadLine | ObservationLine | RawLine | ProblemLine | SummaryLine


@frozen
class PurgedEvent:
    """Data of an event `purged`: decisions between the last event and this one were purged."""

    decisions: int
    """Upper bound of their number."""
