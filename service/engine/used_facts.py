"""Stored facts of a source that apply to an event."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Host, RecentRecord
from ras_triage.models.poison import PoisonedPage
from ras_triage.policies.pipeline.poisoned_pages import add_poisoned_pages
from ras_triage.service.api.decision_response import UsedFacts

LOOP_BYTES: Final = 128 << 10
"""Longest facts that are parsed in the event loop, in bytes: at most about 15 ms, once for each version."""


FactsBasis = tuple[UsedFacts, tuple[PoisonedPage, ...]]
"""Stored facts that a decision used, and the poisoned pages among them."""


@frozen
class StoredFacts:
    """Stored host facts, and what earlier decisions left behind, that apply to one event."""

    host: Host | None
    """`facts`, if parsed."""
    poisoned: tuple[PoisonedPage, ...]
    used: UsedFacts
    """The same, as the decision response names them."""
    facts: bytes | None = None
    """Host facts for an event without any, JSON; None: the event has its own."""
    duplicate_age_ms: int | None = None
    """Age of the record that makes the event's a duplicate; None: it is none."""

    @property
    def basis(self) -> FactsBasis:
        """What decides whether a decision under other facts would be the same."""
        return self.used, self.poisoned

    @property
    def is_long(self) -> bool:
        """Whether the facts are too long to be parsed in the event loop."""
        return self.facts is not None and self.host is None

    def without_host(self) -> StoredFacts:
        """Return the same without the parsed host, to be sent to another process."""
        return self if self.host is None else replace(self, host=None)

    def with_host(self, event: Event) -> Event:
        """Return the event with the stored host facts if it has none; without what its source's decisions left behind."""
        return event if self.facts is None else event.model_copy(update={"host": self.host or _read_host(self.facts)})

    def add_remembered(self, event: Event) -> Event:
        """Return the result of `with_host` with what decisions left behind: poisoned pages, and the record that this one duplicates."""
        host = add_poisoned_pages(event.host, self.poisoned)
        if self.duplicate_age_ms is not None and event.status_block is not None and host.recent is None:
            record = RecentRecord(status_block=event.status_block, age_ms=self.duplicate_age_ms)
            host = host.model_copy(update={"recent": (record,)})
        return event if host is event.host else event.model_copy(update={"host": host})


@lru_cache(maxsize=1)
def _read_host(facts: bytes) -> Host:
    """Parse host facts. Cached: a worker gets the events of one source in a row."""
    return Host.model_validate_json(facts)
