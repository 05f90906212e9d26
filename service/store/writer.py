"""Writer thread of the store, with group commit.

WriteQueueFull      the write queue is full
EarlierWriteFailed  an earlier write failed on which this one may depend
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, TypeVar

from ras_triage.models.frozen import frozen
from ras_triage.service.store.port import NewDecision, Store, StoreError, StoreUnavailable
from ras_triage.service.telemetry.hooks import call_each

T = TypeVar("T")

GROUP_ENTRIES: Final = 512
GROUP_BYTES: Final = 8 << 20
"""Limits of one commit."""

FRESH_S: Final = 1.0
"""Age up to which the last commit proves that the store can be written, in seconds."""

PROBE_S: Final = 3.0
"""Time limit of a probe, in seconds."""

IDLE_S: Final = 0.5
"""Interval of the store's maintenance without writes, in seconds."""


class WriteQueueFull(Exception):
    """The write queue is full."""


class EarlierWriteFailed(StoreUnavailable):
    """An earlier write failed on which this one may depend."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__("an earlier write failed")
        self.failure = failure


@frozen
class WriterStats:
    """Statistics of the writer."""

    queue_entries: int
    queue_bytes: int
    oldest_unanswered_s: float
    """Age of the oldest decision in the queue; 0: the queue is empty."""
    last_failure: str | None
    """Reason why the store cannot be written; None: it can, as far as known."""


@dataclass(slots=True, eq=False)
class _Job:
    """Entries to store, or a function to call; `done` gets the result.

    An epoch ends when the event loop learns of a failed write: decisions of the epoch may depend on what was not stored.
    """

    done: asyncio.Future[Any]
    since: float
    epoch: int
    entries: Sequence[NewDecision] = ()
    size: int = 0
    call: Callable[[], Any] | None = None


def _size(entry: NewDecision) -> int:
    return len(entry.event) + len(entry.decision)


class Writer:
    """Writes a store in its own thread, for one event loop.

    When a write fails, all queued writes fail: a decision may depend on the effects of an earlier one on its source.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_entries: int,
        max_bytes: int,
    ) -> None:
        self._store = store
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self.committed: list[Callable[[int, float], None]] = []
        """Called in the event loop with the entries and seconds of each commit, before the futures are completed."""
        self.failed: list[Callable[[Exception], None]] = []
        """Called in the event loop with each failure."""
        self.maintain: Callable[[], bool] = lambda: False
        """Called in the writer's thread after each write and twice a second. Returns whether there is more to do."""
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._waiting: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._freed = asyncio.Event()
        self._entries = self._bytes = 0
        self._epoch, self._failed_epoch = 0, -1
        self._failure: Exception | None = None
        """Cause of the failed epoch."""
        self._closing = False
        self._last_write = -FRESH_S
        self._last_failure: str | None = None
        self._maintenance_failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    # In the event loop.

    def enqueue(self, entries: Sequence[NewDecision], durable: asyncio.Future[None]) -> None:
        """Queue entries. The future completes when they are durable, or fails with StoreError."""
        self._enqueue(_Job(durable, monotonic(), self._epoch, entries, sum(map(_size, entries))))

    def require_room(self, entries: int, size: int) -> None:
        """Raise WriteQueueFull if the queue has no room for so many entries and bytes."""
        if not self._has_room(entries, size):
            raise WriteQueueFull(f"{self._entries} decisions wait to be written")

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function that writes, in the order of the queue. Raises StoreError."""
        job = _Job(self._loop.create_future(), monotonic(), self._epoch, call=function)
        self._enqueue(job)
        result: T = await job.done
        return result

    async def room(self, entries: int, size: int, share: float = 1.0) -> None:
        """Wait for room in the queue, of which only `share` may be used."""
        while not self._has_room(entries, size, share):
            await self._freed.wait()

    def _has_room(self, entries: int, size: int, share: float = 1.0) -> bool:
        """Return whether the queue has room; an empty queue accepts any size."""
        fits = self._entries + entries <= self._max_entries * share and self._bytes + size <= self._max_bytes * share
        return fits or not self._entries

    def _enqueue(self, job: _Job) -> None:
        if self._closing:
            job.done.set_exception(StoreUnavailable("the service is stopping"))
            return
        self._entries += len(job.entries)
        self._bytes += job.size
        self._waiting.append(job)
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    @property
    def statistics(self) -> WriterStats:
        """Current statistics."""
        oldest = monotonic() - self._waiting[0].since if self._waiting else 0.0
        return WriterStats(self._entries, self._bytes, oldest, self._last_failure or self._maintenance_error)

    @property
    def _maintenance_error(self) -> str | None:
        """Reason why the store cannot be written, found by its maintenance."""
        return str(self._maintenance_failure) if isinstance(self._maintenance_failure, StoreUnavailable) else None

    async def probe(self) -> None:
        """Test whether the store can be written. Raises StoreError."""
        if self.statistics.last_failure is None and monotonic() - self._last_write < FRESH_S:
            return
        try:
            await asyncio.wait_for(self.call(self._store.probe), PROBE_S)
        except TimeoutError:
            raise StoreUnavailable(f"no write finished within {PROBE_S:.0f} s") from None

    async def close(self) -> None:
        """Write the queue, then stop."""
        self._closing = True
        with self._wake:
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    # In the thread.

    def _run(self) -> None:
        more = False
        try:
            while (jobs := self._next(0.0 if more else IDLE_S)) is not None:
                if jobs:
                    self._commit(jobs)
                more = self._run_maintenance()
        except RuntimeError:
            return  # the event loop is closed, and nothing waits for the result

    def _commit(self, jobs: list[_Job]) -> None:
        """Write, and pass the results to the event loop. Raises RuntimeError if it is closed."""
        began = monotonic()
        results: list[Any] = []
        error: Exception | None = None
        try:
            results = self._write(jobs)
        except Exception as failure:  # unexpected exceptions too: the futures must fail, and the thread goes on
            error = failure
            if jobs[0].epoch > self._failed_epoch:
                self._failed_epoch, self._failure = jobs[0].epoch, failure
        self._loop.call_soon_threadsafe(self._answer, jobs, results, error, monotonic() - began)

    def _run_maintenance(self) -> bool:
        """Run the store's maintenance. Return whether there is more to do at once. Raises RuntimeError if the event loop is closed."""
        more, error = False, None
        try:
            more = self.maintain()
        except Exception as failure:  # unexpected exceptions too: the thread goes on
            error = failure
        if error is not None or self._maintenance_failure is not None:
            self._loop.call_soon_threadsafe(self._after_maintenance, error)
        return more

    def _next(self, idle_s: float) -> list[_Job] | None:
        """Return the next jobs: one call, or the entries of one commit; empty after `idle_s` without jobs, None at the end."""
        with self._wake:
            self._wake.wait_for(lambda: self._jobs or self._closing, idle_s)
            if not self._jobs:
                return None if self._closing else []
            jobs = [self._jobs.popleft()]
            entries, size = len(jobs[0].entries), jobs[0].size
            while jobs[0].call is None and self._jobs and self._jobs[0].call is None and self._jobs[0].epoch == jobs[0].epoch:
                entries += len(self._jobs[0].entries)
                size += self._jobs[0].size
                if entries > GROUP_ENTRIES or size > GROUP_BYTES:
                    break
                jobs.append(self._jobs.popleft())
            return jobs

    def _write(self, jobs: list[_Job]) -> list[Any]:
        if jobs[0].epoch <= self._failed_epoch:
            raise EarlierWriteFailed(self._failure)
        if (call := jobs[0].call) is not None:
            return [call()]
        self._store.append([entry for job in jobs for entry in job.entries])
        return [None] * len(jobs)

    # In the event loop again.

    def _after_maintenance(self, error: Exception | None) -> None:
        """Process the result of maintenance; repeated equal failures are reported once."""
        before, self._maintenance_failure = self._maintenance_failure, error
        if error is not None and str(error) not in (str(before), self._last_failure):
            call_each(self.failed, error)

    def _answer(self, jobs: list[_Job], results: list[Any], error: Exception | None, seconds: float) -> None:
        for job in jobs:
            self._waiting.popleft()
            self._entries -= len(job.entries)
            self._bytes -= job.size
        if error is None:
            self._last_failure, self._last_write = None, monotonic()
            call_each(self.committed, sum(len(job.entries) for job in jobs), seconds)
        elif jobs[0].epoch == self._epoch:
            self._epoch += 1
            self._last_failure = str(error) if isinstance(error, StoreError) else type(error).__name__
            call_each(self.failed, error)
        for index, job in enumerate(jobs):
            if job.done.cancelled():
                continue
            if error is None:
                job.done.set_result(results[index])
            else:
                job.done.set_exception(error)
        self._freed.set()
        self._freed.clear()
