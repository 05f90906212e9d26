"""Rendering of decisions as server-sent events (WHATWG HTML 9.2)."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any, Final

from pydantic_core import to_json

from ras_triage.service.http.lists.summaries import summary_json
from ras_triage.service.store.port import Filter, Purge, Store

MAX_PURGES: Final = 500
"""Purges in memory."""


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Rendered events: the decisions of one filter between two sequence numbers."""

    after: int
    up_to: int
    """Sequence number up to which the page is complete."""
    sequences: tuple[int, ...]
    starts: tuple[int, ...]
    """Offset of each event in `body`, and the end of the last one."""
    body: bytes

    def piece(self, at: int, size: int) -> tuple[bytes, int]:
        """Return the events after `at`, about `size` bytes and at least one, and the sequence number that they reach."""
        first = bisect_right(self.sequences, at)
        if first == len(self.sequences):
            return b"", self.up_to
        end = max(first + 1, bisect_right(self.starts, self.starts[first] + size) - 1)
        end_sequence = self.up_to if end == len(self.sequences) else self.sequences[end - 1]
        return self.body[self.starts[first] : self.starts[end]], end_sequence


def render(kind: str, sequence: int, data: Any) -> bytes:
    """Return one event."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, kind.encode(), to_json(data))


def read_page(store: Store, filters: Filter, after: int, limit: int, known: Purge | None) -> tuple[StreamPage, list[Purge]]:
    """Return at most `limit` decisions after a sequence number, and the purges after `known`, latest first. Raises StoreError.

    Purges are read after the decisions: one in between may be reported needlessly, but none is missed.
    """
    decisions, up_to = store.after_sequence(after, filters, limit)
    purges = _purges_after(store, known)
    events = [render("decision", streamed.sequence, summary_json(streamed.summary)) for streamed in decisions]
    starts = tuple(accumulate(map(len, events), initial=0))
    return StreamPage(after, up_to, tuple(streamed.sequence for streamed in decisions), starts, b"".join(events)), purges


def _purges_after(store: Store, known: Purge | None) -> list[Purge]:
    if store.purges(1) == [known]:
        return []
    return list(takewhile(lambda purge: purge != known, store.purges(MAX_PURGES)))


class PurgeLog:
    """The latest purges in order, numbered from 1."""

    def __init__(self) -> None:
        self._recent: deque[Purge] = deque(maxlen=MAX_PURGES)
        self.count = 0
        """Number of the latest."""

    @property
    def latest(self) -> Purge | None:
        """The latest known purge."""
        return self._recent[-1] if self._recent else None

    def add(self, latest_first: Sequence[Purge]) -> None:
        """Add purges, except those that a concurrent read has added."""
        new = [purge for purge in reversed(latest_first) if purge not in self._recent]
        self._recent.extend(new)
        self.count += len(new)

    def purged(self, since: int, up_to: int, at: int) -> int:
        """Return an upper bound of the decisions after sequence number `at` that the purges after `since` up to `up_to` deleted."""
        first = self.count - len(self._recent) + 1
        numbered = enumerate(self._recent, first)
        chosen = (purge for number, purge in numbered if since < number <= up_to and purge.last_sequence > at)
        return sum(min(purge.count, purge.last_sequence - at) for purge in chosen)
