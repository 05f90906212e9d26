"""What of the facts kept for a source went into a decision."""

from __future__ import annotations

from models.value import value


@value
class UsedFacts:
    """Kept facts that a decision rests on."""

    version: int | None
    """Of the source's facts; None: the event brought its own."""
    digest: str | None
    poisoned: tuple[str, ...]
    """Physical addresses of pages that earlier decisions poisoned, bytes."""
