"""Cache of the state of each sender: host facts, poisoned pages, recent records.

The cache belongs to the event loop and is ahead of the store by the writes that are not durable yet. Writes are queued in the order of
the changes, so that everything a decision rests on is durable before the decision is. When a write fails, the cache is cleared.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from ras_triage.models.decision import Action
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.handled_record import ReportedRecord
from ras_triage.policies.pipeline.recent_records import HISTORY_LENGTH, HISTORY_MS, HandledRecord, add_record, duplicate_age
from ras_triage.service.engine.evaluation import EventDocument, EventKeys, is_long, parse_event, was_handled
from ras_triage.service.engine.source_state import CACHED_PAGES, SourceSnapshot, SourceState, Undo, count_down, printed_records
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.store.port import HostFacts, RowDamaged, Store

CACHED_SOURCES: Final = 4096
EVICTED_SOURCES: Final = 65_536
"""Further sources whose recent records are cached: some 500 bytes each, as most have one."""
CACHED_BYTES: Final = 128 << 20
"""Approximate memory for cached facts of all sources; others are read from the store."""
SNAPSHOT_BYTES: Final = 1 << 20
"""Facts that are sent to a worker process with one slice of a batch, in bytes."""


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
        return self.state(name).apply(poisoned, panics, record)

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
        count_down(self._changing, name)

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
        if keys.record is not None:
            state.used_ms = now_ms
            if state.records is None:
                state.records = self._stored_records(keys.source, now_ms) if now_ms - HISTORY_MS <= self._last_forgotten_ms() else ()
        return state.facts_for(keys, now_ms, self._candidates(keys.source, state, keys))

    def snapshots(self, names: Iterable[str]) -> list[SourceSnapshot]:
        """Return what is cached of sources. A decision that rests on it has to be compared with `facts_for`."""
        found: list[SourceSnapshot] = []
        left = SNAPSHOT_BYTES
        for name in names:
            if (state := self._cached.get(name)) is not None:
                found.append(state.snapshot(name, left))
                left -= 0 if (facts := found[-1].facts) is None else len(facts.facts or b"")
            elif (records := self._evicted.get(name)) is not None:
                found.append(SourceSnapshot(name, None, (), printed_records(records.records)))
        return found

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
                history = add_record(history, ReportedRecord(keys.record, at_ms), duplicate_age(history, keys.record, at_ms))
        return history

    def _candidates(self, name: str, state: SourceState, keys: EventKeys) -> Collection[PoisonedPage]:
        """Return poisoned pages that may apply to an event: those with an address of its record if they are too many to cache."""
        if state.pages is not None:
            return state.pages
        if not keys.physical_addresses or not state.uses_pages(keys):
            return ()
        return {*self._store.poisoned_at(name, keys.physical_addresses), *state.unsaved}
