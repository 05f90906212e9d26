"""Cache of the state of each sender: host facts, poisoned pages, recent records.

The cache belongs to the event loop and is ahead of the store by the writes that are not durable yet. Writes are queued in the order of
the changes, so that everything a decision rests on is durable before the decision is. When a write fails, the cache is cleared.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

from ras_triage.models.decision import Action
from ras_triage.models.host import Host
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.handled_record import ReportedRecord
from ras_triage.policies.pipeline.recent_records import (
    HISTORY_LENGTH,
    HISTORY_MS,
    HandledRecord,
    add_record,
    duplicate_age,
)
from ras_triage.service.api.decision_response import UsedFacts
from ras_triage.service.engine.evaluation import EventDocument, EventKeys, is_long, parse_event, was_handled
from ras_triage.service.engine.used_facts import LOOP_BYTES, StoredFacts
from ras_triage.service.store.port import HostFacts, RowDamaged, Store

T = TypeVar("T")

CACHED_SOURCES: Final = 4096
EVICTED_SOURCES: Final = 65_536
"""Further sources whose recent records are cached: some 500 bytes each, as most have one."""
CACHED_BYTES: Final = 128 << 20
"""Approximate memory for cached facts of all sources; others are read from the store."""
GROWTH: Final = 16
"""Bytes of memory for each byte of facts, after parsing."""
CACHED_PAGES: Final = 256
"""Cached pages of one source; if there are more, they are read from the store."""

Undo = Callable[[], object]
"""Reverts the last change."""


def _count_down(counter: Counter[T], key: T) -> None:
    """Decrement a count, and remove it at zero."""
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def facts_digest(facts: bytes) -> str:
    """Return the content hash of stored facts."""
    return "sha256:" + hashlib.sha256(facts).hexdigest()


class SourceState:
    """Cached state of one source."""

    __slots__ = ("digest", "facts", "host", "pages", "pending", "records", "unsaved", "used_ms")

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
        self.used_ms = 0
        """When the records were last used, in milliseconds since 1970."""

    def set_facts(self, facts: HostFacts | None) -> None:
        """Replace the facts."""
        self.facts = facts
        content = None if facts is None else facts.facts
        self.host = None if content is None or len(content) > LOOP_BYTES else Host.model_validate_json(content)
        self.digest = None if content is None else facts_digest(content)

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
            _count_down(self.unsaved, page)

    def add_record(self, record: ReportedRecord) -> Undo:
        """Add a record that the machine handled. Those not read from the store yet are left to be read."""
        before = self.records
        self.pending += 1
        if before is not None:
            self.records = add_record(before, record)
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


def _contains_any(page: PoisonedPage, addresses: Sequence[int]) -> bool:
    """Return whether one of the sorted physical addresses lies in a poisoned page."""
    index = bisect_left(addresses, page.start)
    return index < len(addresses) and page.contains(addresses[index])


class SourceRecords(NamedTuple):
    """Recent records of a source."""

    records: tuple[HandledRecord, ...]
    used_ms: int
    """When they were last used, in milliseconds since 1970."""


class Sources:
    """LRU cache of the state of sources."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cached: OrderedDict[str, SourceState] = OrderedDict()
        self._changing: Counter[str] = Counter()
        """Sources whose newest facts are not durable yet."""
        self._size = 0
        """Of all cached sources, in bytes."""
        self._evicted: OrderedDict[str, SourceRecords] = OrderedDict()
        """Recent records of evicted sources: reading them from the store takes longer than a decision."""
        self._forgotten_ms: int | None = None
        """Time of the newest decision whose record may be missing in the cache, milliseconds since 1970; None: not read yet."""

    def state(self, name: str) -> SourceState:
        """Return a source's state, from the cache or the store. Raises StoreError."""
        found = self._cached.get(name)
        if found is not None:
            self._cached.move_to_end(name)
            return found
        found = self._cached[name] = SourceState(self._store.host(name), self._store.poisoned(name, CACHED_PAGES + 1))
        if (records := self._evicted.pop(name, None)) is not None:
            found.records, found.used_ms = records
        self._size += found.size
        self._evict(name)
        return found

    def apply(self, name: str, poisoned: Sequence[PoisonedPage], panics: bool, record: ReportedRecord | None) -> list[Undo]:
        """Apply a decision that is queued next to its source. Return how to revert it, last change last. Raises StoreError."""
        if panics:
            return [self.state(name).reboot()]
        undos = [self.state(name).poison(poisoned)] if poisoned else []
        if record is not None:
            undos.append(self.state(name).add_record(record))
        return undos

    def put_facts(self, facts: HostFacts) -> None:
        """Make facts that are queued next the source's newest. Raises StoreError."""
        state = self.state(facts.source)
        self._size -= state.size
        state.set_facts(facts)
        self._size += state.size
        self._changing[facts.source] += 1
        self._evict(facts.source)

    def end_facts_change(self, name: str) -> None:
        """Mark the newest facts as durable or failed."""
        _count_down(self._changing, name)

    def mark_durable(self, name: str, poisoned: Sequence[PoisonedPage], record: ReportedRecord | None) -> None:
        """Mark what a decision left behind as durable."""
        if (state := self._cached.get(name)) is not None:
            state.mark_durable(poisoned)
            if record is not None:
                state.mark_record_durable()

    def _evict(self, used: str) -> None:
        """Evict the least recently used sources over the limit, except `used` and those with changes that are not durable yet."""
        while len(self._cached) > CACHED_SOURCES or self._size > CACHED_BYTES:
            name = next((name for name, state in self._cached.items() if name != used and not self._is_ahead(name, state)), None)
            if name is None:
                return
            evicted = self._cached.pop(name)
            self._size -= evicted.size
            self._keep_records(name, evicted)

    def _keep_records(self, name: str, state: SourceState) -> None:
        """Keep the records of an evicted source, in place of those of the source that was evicted first."""
        if state.records:
            self._evicted[name] = SourceRecords(state.records, state.used_ms)
        if len(self._evicted) > EVICTED_SOURCES:
            self._forget(self._evicted.popitem(last=False)[1].used_ms)

    def _forget(self, used_ms: int) -> None:
        """Note that records that were used then have to be read from the store from now on."""
        if self._forgotten_ms is not None:
            self._forgotten_ms = max(self._forgotten_ms, used_ms)

    def _is_ahead(self, name: str, state: SourceState) -> bool:
        """Return whether the cached state has changes that are not durable yet."""
        return bool(state.unsaved) or state.pending > 0 or name in self._changing

    def forget_everything(self) -> None:
        """Clear the cache after a failed write: it may contain changes that were not stored."""
        for state in self._cached.values():
            self._forget(state.used_ms)
        for records in self._evicted.values():
            self._forget(records.used_ms)
        self._cached.clear()
        self._evicted.clear()
        self._size = 0

    def facts_for(self, keys: EventKeys, now_ms: int) -> StoredFacts | None:
        """Return the stored facts of the event's source that apply to the event; None: none apply.

        Host facts apply if the event has none. Poisoned pages apply if they contain one of its addresses or pages, unless the event itself
        says which pages are poisoned. Recent records apply if its own is among them, unless it has `recent` itself. `now_ms`: the time of
        an event without one. Raises StoreError.
        """
        if keys.source is None:
            return None
        state = self.state(keys.source)
        facts = None if keys.has_host or state.facts is None else state.facts.facts
        poisoned = self._poisoned(keys.source, state, keys) if facts is not None or not keys.states_poison else ()
        age = self._duplicate_age(keys.source, state, keys, now_ms)
        if facts is None and not poisoned and age is None:
            return None
        addresses, duplicate = tuple(hex(page.address) for page in poisoned), age is not None
        if facts is None or state.facts is None:
            return StoredFacts(None, poisoned, UsedFacts(None, None, addresses, duplicate), duplicate_age_ms=age)
        used = UsedFacts(state.facts.version, state.digest, addresses, duplicate)
        return StoredFacts(state.host, poisoned, used, facts, duplicate_age_ms=age)

    def _duplicate_age(self, name: str, state: SourceState, keys: EventKeys, now_ms: int) -> int | None:
        """Return the age in ms of the record that makes the event's a duplicate; None: it is none. Raises StoreError."""
        if keys.record is None:
            return None
        at_ms = now_ms if keys.time_ms is None else keys.time_ms
        state.used_ms = now_ms
        if state.records is None:
            state.records = self._stored_records(name, now_ms) if now_ms - HISTORY_MS <= self._last_forgotten_ms() else ()
        return duplicate_age(state.records, keys.record, at_ms)

    def _last_forgotten_ms(self) -> int:
        """Return the time of the newest decision whose record may not be in the cache. Raises StoreError."""
        if self._forgotten_ms is None:
            newest = self._store.newest_ms()
            self._forgotten_ms = 0 if newest is None else newest
        return self._forgotten_ms

    def _stored_records(self, name: str, now_ms: int) -> tuple[HandledRecord, ...]:
        """Return the records of a source's decisions that may still matter, without those of long events. Raises StoreError."""
        history: tuple[HandledRecord, ...] = ()
        for summary in reversed(self._store.recent(name, now_ms - HISTORY_MS, HISTORY_LENGTH)):
            try:
                event, decision = self._store.event(summary.id), self._store.decision(summary.id)
            except RowDamaged:
                continue
            if event is None or decision is None or is_long(document := EventDocument(event)):
                continue
            keys = parse_event(document).keys
            if summary.action == Action.PANIC.value:
                history = ()
            elif keys.record is not None and was_handled(decision.decision):
                at_ms = summary.decided_at_ms if keys.time_ms is None else keys.time_ms
                history = add_record(history, ReportedRecord(keys.record, at_ms))
        return history

    def _poisoned(self, name: str, state: SourceState, keys: EventKeys) -> tuple[PoisonedPage, ...]:
        """Return the poisoned pages with an address of the event's record or, unless they are too many to cache, of its host facts."""
        addresses = keys.physical_addresses
        if state.pages is not None:
            candidates = state.pages
        elif addresses:
            candidates = {*self._store.poisoned_at(name, addresses), *state.unsaved}
        else:
            return ()
        if not candidates:
            return ()
        matching = (page for page in candidates if any(map(page.contains, addresses)) or _contains_any(page, keys.page_addresses))
        return tuple(sorted(matching, key=lambda page: (page.address, page.shift)))
