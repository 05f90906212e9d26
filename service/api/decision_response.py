"""Decisions as responses, alone and in a batch."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from pydantic_core import to_json

from ras_triage.models.decision import Action, Decision, PolicyRef, WhatIf
from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import HexText, TimeText
from ras_triage.service.api.problems import Problem


@frozen
class UsedFacts:
    """Stored facts that a decision used."""

    version: int | None
    """Version of the source's facts; null: the event had its own."""
    digest: str | None
    """Content hash of the source's facts; null: the event had its own."""
    poisoned: tuple[HexText, ...]
    """Physical addresses (bytes) of pages that earlier decisions poisoned."""
    duplicate: bool = False
    """Whether the source reported the same record less than 10 s before, and the kernel still has it in its cache."""


@frozen
class DecisionResponse(Decision):
    """A decision as the service responds."""

    _: KW_ONLY
    id: str | None
    """UUID version 7; null: not stored."""
    decided_at: TimeText | None
    """RFC 3339, UTC; null: not stored."""
    repeat: bool
    """Whether this is the stored decision of an event that was sent before."""
    host_facts: UsedFacts | None = None
    """Stored facts of the source that the decision used; null: none."""


@frozen
class AlternativesResponse(WhatIf):
    """What an unknown fact or another input would change about a decision."""

    _: KW_ONLY
    id: str | None
    """Id of the decision; null: not stored."""
    policy: PolicyRef
    """The policy under which the alternatives are decided, with its present digest."""


BatchView = Literal["full", "summary"]
"""Whole decisions, or only what is needed to count and find them."""


@frozen
class BatchDecision(DecisionResponse):
    """Decision of an event of a batch."""

    _: KW_ONLY
    index: int
    """Position of the event in the request, from 0; blank lines do not count."""
    event_id: str | None
    """The event's `id`; null: it has none."""


@frozen
class BatchSummary:
    """Decision of an event of a batch, with `view=summary`."""

    index: int
    """Position of the event in the request, from 0; blank lines do not count."""
    event_id: str | None
    """The event's `id`; null: it has none."""
    id: str | None
    """UUID version 7; null: not stored."""
    repeat: bool
    """Whether this is the stored decision of an event that was sent before."""
    action: Action
    """How far the error had to go."""
    certainty: Literal["certain", "depends"]
    """Whether the action depends on something that the event does not say."""
    event_key: str
    """Content hash of the event."""


@dataclass(frozen=True, slots=True)
class BatchProblem(Problem):
    """Problem of an event of a batch."""

    _: KW_ONLY
    index: int
    """Position of the event in the request, from 0; blank lines do not count."""
    event_id: str | None = None
    """The event's `id`; null: it has none, or it could not be read."""


def with_event(index: int, event_id: str | None, document: bytes) -> bytes:
    """Return a JSON object with the position and the id of its event before its members, which are not encoded again."""
    return b'{"index":%d,"event_id":%s,%s' % (index, to_json(event_id), document[1:])
