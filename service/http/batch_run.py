"""Processing of a batch in slices, with durable results in order."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, NamedTuple

from starlette.requests import ClientDisconnect

from ras_triage.service.api.decision_response import BatchView, with_event
from ras_triage.service.api.event_json import require_version
from ras_triage.service.api.problems import ProblemError, with_retry_hint
from ras_triage.service.engine.batch.spill_queue import SpillQueue
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.evaluation import BatchItem, EventDocument
from ras_triage.service.engine.intake import EXPECTED_GROWTH, EventResponse, Intake, Outcome
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.http.batch_lines import problem_line, result_summary, with_array_hint
from ras_triage.service.http.limits.admission import ClientWork
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.middleware.limits import BodyBudget
from ras_triage.service.store.port import StoreError
from ras_triage.service.store.writer import Writer
from ras_triage.service.telemetry.metrics import Metrics


class Slice(NamedTuple):
    """Size limit of the events that are decided in one pass of the event loop."""

    items: int
    bytes: int


AT_ONCE: Final = Slice(64, 64 << 10)
PREDECIDED: Final = Slice(128, 512 << 10)
"""A few milliseconds of work each; an event that a worker has predecided only has to be stored."""

SLICES_AHEAD: Final = 16
"""Slices that may be decided before the first one is durable."""

QUEUE_SHARE: Final = 0.25
"""Share of the write queue that batches may fill; the rest is for single requests."""

HOLD_BYTES: Final = 16 << 20
HOLD_S: Final = 5.0
IDLE_S: Final = 1.0
"""Results are held back, so that the status can tell whether any failed, up to so many bytes, seconds, or seconds without input."""


@dataclass(frozen=True, slots=True)
class BatchFormat:
    """Encoding of a batch and of its results."""

    media_type: str
    splitter: Callable[[int], ItemSplitter]
    opening: bytes
    separator: bytes
    closing: bytes
    is_cloud_events: bool = False
    """Whether each event is in a CloudEvent."""


NDJSON: Final = BatchFormat("application/x-ndjson", NdjsonSplitter, b"", b"\n", b"\n")
ARRAY: Final = BatchFormat("application/json", ArraySplitter, b"[", b",\n", b"]")
CLOUD_EVENTS: Final = replace(ARRAY, is_cloud_events=True)


@dataclass(slots=True)
class BatchCounts:
    """Numbers of results so far."""

    items: int = 0
    failed: int = 0

    @property
    def status(self) -> int:
        """HTTP status code."""
        return 207 if self.failed else 200


_Document = EventDocument | ProblemError
"""An event as it was received, or the problem with it."""

_Slice = tuple[Sequence[_Document], asyncio.Task[Sequence[BatchItem]] | None]
"""Events of a slice, and the task that predecides them; None: they are not predecided."""

_Result = Outcome | EventResponse
"""Of an event that is stored, or of a dry run."""


class BatchRun:
    """One batch in progress."""

    def __init__(
        self,
        form: BatchFormat,
        intake: Intake,
        writer: Writer,
        *,
        repeat_key: bytes | None,
        dry_run: bool,
        view: BatchView,
        item_limit: int,
        spill_limit: int,
        pace: Callable[[int], Awaitable[None]],
        workers: Workers,
        metrics: Metrics,
        work: ClientWork,
        clock: BodyClock,
        budget: BodyBudget,
    ) -> None:
        """`repeat_key`: identifies a repeat of the batch, from its Idempotency-Key; None: it has none.

        `dry_run`: store nothing. `view`: how much of each decision the results have.
        `pace` waits until the rate limit allows so many events. `clock` and `budget` are those of the request.
        """
        self._form = form
        self._intake = intake
        self._writer = writer
        self._repeat_key = repeat_key
        self._dry_run = dry_run
        self._view = view
        self._pace = pace
        self._workers = workers
        self._metrics = metrics
        self._work = work
        self._clock = clock
        self._budget = budget
        self._splitter = form.splitter(item_limit)
        self._read_slices: asyncio.Queue[_Slice | None] = asyncio.Queue(workers.number or 1)
        self._decided: asyncio.Queue[list[tuple[_Result, _Document]] | None] = asyncio.Queue(SLICES_AHEAD)
        self.outbox = SpillQueue(spill_limit)
        self.counts = BatchCounts()
        self.refusal: ProblemError | None = None
        """Why the batch as a whole was refused."""
        self._received = self._admitted = self._finished = 0
        self._input_complete = self._results_complete = False
        """Whether the input is complete, and whether the results are."""
        self._last_input = monotonic()

    @property
    def status(self) -> int:
        """HTTP status code of the results so far."""
        return self.counts.status

    async def run(self, body: AsyncIterator[bytes]) -> None:
        """Decide all events of the body and put their results into the outbox."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_body(body, tasks))
                tasks.create_task(self._decide())
                tasks.create_task(self._send_results())
        except* ClientDisconnect:
            pass
        finally:
            self.outbox.close()

    async def ready(self) -> None:
        """Wait until the first results should be sent. Raises ProblemError if the batch as a whole was refused."""
        began = monotonic()
        while not self.outbox.closed and self.outbox.waiting < HOLD_BYTES:
            now = monotonic()
            if self.outbox.waiting and (now - began > HOLD_S or now - self._last_input > IDLE_S):
                return
            await self.outbox.wait_for_change(IDLE_S)
        if self.refusal is not None:
            raise self.refusal

    # Reading.

    async def _read_body(self, body: AsyncIterator[bytes], tasks: asyncio.TaskGroup) -> None:
        try:
            async for data in body:
                self._last_input = monotonic()
                items = self._splitter.feed(data)
                if items:
                    self._clock.item_complete()
                self._budget.reserve(self._splitter.incomplete)
                await self._enqueue(items, tasks)
                if self._splitter.broken:
                    break
            else:
                await self._enqueue(self._splitter.finish(), tasks)
        except ProblemError as refused:
            await self._stop(refused)
        self._input_complete = True
        await self._read_slices.put(None)

    async def _stop(self, refused: ProblemError) -> None:
        """Stop reading: refuse the batch as a whole if no event was received yet, else its rest."""
        if self._received:
            self._received += 1
            await self._read_slices.put(([refused], None))
        else:
            self.refusal = refused

    async def _enqueue(self, items: Sequence[bytes | ProblemError], tasks: asyncio.TaskGroup) -> None:
        if self._splitter.broken and not self._received and len(items) == 1 and isinstance(items[0], ProblemError):
            raise items[0]
        if items and not self._received:
            self._work.require()
        for part in slices(items, lambda: PREDECIDED if self._is_large() else AT_ONCE):
            await self._pace(len(part))
            documents = [self._document(index, item) for index, item in enumerate(part, self._received)]
            predecided = self._is_large()
            self._received += len(part)
            await self._read_slices.put((documents, tasks.create_task(self._predecide(documents)) if predecided else None))

    async def _predecide(self, documents: Sequence[EventDocument | ProblemError]) -> Sequence[BatchItem]:
        async with self._work.predeciding(len(documents)):
            return await self._intake.predecide(documents, dry_run=self._dry_run)

    def _is_large(self) -> bool:
        return self._received >= self._workers.inline_events and self._workers.available

    def _document(self, index: int, item: bytes | ProblemError) -> EventDocument | ProblemError:
        """Return an event with its repeat key, made from that of the batch and its index."""
        if isinstance(item, ProblemError):
            return item
        if self._form.is_cloud_events:
            try:
                require_version(item)
            except ProblemError as refused:
                return refused
        return EventDocument(item, None if self._repeat_key is None else hashlib.sha256(self._repeat_key + index.to_bytes(8)).digest())

    # Deciding.

    async def _decide(self) -> None:
        while (read_slice := await self._read_slices.get()) is not None:
            documents, predeciding = read_slice
            results = await self._admit(documents if predeciding is None else await predeciding)
            await self._decided.put(list(zip(results, documents, strict=True)))
            self._admitted += len(documents)
            await asyncio.sleep(0)
        await self._decided.put(None)

    async def _admit(self, items: Sequence[BatchItem]) -> Sequence[_Result]:
        admit = self._intake.admit_dry_run if self._dry_run else self._intake.admit
        return await admit(items, self._admitted, turn=self._turn)

    @asynccontextmanager
    async def _turn(self, items: Sequence[BatchItem]) -> AsyncIterator[None]:
        """Wait for a turn to decide, and for room in the write queue."""
        async with self._work.deciding(len(items)):
            if not self._dry_run:
                await self._writer.room(len(items), sum(map(expected_growth, items)), share=QUEUE_SHARE)
            yield

    # Results.

    async def _send_results(self) -> None:
        while (results := await self._decided.get()) is not None:
            await self.outbox.put(b"".join([part for result in results for part in (self._separator(), await self._line(*result))]))
            self._finished += len(results)
        await self.outbox.put(self._end())
        self._results_complete = True

    def _end(self) -> bytes:
        return self._form.closing if self.counts.items else self._form.opening + self._form.closing.lstrip()

    def interrupted_end(self, refused: ProblemError) -> bytes:
        """Return the end of the response after `run` was cancelled: a problem for each event without a result, and one for the rest."""
        if self._results_complete:
            return b""
        self.counts.items = self._finished
        parts: list[bytes] = []
        for _ in range(self._received - self._finished + (0 if self._input_complete else 1)):
            parts += (self._separator(), self._problem_line(refused, None))
        return b"".join(parts) + self._end()

    def _separator(self) -> bytes:
        self.counts.items += 1
        return self._form.separator if self.counts.items > 1 else self._form.opening

    async def _line(self, result: _Result, document: _Document) -> bytes:
        """Return the result that belongs after the latest separator."""
        index = self.counts.items - 1
        try:
            if not isinstance(result, ProblemError):
                response = result if isinstance(result, EventResponse) else await self._intake.await_response(result, index)
                self._metrics.count_batch_event("dry_run" if self._dry_run else "repeat" if response.repeat else "decided")
                return with_event(index, response.event_id, result_summary(response) if self._view == "summary" else response.body)
        except StoreError as error:
            result = ProblemError(store_failed(error))
        except ProblemError as refused:
            result = refused
        return self._problem_line(result, document)

    def _problem_line(self, refused: ProblemError, document: _Document | None) -> bytes:
        self.counts.failed += 1
        self._metrics.count_batch_event("problem")
        self._metrics.count_problem(refused.problem.type)
        problem = with_array_hint(document, refused.problem) if self._form is NDJSON else refused.problem
        return problem_line(self.counts.items - 1, document, with_retry_hint(problem))


def expected_growth(item: BatchItem) -> int:
    """Return an estimate of the bytes that will be stored."""
    if isinstance(item, ProblemError):
        return 0
    return EXPECTED_GROWTH * len(item.data if isinstance(item, EventDocument) else item.document.data)


def slices(items: Sequence[bytes | ProblemError], limit_of_next: Callable[[], Slice]) -> Iterator[list[bytes | ProblemError]]:
    """Yield items in groups; `limit_of_next` returns the limit of each group."""
    group: list[bytes | ProblemError] = []
    size, limit = 0, limit_of_next()
    for item in items:
        group.append(item)
        size += len(item) if isinstance(item, bytes) else 0
        if len(group) >= limit.items or size >= limit.bytes:
            yield group
            group, size, limit = [], 0, limit_of_next()
    if group:
        yield group
