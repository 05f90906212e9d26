"""The one thread that writes the store. Decisions that wait are kept together: one commit, one wait for the disk, for all of them.

Busy                more waits than may wait
EarlierWriteFailed  a write that this one may rest on failed
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
"""The most that one commit keeps."""

FRESH_S: Final = 1.0
"""A commit that recent proves that the store takes writes."""

PROBE_S: Final = 3.0
"""Seconds that a probe may take before the store counts as stuck."""

IDLE_S: Final = 0.5
"""Seconds without a write after which the store is looked after all the same."""


class WriteQueueFull(Exception):
    """More decisions wait to be written than may wait."""


class EarlierWriteFailed(StoreUnavailable):
    """A write that this one may rest on failed."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__("an earlier write failed")
        self.failure = failure


@frozen
class WriterStats:
    """The writer's state, for whoever is on call."""

    queue_entries: int
    queue_bytes: int
    oldest_unanswered_s: float
    """Age of the decision that waits longest; 0 where none waits."""
    last_failure: str | None
    """Why the store takes no writes, as far as that is known; None where it does."""


@dataclass(slots=True, eq=False)
class _Job:
    """Entries to keep, or a call to make; either is answered through `done`.

    An epoch lasts until the event loop hears of a failed write: what was decided in it may rest on what was not kept.
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
    """Writes a store from a thread of its own, for one event loop.

    When a write fails, everything that waited fails with it: a decision may rest on what an earlier one did to its source.
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
        """Called in the event loop with the entries and seconds of each commit, before anybody hears that they are durable."""
        self.failed: list[Callable[[Exception], None]] = []
        """Called in the event loop with each failure."""
        self.upkeep: Callable[[], bool] = lambda: False
        """Called in the writer's thread after each write and twice a second; whether there is more to do."""
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job] = deque()
        self._waiting: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._freed = asyncio.Event()
        self._entries = self._bytes = 0
        self._epoch, self._failed_epoch = 0, -1
        self._failure: Exception | None = None
        """Why the writes of the failed epoch failed."""
        self._closing = False
        self._last_write = -FRESH_S
        self._last_failure: str | None = None
        self._upkeep_failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    # In the event loop.

    def keep(self, entries: Sequence[NewDecision], durable: asyncio.Future[None]) -> None:
        """Hand over entries; the future is done when they are durable, or raises StoreError."""
        self._hand_over(_Job(durable, monotonic(), self._epoch, entries, sum(map(_size, entries))))

    def require_room(self, entries: int, size: int) -> None:
        """Raises Busy where that much more, in entries and bytes, may not wait."""
        if not self._has_room(entries, size):
            raise WriteQueueFull(f"{self._entries} decisions wait to be written")

    async def call(self, function: Callable[[], T]) -> T:
        """Make a write in its turn. Raises StoreError."""
        job = _Job(self._loop.create_future(), monotonic(), self._epoch, call=function)
        self._hand_over(job)
        result: T = await job.done
        return result

    async def room(self, entries: int, size: int, share: float = 1.0) -> None:
        """Wait until that much more may wait, in a share of the queue."""
        while not self._has_room(entries, size, share):
            await self._freed.wait()

    def _has_room(self, entries: int, size: int, share: float = 1.0) -> bool:
        """Whether more may wait; an empty queue takes whatever comes."""
        fits = self._entries + entries <= self._max_entries * share and self._bytes + size <= self._max_bytes * share
        return fits or not self._entries

    def _hand_over(self, job: _Job) -> None:
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
    def figures(self) -> WriterStats:
        """How it stands now."""
        oldest = monotonic() - self._waiting[0].since if self._waiting else 0.0
        return WriterStats(self._entries, self._bytes, oldest, self._last_failure or self._lost_store)

    @property
    def _lost_store(self) -> str | None:
        """Why the store takes no writes, found out without one."""
        return str(self._upkeep_failure) if isinstance(self._upkeep_failure, StoreUnavailable) else None

    async def probe(self) -> None:
        """Find out whether the store takes writes. Raises StoreError."""
        if self.figures.last_failure is None and monotonic() - self._last_write < FRESH_S:
            return
        try:
            await asyncio.wait_for(self.call(self._store.probe), PROBE_S)
        except TimeoutError:
            raise StoreUnavailable(f"no write came to an end within {PROBE_S:.0f} s") from None

    async def close(self) -> None:
        """Write what waits, then stop."""
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
                more = self._look_after_store()
        except RuntimeError:
            return  # the loop is gone, and with it whoever waited

    def _commit(self, jobs: list[_Job]) -> None:
        """Write, and have whoever waits for it told. Raises RuntimeError where the loop is gone."""
        began = monotonic()
        results: list[Any] = []
        error: Exception | None = None
        try:
            results = self._write(jobs)
        except Exception as failure:  # a defect too: whoever waits for it must hear of it, and the thread goes on
            error = failure
            if jobs[0].epoch > self._failed_epoch:
                self._failed_epoch, self._failure = jobs[0].epoch, failure
        self._loop.call_soon_threadsafe(self._answer, jobs, results, error, monotonic() - began)

    def _look_after_store(self) -> bool:
        """Whether there is more to do at once. Raises RuntimeError where the loop is gone."""
        more, error = False, None
        try:
            more = self.upkeep()
        except Exception as failure:  # a defect too: the thread goes on
            error = failure
        if error is not None or self._upkeep_failure is not None:
            self._loop.call_soon_threadsafe(self._upkept, error)
        return more

    def _next(self, idle_s: float) -> list[_Job] | None:
        """What is written next: one call, or as many entries as one commit keeps; nothing when none came for so long, None at the end."""
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

    def _upkept(self, error: Exception | None) -> None:
        """The store was looked after; a failure is heard once for as long as it is the same."""
        before, self._upkeep_failure = self._upkeep_failure, error
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
