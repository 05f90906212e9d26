"""State of one sender: host facts, poisoned pages, recent records."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.handled_record import RecordKey, ReportedRecord
from ras_triage.policies.pipeline.recent_records import HandledRecord, add_record, duplicate_age
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.engine.evaluation import EventKeys
from ras_triage.service.engine.used_facts import LOOP_BYTES, StoredFacts
from ras_triage.service.store.port import HostFacts

T = TypeVar("T")

GROWTH: Final = 16
"""Bytes of memory for each byte of facts, after parsing."""
CACHED_PAGES: Final = 256
"""Cached pages of one source; if there are more, they are read from the store."""

Undo = Callable[[], object]
"""Reverts the last change."""


def count_down(counter: Counter[T], key: T) -> None:
    """Decrement a count, and remove it at zero."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def facts_digest(facts: bytes) -> str:
    """Return the content hash of stored facts."""
    return "sha256:" + hashlib.sha256(facts).hexdigest()


class SourceState:
    """Cached state of one source."""

    __slots__ = ("_last_age", "digest", "facts", "host", "pages", "pending", "records", "unsaved", "used_ms")

    def __init__(self, facts: HostFacts | None, pages: tuple[PoisonedPage, ...]) -> None:
        self.facts = facts
        """The newest version; None: there are no facts."""
        self.host: Host | None = None
        """The facts, parsed; None: none, or too long to be parsed in the event loop."""
        self.digest: str | None = None
        """Content hash of the facts."""
        self.set_facts(facts)
        self.pages: set[PoisonedPage] | None = set(pages) if len(pages) <= CACHED_PAGES else None
        """All poisoned pages; None: too many to cache."""
        self.unsaved: Counter[PoisonedPage] = Counter()
        """Pages whose poisoning is not durable yet."""
        self.records: tuple[HandledRecord, ...] | None = None
        """Records that the machine handled recently; None: not read from the store yet."""
        self.pending = 0
        """Number of records whose decisions are not durable yet."""
        self._last_age: tuple[tuple[tuple[HandledRecord, ...], RecordKey, int] | None, int | None] = None, None
        """Arguments and result of the last `duplicate_age`."""
        self.used_ms = 0
        """When the records were last used, in milliseconds since 1970."""

    def set_facts(self, facts: HostFacts | None) -> None:
        """Replace the facts."""
        self.facts = facts
        content = None if facts is None else facts.facts
        self.host = None if content is None or len(content) > LOOP_BYTES else Host.model_validate_json(content)
        self.digest = None if content is None else facts_digest(content)

    def snapshot(self, name: str, max_facts: int) -> SourceSnapshot:
        """Return a snapshot, with the facts if they have at most `max_facts` bytes."""
        has_facts = self.facts is not None and len(self.facts.facts or b"") <= max_facts
        return SourceSnapshot(name, self.facts if has_facts else None, tuple(self.pages or ()), printed_records(self.records or ()))

    @property
    def size(self) -> int:
        """Approximate memory of the facts, in bytes."""
        return 0 if self.facts is None or self.facts.facts is None else GROWTH * len(self.facts.facts)

    def poison(self, pages: Sequence[PoisonedPage]) -> Undo:
        """Add poisoned pages."""
        known = self.pages
        added = () if known is None else tuple(page for page in pages if page not in known)
        self.unsaved.update(pages)
        if known is not None:
            known.update(added)
            if len(known) > CACHED_PAGES:
                self.pages = None
        return partial(self._unpoison, pages, added)

    def _unpoison(self, pages: Sequence[PoisonedPage], added: Sequence[PoisonedPage]) -> None:
        self.mark_durable(pages)
        if self.pages is not None:
            self.pages.difference_update(added)

    def mark_durable(self, pages: Sequence[PoisonedPage]) -> None:
        """Mark pages as durable."""
        for page in pages:
            count_down(self.unsaved, page)

    def add_record(self, record: ReportedRecord) -> Undo:
        """Add a record that the machine handled. Those not read from the store yet are left to be read."""
        before = self.records
        self.pending += 1
        if before is not None:
            self.records = add_record(before, record, self._age(before, record.key, record.at_ms))
        return partial(self._remove_record, before)

    def _remove_record(self, before: tuple[HandledRecord, ...] | None) -> None:
        self.records = before
        self.mark_record_durable()

    def mark_record_durable(self) -> None:
        """Mark the decision of a record as durable or failed."""
        self.pending = max(self.pending - 1, 0)

    def reboot(self) -> Undo:
        """Remove what decisions left behind: all poisoned pages and recent records."""
        undo = partial(self._remember, self.pages, self.unsaved, self.records)
        self.pages, self.unsaved, self.records = set(), Counter(), ()
        return undo

    def _remember(self, pages: set[PoisonedPage] | None, unsaved: Counter[PoisonedPage], records: tuple[HandledRecord, ...] | None) -> None:
        self.pages, self.unsaved, self.records = pages, unsaved, records

    def apply(self, poisoned: Sequence[PoisonedPage], panics: bool, record: ReportedRecord | None) -> list[Undo]:
        """Apply a decision. Return how to revert it, last change last."""
        if panics:
            return [self.reboot()]
        undos = [self.poison(poisoned)] if poisoned else []
        if record is not None:
            undos.append(self.add_record(record))
        return undos

    def uses_pages(self, keys: EventKeys) -> bool:
        """Return whether poisoned pages apply to an event: unless it says itself which pages are poisoned."""
        return self._facts_for(keys) is not None or not keys.states_poison

    def _facts_for(self, keys: EventKeys) -> bytes | None:
        return None if keys.has_host or self.facts is None else self.facts.facts

    def _age(self, records: tuple[HandledRecord, ...], key: RecordKey, at_ms: int) -> int | None:
        """Return `duplicate_age`, which is asked for a decision and again when the decision is applied."""
        known, age = self._last_age
        if known is None or known[0] is not records or known[1:] != (key, at_ms):
            age = duplicate_age(records, key, at_ms)
            self._last_age = (records, key, at_ms), age
        return age

    def facts_for(self, keys: EventKeys, now_ms: int, pages: Collection[PoisonedPage]) -> StoredFacts | None:
        """Return what applies to an event: facts if it has none, `pages` that contain one of its addresses, its record as a duplicate.

        None: nothing. `now_ms`: the time of an event without one.
        """
        facts = self._facts_for(keys)
        poisoned = _matching(pages, keys) if pages and self.uses_pages(keys) else ()
        age = None
        if keys.record is not None and self.records:
            age = self._age(self.records, keys.record, now_ms if keys.time_ms is None else keys.time_ms)
        if facts is None and not poisoned and age is None:
            return None
        addresses, duplicate = tuple(hex(page.address) for page in poisoned), age is not None
        if facts is None or self.facts is None:
            return StoredFacts(None, poisoned, UsedFacts(None, None, addresses, duplicate), duplicate_age_ms=age)
        used = UsedFacts(self.facts.version, self.digest, addresses, duplicate)
        return StoredFacts(self.host, poisoned, used, facts, duplicate_age_ms=age)


def printed_records(records: Sequence[HandledRecord]) -> tuple[HandledRecord, ...]:
    """Return the records that can make another one a duplicate. Of a storm they are the few that the kernel printed."""
    return tuple([record for record in records if record.printed])


class SourceSnapshot(NamedTuple):
    """What a worker process needs to know of a source, for a decision that is nearly always the right one."""

    name: str
    facts: HostFacts | None
    pages: tuple[PoisonedPage, ...]
    records: tuple[HandledRecord, ...]
    """The printed ones."""

    def state(self) -> SourceState:
        """Return the state."""
        state = SourceState(self.facts, self.pages)
        state.records = self.records
        return state


def _matching(pages: Collection[PoisonedPage], keys: EventKeys) -> tuple[PoisonedPage, ...]:
    """Return the poisoned pages with an address of the event's record or of its host facts."""
    matching = (page for page in pages if any(map(page.contains, keys.physical_addresses)) or _contains_any(page, keys.page_addresses))
    return tuple(sorted(matching, key=lambda page: (page.address, page.shift)))


def _contains_any(page: PoisonedPage, addresses: Sequence[int]) -> bool:
    """Return whether one of the sorted physical addresses lies in a poisoned page."""
    index = bisect_left(addresses, page.start)
    return index < len(addresses) and page.contains(addresses[index])
