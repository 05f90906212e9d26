"""Decision as a response, with the stored facts that it used."""

from __future__ import annotations

from dataclasses import KW_ONLY

from ras_triage.models.decision import Decision
from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import HexText, TimeText


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
