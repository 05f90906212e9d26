"""An import over HTTP: the body is read in a thread as it comes, errors are decided in the event loop, and answers leave in order."""

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
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ras_triage.models.formats.items import Position, UnreadableRecord
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import NotificationType
from ras_triage.service.api.problems import Problem, ProblemError, problem_json, stopping, with_retry_hint
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
from ras_triage.service.http.batch_run import QUEUE_SHARE, growth
from ras_triage.service.http.disconnects import WhileConnected, until_ended
from ras_triage.service.http.import_lines import write_lines
from ras_triage.service.http.limits.admission import ClientWork
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.middleware.shutdown import cancel, shutdown_of
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.importing.format_detection import STREAMED, InputFormat
from ras_triage.service.importing.import_options import ImportOptions
from ras_triage.service.importing.readers import Found, RawEvent, find_in, find_items
from ras_triage.service.importing.source import ImportSource
from ras_triage.service.security.principal import Principal
from ras_triage.service.store.port import StoreError

P = ParamSpec("P")
T = TypeVar("T")

SLICE: Final = 32
"""Items that are decided before the event loop turns to others."""

LONG_BYTES: Final = 1 << 20
"""A file that has to be held as a whole and is longer is read in a worker process."""

HOLD_S: Final = 5.0
"""How long the first answers are held back, in which a body that cannot be read at all still gets a status of its own."""


class ImportBody(io.RawIOBase):
    """A request's body for a thread to read."""

    def __init__(self, pieces: AsyncIterator[bytes], clock: BodyClock, at_work: Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        """`at_work` is held by the thread that reads, and released while it waits for its client."""
        super().__init__()
        self._pieces = pieces
        self._clock = clock
        self._at_work = at_work
        self._loop = loop
        self._left = b""
        self._waiting: Future[Any] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] # what a buffered reader hands over
        """Raises Refused, also where the body does not come in time; ClientDisconnect."""
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
        """Have a thread wait for what the event loop does. Raises what that raises, and CancelledError."""
        self._waiting = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        result: T = self._waiting.result()
        return result

    def give_up(self) -> None:
        """Have a thread that waits for more wait no longer."""
        if self._waiting is not None:
            self._waiting.cancel()


@frozen
class ImportRequest:
    """What an import is to be."""

    form: InputFormat | None
    told: ImportOptions
    dry_run: bool
    name: bytes | None
    """Tells a repeat of the whole import, from its Idempotency-Key; None: it has none."""


class ImportRun:
    """One import under way."""

    def __init__(self, asked: ImportRequest, runtime: Runtime, principal: Principal, work: ClientWork, clock: BodyClock) -> None:
        self._asked = asked
        self._runtime = runtime
        self._principal = principal
        self._work = work
        self._clock = clock
        self._errors = 0
        self._complete = False
        self.outbox = SpillQueue(runtime.settings.spill_bytes)
        self.tally = ImportCounts()
        self.refusal: ProblemError | None = None
        """Why nothing of it was answered."""

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Read, decide and answer, into the outbox."""
        body = ImportBody(pieces, self._clock, self._runtime.importing, asyncio.get_running_loop())
        slices = _Slices(self._find(body), self._prepare, self._runtime.importing)
        started = False
        try:
            while some := await self._in_thread(slices.next):
                await self.outbox.put(await self._answer(some))
                started = True
            await self.outbox.put(summary_line(self.tally) + b"\n")
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
            body.give_up()
            self.outbox.close()

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._runtime.importers, partial(function, *arguments, **named))

    def _find(self, body: ImportBody) -> Iterator[Found | PreparedItem]:
        source = ImportSource(io.BufferedReader(body, 64 << 10), max_database_bytes=self._runtime.settings.spill_bytes)
        yield from find_items(source, self._asked.form, self._asked.told.notification, partial(self._find_in, body))

    def _find_in(
        self, body: ImportBody, source: ImportSource, form: InputFormat, notification: NotificationType | None
    ) -> Iterator[Found | PreparedItem]:
        """Read a file of a format; one that has to be held as a whole, and is long, in a worker process."""
        if form in STREAMED or form is InputFormat.RASDAEMON or source.is_whole:
            yield from find_in(source, form, notification)
            return
        data = source.read_all()
        if len(data) <= LONG_BYTES:
            yield from find_in(ImportSource(io.BytesIO(data)), form, notification)
            return
        with NamedTemporaryFile(prefix="ras-triage-") as given, NamedTemporaryFile(prefix="ras-triage-") as found:
            given.write(data)
            given.flush()
            read = self._runtime.workers.run_document(read_document, form, self._asked.told, given.name, found.name)
            body.wait_for(read)
            yield from read_prepared(found.file)

    def _prepare(self, found: Found | PreparedItem) -> PreparedItem | RawEvent:
        """Prepare what was found; an event of this project's own is left to the event loop, which can stop reading one."""
        if isinstance(found, RawEvent | PreparedError | DefectiveItem):
            return found
        return prepare(self._runtime.settings, found, self._asked.told)

    def break_off(self, refused: ProblemError) -> bytes:
        """Return the end of the answer after `run` was cancelled: a line that says that what is not answered was not decided."""
        return b"" if self._complete else _problem_line(refused)

    async def ready(self) -> None:
        """Wait until the first answers should leave. Raises Refused where there are none."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HOLD_S
        while not self.outbox.closed and not (self.outbox.waiting and loop.time() > end):
            await self.outbox.news(1.0)
        if self.refusal is not None:
            raise self.refusal

    async def _answer(self, items: list[PreparedItem | RawEvent]) -> bytes:
        """Return the lines for some items, in their order."""
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
        answers = await (self._try_out(documents, first) if self._asked.dry_run else self._keep(documents, first))
        lines, defects = await self._in_thread(write_lines, ready, answers, self.tally)
        for defect in defects:
            self._runtime.defects.report("import", defect.facts)
        return lines

    async def _read(self, raw: RawEvent) -> PreparedItem:
        """Read an event of this project's own, elsewhere where that takes long."""
        told, settings = self._asked.told, self._runtime.settings
        if len(raw.document) <= LOOP_BYTES:
            await asyncio.sleep(0)
            with suppress(TimeLimitExceeded):
                return self._runtime.intake.limit.call(prepare, settings, raw, told)
        try:
            return await self._runtime.workers.run(prepare, raw, told)
        except ProblemError as refused:
            return UnreadableRecord(raw.place, refused.problem.detail, InputFormat.EVENT)

    async def _try_out(self, documents: list[EventDocument], place: int) -> list[bytes | Problem]:
        return [await self._tried(document, place + index) for index, document in enumerate(documents)]

    async def _tried(self, document: EventDocument, place: int) -> bytes | Problem:
        await asyncio.sleep(0)
        try:
            return await self._runtime.intake.decide_dry_run(document, place, patient=True, turn=self._turn)
        except ProblemError as refused:
            return with_retry_hint(refused.problem)
        except StoreError as error:
            return with_retry_hint(store_failed(error))

    async def _keep(self, documents: list[EventDocument], place: int) -> list[bytes | Problem]:
        if not documents:
            return []
        outcomes = await self._runtime.intake.admit(documents, place, turn=self._turn)
        return [await self._kept(outcome, place + index) for index, outcome in enumerate(outcomes)]

    @asynccontextmanager
    async def _turn(self, items: Sequence[BatchItem]) -> AsyncIterator[None]:
        """Wait for this import's turn to decide, and for room to write."""
        async with self._work.deciding(len(items)):
            if not self._asked.dry_run:
                await self._runtime.writer.room(len(items), sum(map(growth, items)), share=QUEUE_SHARE)
            yield

    async def _kept(self, outcome: Outcome, place: int) -> bytes | Problem:
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
        return [error.document(self._name(index)) for index, error in enumerate(errors, first)]

    def _name(self, index: int) -> bytes | None:
        """What tells a repeat of the error at a position."""
        return None if self._asked.name is None else hashlib.sha256(self._asked.name + b"import" + index.to_bytes(8)).digest()


def _problem_line(refused: ProblemError) -> bytes:
    return b'{"problem":' + problem_json(refused.problem) + b"}\n"


class _Slices:
    """What is found in a body, some at a time. Read in threads, one after the other."""

    def __init__(
        self, found: Iterator[Found | PreparedItem], prepare: Callable[[Found | PreparedItem], PreparedItem | RawEvent], at_work: Semaphore
    ) -> None:
        """`at_work` is held by a thread while it reads."""
        self._found = found
        self._prepare = prepare
        self._at_work = at_work
        self._end: Exception | None = None

    def next(self) -> list[PreparedItem | RawEvent]:
        """Return the next things; none at the end. Raises Refused, ClientDisconnect, CancelledError behind what was found before."""
        if self._end is not None:
            raise self._end
        some: list[PreparedItem | RawEvent] = []
        try:
            with self._at_work:
                some.extend(map(self._prepare, islice(self._found, SLICE)))
        except (ProblemError, ClientDisconnect, CancelledError) as error:
            if not some:
                raise
            self._end = error
        except Exception as error:
            some.append(defective_item(error, Position(), "unknown"))
        return some


class ImportResponse(Response):
    """Reads the request's body and sends the answers, both as they come."""

    def __init__(self, work: ImportRun, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="application/x-ndjson")
        self._work = work
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body_ended, begun = asyncio.Event(), False

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        running = asyncio.create_task(self._work.run(until_ended(self._body, body_ended)))
        try:
            with WhileConnected(receive, body_ended):
                await self._work.ready()
                headers = [(name, told) for name, told in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                begun = True
                await self._work.outbox.drain(send_piece)
                await running
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not begun or not shutdown_of(scope).breaks_off():
                raise
            await cancel(running)
            await self._work.outbox.drain(send_piece)
            await send({"type": "http.response.body", "body": self._work.break_off(ProblemError(stopping()))})
        finally:
            self._work.outbox.discard()
            await cancel(running)
