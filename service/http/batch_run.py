"""A batch from its bytes to its results: decided a slice at a time, answered in order, each result only when it is durable."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple

from starlette.requests import ClientDisconnect

from ras_triage.service.api.problems import ProblemError, problem_json, with_retry_hint
from ras_triage.service.engine.batch.spill_queue import SpillQueue
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.evaluation import BatchItem, EventDocument
from ras_triage.service.engine.intake import EXPECTED_GROWTH, Intake, Outcome
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.http.limits.admission import ClientWork
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.middleware.limits import BodyBudget
from ras_triage.service.store.port import StoreError
from ras_triage.service.store.writer import Writer
from ras_triage.service.telemetry.metrics import Metrics


class Slice(NamedTuple):
    """The most that is decided before the event loop turns to others."""

    items: int
    bytes: int


AT_ONCE: Final = Slice(64, 64 << 10)
FORESEEN: Final = Slice(128, 512 << 10)
"""A few milliseconds' work each: what a worker foresaw is only kept."""

SLICES_AHEAD: Final = 16
"""Slices that may be decided before the first of them is durable."""

QUEUE_SHARE: Final = 0.25
"""Share of the writer's queue that batches fill: enough to keep the disk busy, and the rest is for single requests."""

HOLD_BYTES: Final = 16 << 20
HOLD_S: Final = 5.0
IDLE_S: Final = 1.0
"""How long results are held back, because their status tells whether any failed: bytes, seconds, seconds without a word from the client."""


@dataclass(frozen=True, slots=True)
class BatchFormat:
    """How a batch is written, and its results."""

    media_type: str
    splitter: Callable[[int], ItemSplitter]
    before: bytes
    between: bytes
    behind: bytes


NDJSON: Final = BatchFormat("application/x-ndjson", NdjsonSplitter, b"", b"\n", b"\n")
ARRAY: Final = BatchFormat("application/json", ArraySplitter, b"[", b",\n", b"]")


@dataclass(slots=True)
class BatchCounts:
    """How a batch went so far."""

    items: int = 0
    failed: int = 0

    @property
    def status(self) -> int:
        """HTTP status code."""
        return 207 if self.failed else 200


class BatchRun:
    """One batch under way."""

    def __init__(
        self,
        form: BatchFormat,
        intake: Intake,
        writer: Writer,
        *,
        name: bytes | None,
        item_limit: int,
        spill_limit: int,
        pace: Callable[[int], Awaitable[None]],
        workers: Workers,
        metrics: Metrics,
        work: ClientWork,
        clock: BodyClock,
        held: BodyBudget,
    ) -> None:
        """`name`: tells a repeat of the whole batch, from its Idempotency-Key; None: it has none.

        `pace` waits until so many events may be decided. `clock` and `held` are those of the request.
        """
        self._form = form
        self._intake = intake
        self._writer = writer
        self._name = name
        self._pace = pace
        self._workers = workers
        self._metrics = metrics
        self._work = work
        self._clock = clock
        self._held = held
        self._splitter = form.splitter(item_limit)
        self._read_in: asyncio.Queue[asyncio.Task[Sequence[BatchItem]] | Sequence[BatchItem] | None] = asyncio.Queue(workers.number or 1)
        self._decided: asyncio.Queue[list[Outcome] | None] = asyncio.Queue(SLICES_AHEAD)
        self.outbox = SpillQueue(spill_limit)
        self.tally = BatchCounts()
        self.refusal: ProblemError | None = None
        """Why nothing in the batch was decided."""
        self._taken_in = self._admitted = self._answered = 0
        self._whole = self._complete = False
        """Whether nothing more is taken in, and whether everything was answered."""
        self._heard = monotonic()

    async def run(self, body: AsyncIterator[bytes]) -> None:
        """Decide and answer everything in the body, into the outbox."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take_in(body, tasks))
                tasks.create_task(self._decide())
                tasks.create_task(self._answer())
        except* ClientDisconnect:
            pass
        finally:
            self.outbox.close()

    async def ready(self) -> None:
        """Wait until the first results should leave. Raises Refused where there are none, because the batch is none."""
        began = monotonic()
        while not self.outbox.closed and self.outbox.waiting < HOLD_BYTES:
            now = monotonic()
            if self.outbox.waiting and (now - began > HOLD_S or now - self._heard > IDLE_S):
                return
            await self.outbox.news(IDLE_S)
        if self.refusal is not None:
            raise self.refusal

    # Taking in.

    async def _take_in(self, body: AsyncIterator[bytes], tasks: asyncio.TaskGroup) -> None:
        try:
            async for data in body:
                self._heard = monotonic()
                items = self._splitter.feed(data)
                if items:
                    self._clock.item_complete()
                self._held.keep(self._splitter.incomplete)
                await self._read(items, tasks)
                if self._splitter.broken:
                    break
            else:
                await self._read(self._splitter.finish(), tasks)
        except ProblemError as refused:
            await self._stop(refused)
        self._whole = True
        await self._read_in.put(None)

    async def _stop(self, refused: ProblemError) -> None:
        """Go no further: the batch as a whole is refused where nothing was taken in yet, else its end is."""
        if self._taken_in:
            self._taken_in += 1
            await self._read_in.put([refused])
        else:
            self.refusal = refused

    async def _read(self, items: Sequence[bytes | ProblemError], tasks: asyncio.TaskGroup) -> None:
        if self._splitter.broken and not self._taken_in and len(items) == 1 and isinstance(items[0], ProblemError):
            raise items[0]
        if items and not self._taken_in:
            self._work.require()
        for some in slices(items, lambda: FORESEEN if self._is_large() else AT_ONCE):
            await self._pace(len(some))
            placed = [self._placed(index, item) for index, item in enumerate(some, self._taken_in)]
            foreseen = self._is_large()
            self._taken_in += len(some)
            await self._read_in.put(tasks.create_task(self._foresee(placed)) if foreseen else placed)

    async def _foresee(self, placed: Sequence[EventDocument | ProblemError]) -> Sequence[BatchItem]:
        async with self._work.predeciding(len(placed)):
            return await self._workers.predecide(placed)

    def _is_large(self) -> bool:
        return self._taken_in >= self._workers.inline_events and self._workers.available

    def _placed(self, index: int, item: bytes | ProblemError) -> EventDocument | ProblemError:
        """An event, with what tells its repeat in a repeat of the batch."""
        if isinstance(item, ProblemError):
            return item
        return EventDocument(item, None if self._name is None else hashlib.sha256(self._name + index.to_bytes(8)).digest())

    # Deciding.

    async def _decide(self) -> None:
        while (coming := await self._read_in.get()) is not None:
            items = await coming if isinstance(coming, asyncio.Task) else coming
            await self._decided.put(await self._intake.admit(items, self._admitted, turn=self._turn))
            self._admitted += len(items)
            await asyncio.sleep(0)
        await self._decided.put(None)

    @asynccontextmanager
    async def _turn(self, items: Sequence[BatchItem]) -> AsyncIterator[None]:
        """Wait for this batch's turn to decide, and for room to write."""
        async with self._work.deciding(len(items)):
            await self._writer.room(len(items), sum(map(growth, items)), share=QUEUE_SHARE)
            yield

    # Answering.

    async def _answer(self) -> None:
        while (outcomes := await self._decided.get()) is not None:
            await self.outbox.put(b"".join([part for outcome in outcomes for part in (self._separator(), await self._result(outcome))]))
            self._answered += len(outcomes)
        await self.outbox.put(self._end())
        self._complete = True

    def _end(self) -> bytes:
        return self._form.behind if self.tally.items else self._form.before + self._form.behind.lstrip()

    def break_off(self, refused: ProblemError) -> bytes:
        """Return the end of the answer after `run` was cancelled: a problem for each event without a result, and one for those not read."""
        if self._complete:
            return b""
        self.tally.items = self._answered
        parts: list[bytes] = []
        for _ in range(self._taken_in - self._answered + (0 if self._whole else 1)):
            parts += (self._separator(), self._problem(refused))
        return b"".join(parts) + self._end()

    def _separator(self) -> bytes:
        self.tally.items += 1
        return self._form.between if self.tally.items > 1 else self._form.before

    async def _result(self, outcome: Outcome) -> bytes:
        try:
            if not isinstance(outcome, ProblemError):
                answered = await self._intake.await_response(outcome, self.tally.items - 1)
                self._metrics.batched("repeat" if answered.repeat else "decided")
                return answered.body
        except StoreError as error:
            outcome = ProblemError(store_failed(error))
        except ProblemError as refused:
            outcome = refused
        return self._problem(outcome)

    def _problem(self, refused: ProblemError) -> bytes:
        self.tally.failed += 1
        self._metrics.batched("problem")
        self._metrics.refused(refused.problem.type)
        return problem_json(with_retry_hint(refused.problem))


def growth(item: BatchItem) -> int:
    """Bytes that will be kept, roughly."""
    if isinstance(item, ProblemError):
        return 0
    return EXPECTED_GROWTH * len(item.data if isinstance(item, EventDocument) else item.document.data)


def slices(items: Sequence[bytes | ProblemError], most: Callable[[], Slice]) -> Iterator[list[bytes | ProblemError]]:
    """Items in groups that take a moment each; `most` is asked anew for each group."""
    group: list[bytes | ProblemError] = []
    size, limit = 0, most()
    for item in items:
        group.append(item)
        size += len(item) if isinstance(item, bytes) else 0
        if len(group) >= limit.items or size >= limit.bytes:
            yield group
            group, size, limit = [], 0, most()
    if group:
        yield group
