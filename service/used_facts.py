"""What of the facts kept for a source went into a decision."""

from __future__ import annotations

from models.event import Event
from models.host import Host
from models.poison import PoisonedPage
from models.value import value
from policies.remembered import with_poisoned


@value
class UsedFacts:
    """Kept facts that a decision rests on."""

    version: int | None
    """Of the source's facts; None: the event brought its own."""
    digest: str | None
    poisoned: tuple[str, ...]
    """Physical addresses of pages that earlier decisions poisoned, bytes."""


@value
class Known:
    """What is kept for a source and bears on one of its events."""

    host: Host | None
    """Facts for an event that brings none; None: it brings its own."""
    poisoned: tuple[PoisonedPage, ...]
    used: UsedFacts
    """The same, as the decision tells of it."""

    def place(self, event: Event) -> Event:
        """Return the event with the kept facts where it brings none, and without the pages that are kept as poisoned."""
        return event if self.host is None else event.model_copy(update={"host": self.host})

    def poison(self, event: Event) -> Event:
        """Return a placed event as it is decided: with the pages that are kept as poisoned."""
        return event.model_copy(update={"host": with_poisoned(event.host, self.poisoned)}) if self.poisoned else event
