"""What of the facts kept for a source went into a decision."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.poisoned_pages import add_poisoned_pages
from ras_triage.service.api.decision_response import UsedFacts

LOOP_BYTES: Final = 128 << 10
"""Longest kept facts that are read in the event loop, which is done once for each version: at most about 15 ms."""


@frozen
class KeptFacts:
    """What is kept for a source and bears on one of its events."""

    host: Host | None
    """`facts`, where they have been read."""
    poisoned: tuple[PoisonedPage, ...]
    used: UsedFacts
    """The same, as the decision tells of it."""
    facts: bytes | None = None
    """Facts for an event that brings none, JSON; None: it brings its own."""

    @property
    def is_long(self) -> bool:
        """Whether the facts have not been read, because that would keep the event loop for too long."""
        return self.facts is not None and self.host is None

    def unread(self) -> KeptFacts:
        """Return the same with facts that are to be read, as it goes to another process."""
        return self if self.host is None else replace(self, host=None)

    def place(self, event: Event) -> Event:
        """Return the event with the kept facts where it brings none, and without the pages that are kept as poisoned."""
        return event if self.facts is None else event.model_copy(update={"host": self.host or _read_host(self.facts)})

    def poison(self, event: Event) -> Event:
        """Return a placed event as it is decided: with the pages that are kept as poisoned."""
        return event.model_copy(update={"host": add_poisoned_pages(event.host, self.poisoned)}) if self.poisoned else event


def same_knowledge(one: KeptFacts | None, other: KeptFacts | None) -> bool:
    """Return whether a decision made with one is the decision made with the other."""
    if one is None or other is None:
        return one is other
    return one.used == other.used and one.poisoned == other.poisoned


@lru_cache(maxsize=1)
def _read_host(facts: bytes) -> Host:
    """Return facts as an object. A worker is asked about the events of one source in a row."""
    return Host.model_validate_json(facts)
