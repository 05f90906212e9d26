"""The store's twin in memory: the same promises, but for what a restart leaves of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product
from threading import RLock
from typing import Literal

from ras_triage.models.poison import PoisonedPage
from ras_triage.service.store.port import (
    PURGES,
    ApiKey,
    BucketCount,
    Cursor,
    Field,
    Filter,
    HostFacts,
    Loss,
    NewDecision,
    Page,
    Purge,
    StoredDecision,
    StoreSize,
    StreamedDecision,
    Summary,
    Usage,
)

_PAGE_SHIFTS = range(12, 49)
"""log2 of the sizes that a poisoned page can have (`ras_triage.models.host.Page.shift`)."""
_PLAIN: tuple[Field, ...] = ("source", "action", "policy", "notification", "severity")


class MemoryStore:
    """A store that lasts as long as the process; see `ras_triage.service.store.port.Store`."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._entries: dict[int, NewDecision] = {}
        self._by_id: dict[str, int] = {}
        self._by_repeat: dict[bytes, int] = {}
        self._sequence = 0
        self._hosts: dict[str, list[HostFacts]] = {}
        self._poisoned: dict[str, dict[tuple[int, int], PoisonedPage]] = {}
        self._purges: list[Purge] = []
        self._keys: dict[str, ApiKey] = {}

    def append(self, entries: Sequence[NewDecision]) -> None:
        with self._lock:
            for entry in entries:
                self._sequence += 1
                self._entries[self._sequence] = entry
                self._by_id[entry.summary.id] = self._sequence
                if entry.repeat_key is not None:
                    self._by_repeat[entry.repeat_key] = self._sequence
                self._remember_poison(entry)

    def _remember_poison(self, entry: NewDecision) -> None:
        source = entry.summary.source
        if source is None:
            return
        if entry.forgets:
            self._poisoned.pop(source, None)
        for page in entry.poisons:
            self._poisoned.setdefault(source, {}).setdefault((page.start, page.shift), page)

    def probe(self) -> None:
        """Memory takes whatever comes."""

    def upkeep(self, log_bytes: int) -> None:
        """There are no files."""

    def repeat(self, key: bytes) -> StoredDecision | None:
        with self._lock:
            sequence = self._by_repeat.get(key)
            return None if sequence is None else _kept(self._entries[sequence])

    def decision(self, identity: str) -> StoredDecision | None:
        entry = self._find(identity)
        return None if entry is None else _kept(entry)

    def event(self, identity: str) -> bytes | None:
        entry = self._find(identity)
        return None if entry is None else entry.event

    def _find(self, identity: str) -> NewDecision | None:
        with self._lock:
            return self._entries.get(self._by_id.get(identity.lower(), 0))

    def _selected(self, asked: Filter) -> list[tuple[int, NewDecision]]:
        with self._lock:
            return [(sequence, entry) for sequence, entry in self._entries.items() if _matches(entry.summary, asked)]

    def page(self, asked: Filter, after: Cursor | None, limit: int) -> Page:
        places = [(entry.summary.decided_at_ms, sequence, entry.summary) for sequence, entry in self._selected(asked)]
        places.sort(key=lambda place: place[:2], reverse=True)
        behind = [place for place in places if after is None or place[:2] < (after.decided_at_ms, after.sequence)]
        shown = behind[:limit]
        more = Cursor(*shown[-1][:2]) if len(behind) > limit else None
        return Page(tuple(place[2] for place in shown), more)

    def stats(self, asked: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[BucketCount]:
        counts: Counter[tuple[int, tuple[str | None, ...]]] = Counter()
        for _, entry in self._selected(asked):
            bucket = entry.summary.decided_at_ms // bucket_ms * bucket_ms
            counts.update((bucket, group) for group in product(*(_groups(entry.summary, field) for field in group_by)))
        ordered = sorted(counts.items(), key=lambda item: (item[0][0], [(value is not None, value or "") for value in item[0][1]]))
        return [BucketCount(bucket, group, count) for (bucket, group), count in islice(ordered, limit)]

    def following(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        with self._lock:
            newest = max(self._sequence, sequence)
            found = [StreamedDecision(number, entry.summary) for number, entry in self._selected(asked) if number > sequence]
        return found[:limit], found[limit - 1].sequence if len(found) >= limit else newest

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        with self._lock:
            versions = self._hosts.get(source, [])
            chosen = versions[-1:] if version is None else [kept for kept in versions if kept.version == version]
        return chosen[0] if chosen else None

    def put_host(self, facts: HostFacts) -> None:
        with self._lock:
            self._hosts.setdefault(facts.source, []).append(facts)

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        with self._lock:
            pages = sorted(self._poisoned.get(source, {}).items())
        return tuple(page for _, page in pages[:limit])

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        with self._lock:
            pages = self._poisoned.get(source, {})
            keys = {(address >> shift << shift, shift) for address in addresses for shift in _PAGE_SHIFTS}
            return tuple(pages[key] for key in sorted(keys & pages.keys()))

    def forget_poisoned(self, source: str) -> int:
        with self._lock:
            return len(self._poisoned.pop(source, ()))

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        with self._lock:
            return self._purge("age", [item for item in self._oldest_first() if item[1] < than_ms][:limit], at_ms)

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        with self._lock:
            return self._purge("size", self._oldest_first()[:limit], at_ms) if self._bytes() > than_bytes else 0

    def _oldest_first(self) -> list[tuple[int, int]]:
        places = [(sequence, entry.summary.decided_at_ms) for sequence, entry in self._entries.items()]
        return sorted(places, key=lambda place: (place[1], place[0]))

    def _purge(self, reason: Literal["age", "size"], going: list[tuple[int, int]], at_ms: int) -> int:
        if not going:
            return 0
        for sequence, _ in going:
            entry = self._entries.pop(sequence)
            del self._by_id[entry.summary.id]
            if entry.repeat_key is not None:
                del self._by_repeat[entry.repeat_key]
        sequences, times = zip(*going, strict=True)
        self._purges.append(Purge(at_ms, reason, len(going), min(sequences), max(sequences), min(times), max(times)))
        del self._purges[:-PURGES]
        return len(going)

    def disk_bytes(self) -> int:
        with self._lock:
            return self._bytes()

    def usage(self) -> Usage:
        with self._lock:
            return Usage(self._bytes(), 0, len(self._entries))

    def purges(self, limit: int) -> list[Purge]:
        with self._lock:
            return self._purges[::-1][:limit]

    def losses(self) -> list[Loss]:
        return []

    def last_sequence(self) -> int:
        return self._sequence

    def size(self) -> StoreSize:
        with self._lock:
            times = [entry.summary.decided_at_ms for entry in self._entries.values()]
            return StoreSize(len(times), self._bytes(), min(times, default=None), max(times, default=None), self._sequence)

    def _bytes(self) -> int:
        return sum(len(entry.event) + len(entry.decision) for entry in self._entries.values())

    def api_key(self, identity: str) -> ApiKey | None:
        with self._lock:
            return self._keys.get(identity)

    def api_keys(self) -> list[ApiKey]:
        with self._lock:
            return sorted(self._keys.values(), key=lambda key: (key.created_at_ms, key.id))

    def add_api_key(self, key: ApiKey) -> None:
        with self._lock:
            self._keys[key.id] = key

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        with self._lock:
            key = self._keys.get(identity)
            if key is None or key.revoked_at_ms is not None:
                return False
            self._keys[identity] = replace(key, revoked_at_ms=at_ms)
            return True

    def release_memory(self) -> None:
        """Nothing is cached."""

    def close(self) -> None:
        """Nothing is held."""


def _kept(entry: NewDecision) -> StoredDecision:
    return StoredDecision(entry.summary.id, entry.summary.decided_at_ms, entry.summary.event_key, entry.decision)


def _matches(summary: Summary, asked: Filter) -> bool:
    if any(getattr(asked, field) not in (None, getattr(summary, field)) for field in _PLAIN):
        return False
    if asked.section is not None and asked.section not in summary.sections:
        return False
    if asked.physical_address is not None and asked.physical_address not in summary.physical_addresses:
        return False
    at = summary.decided_at_ms
    return (asked.since_ms is None or at >= asked.since_ms) and (asked.until_ms is None or at < asked.until_ms)


def _groups(summary: Summary, field: Field) -> Sequence[str | None]:
    """A decision's values of a field; one that has none counts under None."""
    if field == "section":
        return summary.sections or (None,)
    if field == "physical_address":
        return [hex(address) for address in summary.physical_addresses] or (None,)
    return (getattr(summary, field),)
