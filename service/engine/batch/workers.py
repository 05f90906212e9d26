"""Worker processes that decide events beside the event loop: slices of large batches, and events that would hold it up.

A worker starts when it is needed first, holds nothing that has to be kept, and ends with the service, however that ends: its standard
input closes, and Linux kills it where it does not read that. One that dies or gives no answer in time is replaced. The events that it had
are then decided one by one: an event that ends or stalls a worker each time has a defect of its own, and the others are not affected.
Where no worker can be started, slices are decided in the event loop and single events in a thread.

WorkerLost          a worker died or gave no answer in time
NoWorkers           no worker can be started
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
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
from ras_triage.service.engine.defects import Defects
from ras_triage.service.engine.evaluation import (
    BatchItem,
    Defect,
    EncodedDecision,
    Evaluation,
    EventDocument,
    Failed,
    Predecided,
    predecide,
)
from ras_triage.service.engine.used_facts import KeptFacts
from ras_triage.service.telemetry import logs

P = ParamSpec("P")
T = TypeVar("T")

ALONE: Final = 512
"""Events of a batch that are decided without workers that do not run yet: it may be a small one, and a worker takes a second to start."""

ALONE_BESIDE: Final = 64
"""And without workers that do."""

REST_S: Final = 60.0
"""Seconds without workers after one could not be started."""

START_S: Final = 60.0
"""Seconds that a worker may take to start, on a machine that is busy."""

TRIES: Final = 2
"""How often a single call is made: a worker may be lost for a reason of its own, such as the kernel's OOM killer."""

DOCUMENT_TIMEOUTS: Final = 6
"""How much longer than an event a whole file may take."""

MAX_WAITING: Final = 64
"""Events that may wait for a worker."""

_OOM_SCORE: Final = "500"
"""Of 1000: where memory runs out, a worker is killed rather than the service (proc_pid_oom_score_adj(5))."""

_PR_SET_PDEATHSIG: Final = 1
"""prctl(2): the signal that a process gets when its parent ends."""

_SAMPLE: Final = EventDocument(b'{"notification":"polled"}')


class WorkerLost(Exception):
    """A worker died or gave no answer in time."""


class NoWorkers(Exception):
    """No worker can be started."""


class _Lane:
    """Calls of one kind, which wait for each other only."""

    def __init__(self, slots: int, timeout_s: float) -> None:
        self.slots = asyncio.Semaphore(slots)
        """As many as are made at one time."""
        self.timeout_s = timeout_s
        """Seconds that one may take."""
        self.waiting = 0


class Workers:
    """The worker processes of one event loop."""

    def __init__(self, settings: Settings, defects: Defects) -> None:
        self.number = settings.batch_workers
        self._defects = defects
        timeout_s = settings.worker_timeout_s
        self._batches = _Lane(max(self.number, 1), timeout_s)
        self._events = _Lane(max(self.number, 1), timeout_s)
        self._documents = _Lane(1, timeout_s * DOCUMENT_TIMEOUTS)
        self._no_limit = CapacityLimiter(inf)
        self.use(settings)
        self._thread = ThreadPoolExecutor(1, "decider")
        self._jobs: set[asyncio.Task[Any]] = set()
        self._ready = 0
        """Workers that have started and have nothing to do."""
        self._back_at = 0.0
        self.alone = ALONE
        """Events of each batch that are decided without them."""

    def use(self, settings: Settings) -> None:
        """Decide by other settings from now on."""
        self._settings = pickle.dumps(Settings(settings.default_policy, settings.custom, max_workload=settings.max_workload))
        """What decides; the rest, secrets among it, is no concern of theirs."""

    @property
    def at_work(self) -> bool:
        """Whether it is of use to give them slices of batches."""
        return self.number > 0 and self._can_start

    @property
    def is_full(self) -> bool:
        """Whether as many events wait for a worker as may, where whoever sent them is not patient."""
        return self._events.waiting >= MAX_WAITING

    @property
    def _can_start(self) -> bool:
        return monotonic() >= self._back_at

    async def predecide(self, items: Sequence[EventDocument | ProblemError]) -> Sequence[BatchItem]:
        """Decide a slice of a batch. Return its events in order; as they came, where no worker can be had."""
        documents = [item for item in items if isinstance(item, EventDocument)]
        try:
            answers = await self._ask(self._batches, _foresee, documents)
        except NoWorkers:
            return items
        except WorkerLost:
            decided = [await self._decide(self._batches, document, None) for document in documents]
        else:
            decided = list(map(_decided, documents, answers))
        self.alone = ALONE_BESIDE
        found = iter(decided)
        return [next(found) if isinstance(item, EventDocument) else item for item in items]

    async def decide(self, document: EventDocument, known: KeptFacts | None) -> Predecided | Failed | ProblemError:
        """Decide one event with what is kept for its source."""
        return await self._decide(self._events, document, known)

    async def _decide(self, lane: _Lane, document: EventDocument, known: KeptFacts | None) -> Predecided | Failed | ProblemError:
        try:
            answer = await self._run(lane, _foresee_one, document, None if known is None else known.unread())
        except ProblemError as refused:
            return refused
        except WorkerLost as error:
            return Failed(document, Defect(logs.explain(error)))
        return _decided(document, answer, known)

    async def run(self, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function of a module that takes long and has no effects; it gets what settings a decision needs. Raises Refused."""
        return await self._call(self._events, function, *arguments, **named)

    async def run_document(self, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
        """`run` for a function that reads a whole file, which may take longer."""
        return await self._call(self._documents, function, *arguments, **named)

    async def _call(
        self, lane: _Lane, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        try:
            result = await self._run(lane, _attempt, function, *arguments, **named)
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
        self, lane: _Lane, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        lost: WorkerLost | None = None
        try:
            for _ in range(TRIES):
                try:
                    return await self._ask(lane, function, *arguments, **named)
                except WorkerLost as error:
                    lost = error
        except NoWorkers:
            if lost is None:
                return await self._run_in_thread(partial(function, pickle.loads(self._settings), *arguments, **named), lane.timeout_s)
            # What ended a worker a moment ago may end the service.
            raise ProblemError(busy("no worker process can be started")) from None
        assert lost is not None
        raise lost

    async def _run_in_thread(self, function: Callable[[], T], timeout_s: float) -> T:
        """Call a function in a thread, which holds the event loop up by as long as a step of it takes. Raises Refused."""
        result = asyncio.get_running_loop().run_in_executor(self._thread, function)
        try:
            return await asyncio.wait_for(asyncio.shield(result), timeout_s)
        except TimeoutError:
            raise ProblemError(busy("no worker process can be started, and this takes too long without")) from None

    async def _ask(
        self, lane: _Lane, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs
    ) -> T:  # fmt: skip
        """Have a worker call a function. Whoever asks may go away: the worker goes on, so that it need not be started anew.

        Raises WorkerLost, NoWorkers.
        """
        lane.waiting += 1
        try:
            await lane.slots.acquire()
        finally:
            lane.waiting -= 1
        call = partial(_call, self._settings, function, *arguments, **named)
        job = asyncio.create_task(self._work(call, lane.timeout_s))
        self._jobs.add(job)
        job.add_done_callback(partial(self._end, lane))
        return await asyncio.shield(job)

    def _end(self, lane: _Lane, job: asyncio.Task[Any]) -> None:
        lane.slots.release()
        self._jobs.discard(job)
        if not job.cancelled():
            job.exception()  # nobody asks for it where whoever waited has gone

    async def _work(self, call: Callable[[], T], timeout_s: float) -> T:
        await self._start()
        try:
            with fail_after(timeout_s):
                result = await to_process.run_sync(call, cancellable=True, limiter=self._no_limit)
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # the last two were the worker's: here, the server hears of them
            self._ready = 0  # one that is counted may have died as well; then its successor must have time to start
            logs.log(logging.WARNING, "worker lost", error=type(error).__name__)
            raise WorkerLost from error
        self._ready += 1
        return result

    async def _start(self) -> None:
        """Make sure that a worker has started: that takes far longer than it may take to answer. Raises NoWorkers."""
        if self._ready:
            self._ready -= 1
            return
        if not self._can_start:
            raise NoWorkers
        for _ in range(TRIES):
            try:
                with fail_after(START_S):
                    await to_process.run_sync(_begin, self._settings, cancellable=True, limiter=self._no_limit)
                return
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                logs.log(logging.WARNING, "worker lost", error=type(error).__name__)
        self._back_at, self.alone = monotonic() + REST_S, ALONE
        logs.log(logging.WARNING, "no workers", seconds=REST_S)
        raise NoWorkers

    def close(self) -> None:
        """End what they do; they end with the event loop."""
        for job in self._jobs:
            job.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)


def _decided(document: EventDocument, answer: Evaluation, known: KeptFacts | None = None) -> Predecided | Failed | ProblemError:
    if isinstance(answer, Problem):
        return ProblemError(answer)
    return Failed(document, answer) if isinstance(answer, Defect) else Predecided(document, *answer, known)


# In the worker.


def _foresee(settings: Settings, documents: list[EventDocument]) -> list[Evaluation]:
    return [predecide(document, settings) for document in documents]


def _foresee_one(settings: Settings, document: EventDocument, known: KeptFacts | None) -> Evaluation:
    return predecide(document, settings, known)


def _attempt(settings: Settings, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a function returns, or what it raises as a value: not every exception can be sent to another process."""
    try:
        return function(settings, *arguments, **named)
    except ProblemError as refused:
        return refused.problem
    except Exception as error:
        return Defect(logs.explain(error))


def _call(pickled: bytes, function: Callable[Concatenate[Settings, P], T], *arguments: P.args, **named: P.kwargs) -> T:
    return function(_begin(pickled), *arguments, **named)


@lru_cache(maxsize=1)
def _begin(pickled: bytes) -> Settings:
    """Prepare a worker: it leaves the terminal's signals to the service, which has it finish what it took. Raises RuntimeError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
    _end_with_service()
    settings: Settings = pickle.loads(pickled)
    match predecide(_SAMPLE, settings):
        case (_, EncodedDecision()):
            raise_gc_thresholds()
            return settings
    raise RuntimeError("a worker does not decide the simplest event")


def _end_with_service() -> None:
    """Have the kernel kill this process when the service ends: one that is stopped or never comes to an end reads no standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
