"""Replays of stored events: request, state and results."""

from __future__ import annotations

from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ras_triage.models.decision import PolicyRef
from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import FailFastTuple, TimeText, WireModel
from ras_triage.service.api.replays.changes import DecisionChanges

ReplayState = Literal["waiting", "running", "done", "cancelled", "failed"]


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Text = Annotated[str, Field(max_length=4096)]
_Texts = Annotated[FailFastTuple[_Text], Field(max_length=50), BeforeValidator(_several, json_schema_input_type=str | tuple[str, ...])]


class DecisionFilter(WireModel):
    """Filter of the decisions to replay: one value or several of each field, as the parameters of `GET /v1/decisions`."""

    source: _Texts | None = None
    """Source of the event; with `*` at its end a prefix."""
    action: _Texts | None = None
    """Action of the decision."""
    policy: _Texts | None = None
    """Name of the policy that decided."""
    notification: _Texts | None = None
    """Notification type."""
    severity: _Texts | None = None
    """Severity of the status block."""
    section: _Texts | None = None
    """Section type, as name or GUID."""
    physical_address: _Texts | None = None
    """Failing address, in hexadecimal with `0x`, or decimal."""
    since: _Text | None = None
    """Decided at this time or later: RFC 3339, a date (UTC), or an age such as `7d`."""
    until: _Text | None = None
    """Decided before this time."""


PolicyName = Annotated[str, Field(min_length=1, max_length=128)]


class ReplayRequest(WireModel):
    """Request for a replay."""

    after: PolicyName
    """Policy under which the events are decided again."""
    before: PolicyName | None = None
    """Policy that it is compared with; absent: the stored decisions."""
    filter: DecisionFilter = DecisionFilter()
    """Decisions to replay; absent: all."""


@frozen
class ReplayEntry:
    """A replay in a list."""

    id: str
    """UUID version 7."""
    state: ReplayState
    """`waiting` for another replay, `running`, or how it ended: `done`, `cancelled`, `failed`."""
    created_at: TimeText
    """RFC 3339, UTC."""
    filter: dict[str, Any]
    """Filter of the request."""
    before: PolicyRef | None
    """Policy that it is compared with; null: the stored decisions."""
    after: PolicyRef
    """Policy under which the events are decided again."""
    total: int | None
    """Decisions to replay, as counted at its start; null: not counted yet."""
    compared: int
    """Decisions that have been replayed."""
    changed: int
    """Those of them that change."""
    failed: int
    """Events that could not be decided again."""
    error: str | None
    """Reason for which the replay failed; null: it did not."""


@frozen
class Replay(ReplayEntry):
    """A replay with what changes so far."""

    _: KW_ONLY
    changes: DecisionChanges
    """Counts and examples of the decisions that have been replayed."""


@frozen
class ReplayList:
    """Replays, newest first."""

    replays: tuple[ReplayEntry, ...]
    """At most 100 are kept."""
