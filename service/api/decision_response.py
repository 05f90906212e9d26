"""Decision response."""

from __future__ import annotations

from dataclasses import KW_ONLY

from ras_triage.models.decision import Decision
from ras_triage.models.frozen import frozen


@frozen
class UsedFacts:
    """Kept facts that a decision rests on."""

    version: int | None
    """Of the source's facts; None: the event brought its own."""
    digest: str | None
    poisoned: tuple[str, ...]
    """Physical addresses of pages that earlier decisions poisoned, bytes."""


@frozen
class DecisionResponse(Decision):
    """A decision as it is answered."""

    _: KW_ONLY
    id: str | None
    """UUID version 7; null where nothing is kept."""
    decided_at: str | None
    """RFC 3339, UTC; null where nothing is kept."""
    repeat: bool
    """This event was decided before, and this is that decision."""
    host_facts: UsedFacts | None = None
    """What was kept for the source and went into the decision; null where nothing did."""
