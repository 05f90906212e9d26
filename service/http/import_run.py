"""Import over HTTP: reading in a thread, deciding in the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from tempfile import NamedTemporaryFile
from threading import Semaphore
from typing import Any, Final, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect

from ras_triage.models.formats.results import Position, UnreadableRecord
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import NotificationType
from ras_triage.service.api.problems import Problem, ProblemError, problem_json, with_retry_hint
from ras_triage.service.engine.batch.spill_queue import SpillQueue
from ras_triage.service.engine.evaluation import LOOP_BYTES, BatchItem, EventDocument
from ras_triage.service.engine.imports.prepared_errors import (
    DefectiveItem,
    PreparedError,
    PreparedItem,
    defective_item,
    prepare,
    read_document,
    read_prepared,
)
from ras_triage.service.engine.imports.results import ImportCounts, summary_line
from ras_triage.service.engine.intake import Outcome
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.engine.time_limit import TimeLimitExceeded
from ras_triage.service.http.batch_run import QUEUE_SHARE, expected_growth
from ras_triage.service.http.import_lines import write_lines
from ras_triage.service.http.limits.admission import ClientWork
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions
from ras_triage.service.importing.readers import Found, RawEvent, find_in, find_items, is_read_whole
from ras_triage.service.importing.source import ImportSource
from ras_triage.service.security.principal import Principal
from ras_triage.service.store.port import StoreError

P = ParamSpec("P")
T = TypeVar("T")

SLICE: Final = 32
"""Items that are decided in one pass of the event loop."""

LONG_BYTES: Final = 1 << 20
"""A longer file that has to be in memory as a whole is read in a worker process."""

HOLD_S: Final = 5.0
"""Seconds for which the first lines are held back, so that an unreadable body can have an error status."""


class ImportBody(io.RawIOBase):
    """Request body as a file for a thread."""

    def __init__(self, pieces: AsyncIterator[bytes], clock: BodyClock, at_work: Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        """`at_work` is acquired by the thread that reads, and released while it waits for its client."""
        super().__init__()
        self._pieces = pieces
        self._clock = clock
        self._at_work = at_work
        self._loop = loop
        self._left = b""
        self._waiting: Future[Any] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # argument of a buffered reader
        """Read into a buffer. Raises ProblemError, also after a timeout, and ClientDisconnect."""
        if not self._left:
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            self._at_work.release()
            try:
                self._left = self._waiting.result()
            finally:
                self._at_work.acquire()
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    async def _next(self) -> bytes:
        async for piece in self._pieces:
            if b"\n" in piece:
                self._clock.item_complete()
            if piece:
                return piece
        return b""

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and return its result to a thread. Raises its exceptions, and CancelledError."""
        self._waiting = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        result: T = self._waiting.result()
        return result

    def cancel_wait(self) -> None:
        """Cancel the wait of the thread."""
        if self._waiting is not None:
            self._waiting.cancel()


@frozen
class ImportRequest:
    """Options of an import request."""

    form: InputFormat | None
    options: ImportOptions
    dry_run: bool
    repeat_key: bytes | None
    """Identifies a repeat of the import, from its Idempotency-Key; None: it has none."""


class ImportRun:
    """One import in progress."""

    status: Final = 200
    """Also if items cannot be read: each of them has a line."""

    def __init__(self, request: ImportRequest, runtime: Runtime, principal: Principal, work: ClientWork, clock: BodyClock) -> None:
        self._request = request
        self._runtime = runtime
        self._principal = principal
        self._work = work
        self._clock = clock
        self._errors = 0
        self._complete = False
        self.outbox = SpillQueue(runtime.settings.spill_bytes)
        self.counts = ImportCounts()
        self.refusal: ProblemError | None = None
        """Why the import as a whole was refused."""

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Read the body, decide its errors and put the lines into the outbox."""
        body = ImportBody(pieces, self._clock, self._runtime.importing, asyncio.get_running_loop())
        slices = _Slices(self._items(body), self._prepare, self._runtime.importing)
        started = False
        try:
            while items := await self._in_thread(slices.next):
                await self.outbox.put(await self._lines(items))
                started = True
            await self.outbox.put(summary_line(self.counts) + b"\n")
            self._complete = True
        except ProblemError as refused:
            if started:
                await self.outbox.put(_problem_line(refused))
                self._complete = True
            else:
                self.refusal = refused
        except (ClientDisconnect, CancelledError):
            pass
        finally:
            body.cancel_wait()
            self.outbox.close()

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._runtime.importers, partial(function, *arguments, **named))

    def _items(self, body: ImportBody) -> Iterator[Found | PreparedItem]:
        source = ImportSource(
            io.BufferedReader(body, 64 << 10),
            max_database_bytes=self._runtime.settings.spill_bytes,
            text_field=self._request.options.text_field,
        )
        yield from find_items(source, self._request.form, self._request.options.notification, partial(self._items_in, body))

    def _items_in(
        self, body: ImportBody, source: ImportSource, form: InputFormat, notification: NotificationType | None
    ) -> Iterator[Found | PreparedItem]:
        """Yield the items of a file; a long one that has to be in memory as a whole is read in a worker process."""
        if source.is_whole or not is_read_whole(source, form):
            yield from find_in(source, form, notification)
            return
        data = source.read_all()
        if len(data) <= LONG_BYTES:
            yield from find_in(ImportSource(io.BytesIO(data), text_field=source.text_field), form, notification)
            return
        with NamedTemporaryFile(prefix="ras-triage-") as source_file, NamedTemporaryFile(prefix="ras-triage-") as item_file:
            source_file.write(data)
            source_file.flush()
            read = self._runtime.workers.run_document(read_document, form, self._request.options, source_file.name, item_file.name)
            body.wait_for(read)
            yield from read_prepared(item_file.file)

    def _prepare(self, item: Found | PreparedItem) -> PreparedItem | RawEvent:
        """Prepare an item, except an event in JSON: the event loop parses it under a time limit."""
        if isinstance(item, RawEvent | PreparedError | DefectiveItem):
            return item
        return prepare(self._runtime.settings, item, self._request.options)

    def interrupted_end(self, refused: ProblemError) -> bytes:
        """Return the end of the response after `run` was cancelled: a problem line, if the results are incomplete."""
        return b"" if self._complete else _problem_line(refused)

    async def ready(self) -> None:
        """Wait until the first lines should be sent. Raises ProblemError if the import as a whole was refused."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HOLD_S
        while not self.outbox.closed and not (self.outbox.waiting and loop.time() > end):
            await self.outbox.wait_for_change(1.0)
        if self.refusal is not None:
            raise self.refusal

    async def _lines(self, items: list[PreparedItem | RawEvent]) -> bytes:
        """Return the lines of some items, in order."""
        ready = [await self._read(item) if isinstance(item, RawEvent) else item for item in items]
        await asyncio.sleep(0)
        for one in ready:
            if isinstance(one, DefectiveItem):
                place = {"line": one.record.place.line, "offset": one.record.place.offset}
                self._runtime.defects.report("import", {**{name: at for name, at in place.items() if at is not None}, **one.defect.facts})
        first = self._errors
        documents = self._documents([one for one in ready if isinstance(one, PreparedError)])
        if documents:
            await self._principal.pace(len(documents))
        results = await (self._decide_dry_run(documents, first) if self._request.dry_run else self._decide(documents, first))
        lines, defects = await self._in_thread(write_lines, ready, results, self.counts)
        for defect in defects:
            self._runtime.defects.report("import", defect.facts)
        return lines

    async def _read(self, raw: RawEvent) -> PreparedItem:
        """Parse an event in JSON, a long one in a worker process."""
        options, settings = self._request.options, self._runtime.settings
        if len(raw.document) <= LOOP_BYTES:
            await asyncio.sleep(0)
            with suppress(TimeLimitExceeded):
                return self._runtime.intake.limit.call(prepare, settings, raw, options)
        try:
            return await self._runtime.workers.run(prepare, raw, options)
        except ProblemError as refused:
            return UnreadableRecord(raw.place, refused.problem.detail, InputFormat.EVENT)

    async def _decide_dry_run(self, documents: list[EventDocument], place: int) -> list[bytes | Problem]:
        outcomes = await self._runtime.intake.admit_dry_run(documents, place, turn=self._turn)
        return [with_retry_hint(one.problem) if isinstance(one, ProblemError) else one.body for one in outcomes]

    async def _decide(self, documents: list[EventDocument], place: int) -> list[bytes | Problem]:
        if not documents:
            return []
        outcomes = await self._runtime.intake.admit(documents, place, turn=self._turn)
        return [await self._result(outcome, place + index) for index, outcome in enumerate(outcomes)]

    @asynccontextmanager
    async def _turn(self, items: Sequence[BatchItem]) -> AsyncIterator[None]:
        """Wait for a turn to decide, and for room in the write queue."""
        async with self._work.deciding(len(items)):
            if not self._request.dry_run:
                await self._runtime.writer.room(len(items), sum(map(expected_growth, items)), share=QUEUE_SHARE)
            yield

    async def _result(self, outcome: Outcome, place: int) -> bytes | Problem:
        if isinstance(outcome, ProblemError):
            return with_retry_hint(outcome.problem)
        try:
            return (await self._runtime.intake.await_response(outcome, place)).body
        except ProblemError as refused:
            return with_retry_hint(refused.problem)
        except StoreError as error:
            return with_retry_hint(store_failed(error))

    def _documents(self, errors: list[PreparedError]) -> list[EventDocument]:
        first, self._errors = self._errors, self._errors + len(errors)
        return [error.document(self._repeat_key(index)) for index, error in enumerate(errors, first)]

    def _repeat_key(self, index: int) -> bytes | None:
        """Return the repeat key of the error at an index."""
        key = self._request.repeat_key
        return None if key is None else hashlib.sha256(key + b"import" + index.to_bytes(8)).digest()


def _problem_line(refused: ProblemError) -> bytes:
    return b'{"problem":' + problem_json(refused.problem) + b"}\n"


class _Slices:
    """Items of a body in slices, read in threads one after the other."""

    def __init__(
        self, items: Iterator[Found | PreparedItem], prepare: Callable[[Found | PreparedItem], PreparedItem | RawEvent], at_work: Semaphore
    ) -> None:
        """`at_work` is acquired by a thread while it reads."""
        self._items = items
        self._prepare = prepare
        self._at_work = at_work
        self._end: Exception | None = None

    def next(self) -> list[PreparedItem | RawEvent]:
        """Return the next items; none at the end. Raises ProblemError, ClientDisconnect, CancelledError after the items before it."""
        if self._end is not None:
            raise self._end
        items: list[PreparedItem | RawEvent] = []
        try:
            with self._at_work:
                items.extend(map(self._prepare, islice(self._items, SLICE)))
        except (ProblemError, ClientDisconnect, CancelledError) as error:
            if not items:
                raise
            self._end = error
        except Exception as error:
            items.append(defective_item(error, Position(), "unknown"))
        return items
