"""Pool of worker processes for slices of batches, large events and files.

A worker starts on first use, is stateless, and ends with the service, however that ends: its standard input is closed, and Linux kills it
(PR_SET_PDEATHSIG) if it does not read that. A worker that dies or times out is replaced, and its events are then decided one by one: an
event that kills or stalls a worker each time fails alone. If no worker can be started, slices are decided in the event loop and single
events in a thread.

WorkerLost          a worker died or timed out
NoWorkers           no worker can be started
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, fail_after, to_process

from ras_triage.service.api.problems import Problem, ProblemError, busy, internal
from ras_triage.service.config.gc import raise_gc_thresholds
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.packing import pack_evaluations, pack_slice, unpack_evaluations, unpack_slice
from ras_triage.service.engine.batch.slice_evaluation import SliceContext, predecide_slice
from ras_triage.service.engine.defects import Defects
from ras_triage.service.engine.evaluation import (
    BatchItem,
    Defect,
    EncodedDecision,
    Evaluation,
    EventDocument,
    FailedEvent,
    PredecidedEvent,
    predecide,
)
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.telemetry import logs

P = ParamSpec("P")
T = TypeVar("T")

INLINE_EVENTS_COLD: Final = 512
"""First events of a batch that are decided in the event loop while no worker runs: a start takes a second, and the batch may be small."""

INLINE_EVENTS: Final = 64
"""The same while workers run."""

REST_S: Final = 60.0
"""Seconds until the next attempt after a worker could not be started."""

START_S: Final = 60.0
"""Time limit for the start of a worker on a busy machine, in seconds."""

TRIES: Final = 2
"""Attempts of a single call: a worker may be lost for a reason that is not the event's, such as the OOM killer."""

DOCUMENT_TIMEOUTS: Final = 6
"""Time limit for a whole file, as a multiple of that for an event."""

MAX_WAITING: Final = 64
"""Events that may wait for a worker."""

_NICE: Final = 10
"""Niceness of a worker: the event loop, which answers probes and single requests, goes first on a busy machine."""

_OOM_SCORE: Final = "500"
"""When memory runs out, a worker is killed rather than the service (proc_pid_oom_score_adj(5))."""

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2) option: signal sent to a process when its parent ends."""

_SAMPLE: Final = EventDocument(b'{"notification":"polled"}')


class WorkerLost(Exception):
    """A worker died or timed out."""


class NoWorkers(Exception):
    """No worker can be started."""


class _CallQueue:
    """Calls of one kind, with a queue of their own."""

    def __init__(self, slots: int, timeout_s: float) -> None:
        self.slots = asyncio.Semaphore(slots)
        """Concurrent calls."""
        self.timeout_s = timeout_s
        """Time limit for one call, in seconds."""
        self.waiting = 0


class Workers:
    """The worker processes of one event loop."""

    def __init__(self, settings: Settings, defects: Defects) -> None:
        self.number = settings.batch_workers
        self._defects = defects
        timeout_s = settings.worker_timeout_s
        self._batches = _CallQueue(max(self.number, 1), timeout_s)
        self._events = _CallQueue(max(self.number, 1), timeout_s)
        self._documents = _CallQueue(1, timeout_s * DOCUMENT_TIMEOUTS)
        self._no_limit = CapacityLimiter(inf)
        self.use(settings)
        self._thread = ThreadPoolExecutor(1, "decider")
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ready = 0
        """Idle workers."""
        self._back_at = 0.0
        self.inline_events = INLINE_EVENTS_COLD
        """First events of each batch that are decided in the event loop."""

    def use(self, settings: Settings) -> None:
        """Apply new settings from now on."""
        self._settings = pickle.dumps(
            Settings(settings.default_policy, settings.custom_policies, settings.custom_vmms, max_workload=settings.max_workload)
        )
        """Only the settings that a decision needs: workers get no secrets."""

    @property
    def available(self) -> bool:
        """Whether slices of batches can be given to workers."""
        return self.number > 0 and self._can_start

    @property
    def is_full(self) -> bool:
        """Whether the queue for single events is full."""
        return self._events.waiting >= MAX_WAITING

    @property
    def _can_start(self) -> bool:
        return monotonic() >= self._back_at

    async def predecide(self, items: Sequence[EventDocument | ProblemError], context: SliceContext) -> Sequence[BatchItem]:
        """Decide a slice of a batch. Return the events in order, unchanged if no worker can be started."""
        documents = [item for item in items if isinstance(item, EventDocument)]
        try:
            answers = await self._ask(self._batches, _predecide_slice, pack_slice(documents, context))
        except NoWorkers:
            return items
        except WorkerLost:
            decided = [await self._decide(self._batches, document, None) for document in documents]
        else:
            decided = list(map(_decided, documents, unpack_evaluations(answers)))
        self.inline_events = INLINE_EVENTS
        found = iter(decided)
        return [next(found) if isinstance(item, EventDocument) else item for item in items]

    async def decide(self, document: EventDocument, known: StoredFacts | None) -> PredecidedEvent | FailedEvent | ProblemError:
        """Decide one event with the stored facts of its source."""
        return await self._decide(self._events, document, known)

    async def _decide(
        self, queue: _CallQueue, document: EventDocument, known: StoredFacts | None
    ) -> PredecidedEvent | FailedEvent | ProblemError:
        try:
            answer = await self._run(queue, _predecide_one, document, None if known is None else known.without_host())
        except ProblemError as refused:
            return refused
        except WorkerLost as error:
            return FailedEvent(document, Defect(logs.explain(error)))
        return _decided(document, answer)

    async def run(self, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a slow module-level function without side effects; it gets the settings that a decision needs. Raises ProblemError."""
        return await self._call(self._events, function, *arguments, **named)

    async def run_document(self, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call as `run`, with the longer time limit for a whole file."""
        return await self._call(self._documents, function, *arguments, **named)

    async def _call(
        self, queue: _CallQueue, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        try:
            result = await self._run(queue, _call_safely, function, *arguments, **named)
        except WorkerLost as error:
            result = Defect(logs.explain(error))
        if isinstance(result, Problem):
            raise ProblemError(result)
        if isinstance(result, Defect):
            self._defects.report("decide", result.facts)
            raise ProblemError(internal())
        found: T = result
        return found

    async def _run(
        self, queue: _CallQueue, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        lost: WorkerLost | None = None
        try:
            for _ in range(TRIES):
                try:
                    return await self._ask(queue, function, *arguments, **named)
                except WorkerLost as error:
                    lost = error
        except NoWorkers:
            if lost is None:
                return await self._run_in_thread(partial(function, pickle.loads(self._settings), *arguments, **named), queue.timeout_s)
            # The call that killed the worker could kill the service as well.
            raise ProblemError(busy("no worker process can be started")) from None
        assert lost is not None
        raise lost

    async def _run_in_thread(self, function: Callable[[], T], timeout_s: float) -> T:
        """Call a function in a thread; it competes with the event loop for the GIL. Raises ProblemError."""
        result = asyncio.get_running_loop().run_in_executor(self._thread, function)
        try:
            return await asyncio.wait_for(asyncio.shield(result), timeout_s)
        except TimeoutError:
            raise ProblemError(busy("no worker process can be started, and the event takes too long without one")) from None

    async def _ask(
        self, queue: _CallQueue, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        """Call a function in a worker. If the caller is cancelled, the worker finishes the call: killing it would mean to start a new one.

        Raises WorkerLost, NoWorkers.
        """
        queue.waiting += 1
        try:
            await queue.slots.acquire()
        finally:
            queue.waiting -= 1
        call = partial(_call, self._settings, function, *arguments, **named)
        job = asyncio.create_task(self._work(call, queue.timeout_s))
        self._jobs.add(job)
        job.add_done_callback(partial(self._end, queue))
        return await asyncio.shield(job)

    def _end(self, queue: _CallQueue, job: asyncio.Task[Any]) -> None:
        queue.slots.release()
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # mark as retrieved: the caller may have been cancelled

    async def _work(self, call: Callable[[], T], timeout_s: float) -> T:
        await self._start()
        try:
            with fail_after(timeout_s):
                result = await to_process.run_sync(call, cancellable=True, limiter=self._no_limit)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # the last two, raised in the worker, would stop the server here
            self._ready = 0  # an idle worker may have died as well; its replacement needs time to start
            logs.log(logging.WARNING, "worker lost", error=type(error).__name__)
            raise WorkerLost from error
        self._ready += 1
        return result

    async def _start(self) -> None:
        """Make sure that a worker is running, since a start takes far longer than the time limit of a call. Raises NoWorkers."""
        if self._ready:
            self._ready -= 1
            return
        if not self._can_start:
            raise NoWorkers
        for _ in range(TRIES):
            try:
                with fail_after(START_S):
                    await to_process.run_sync(_initialise, self._settings, cancellable=True, limiter=self._no_limit)
                return
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                logs.log(logging.WARNING, "worker lost", error=type(error).__name__)
        self._back_at, self.inline_events = monotonic() + REST_S, INLINE_EVENTS_COLD
        logs.log(logging.WARNING, "no workers", seconds=REST_S)
        raise NoWorkers

    def close(self) -> None:
        """Cancel all calls. The worker processes end with the event loop."""
        for job in self._jobs:
            job.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _decided(document: EventDocument, answer: Evaluation) -> PredecidedEvent | FailedEvent | ProblemError:
    if isinstance(answer, Problem):
        return ProblemError(answer)
    return FailedEvent(document, answer) if isinstance(answer, Defect) else PredecidedEvent(document, *answer)


# In the worker process.


def _predecide_slice(settings: Settings, packed: bytes) -> bytes:
    return pack_evaluations(predecide_slice(settings, *unpack_slice(packed)))


def _predecide_one(settings: Settings, document: EventDocument, known: StoredFacts | None) -> Evaluation:
    return predecide(document, settings, lambda _keys: known)


def _call_safely(settings: Settings, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call a function. Exceptions are returned as values, since not every exception can be pickled."""
    try:
        return function(settings, *arguments, **named)
    except ProblemError as refused:
        return refused.problem
    except Exception as error:
        return Defect(logs.explain(error))


def _call(pickled: bytes, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
    return function(_initialise(pickled), *arguments, **named)


@lru_cache(maxsize=1)
def _initialise(pickled: bytes) -> Settings:
    """Initialise a worker. It ignores the terminal's signals, so that the service can let it finish. Raises RuntimeError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    os.nice(_NICE)
    _end_with_service()
    settings: Settings = pickle.loads(pickled)
    match predecide(_SAMPLE, settings):
        case (_, EncodedDecision(), _):
            raise_gc_thresholds()
            return settings
    raise RuntimeError("worker self-test failed: the sample event was not decided")


def _end_with_service() -> None:
    """Have the kernel kill this process when the service ends: a stopped or hanging one does not notice that its input is closed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
