"""An import over HTTP: the body is read in a thread as it comes, errors are decided in the event loop, and answers leave in order."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from itertools import islice
from threading import Semaphore
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.event import event_json
from models.formats.reading import Reading
from models.value import value
from service.admission import ClientWork
from service.batch.answering import QUEUE_SHARE
from service.batch.outbox import Outbox
from service.deadlines import BodyClock
from service.deciding import Document
from service.importing.formats import Format
from service.importing.readers import Item, read_items
from service.importing.results import Tally, summary_line
from service.importing.run import Result, read_answer, result_line
from service.importing.source import Source
from service.importing.told import Told, apply
from service.intake import EXPECTED_GROWTH, Outcome, answer
from service.problems import Refused, problem_json, store_failed, with_retry_hint
from service.runtime import Runtime
from service.security.principal import Principal
from service.store.port import StoreError

SLICE: Final = 32
"""Items that are decided before the event loop turns to others."""

HOLD_S: Final = 5.0
"""How long the first answers are held back, in which a body that cannot be read at all still gets a status of its own."""


class Body(io.RawIOBase):
    """A request's body for a thread to read."""

    def __init__(self, pieces: AsyncIterator[bytes], clock: BodyClock, at_work: Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        """`at_work` is held by the thread that reads, and released while it waits for its client."""
        super().__init__()
        self._pieces = pieces
        self._clock = clock
        self._at_work = at_work
        self._loop = loop
        self._left = b""
        self._waiting: Future[bytes] | None = None

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

    def give_up(self) -> None:
        """Have a thread that waits for more wait no longer."""
        if self._waiting is not None:
            self._waiting.cancel()


@value
class Asked:
    """What an import is to be."""

    form: Format | None
    told: Told
    dry_run: bool
    name: bytes | None
    """Tells a repeat of the whole import, from its Idempotency-Key; None: it has none."""


class Import:
    """One import under way."""

    def __init__(self, asked: Asked, runtime: Runtime, principal: Principal, work: ClientWork, clock: BodyClock) -> None:
        self._asked = asked
        self._runtime = runtime
        self._principal = principal
        self._work = work
        self._clock = clock
        self._errors = 0
        self.outbox = Outbox(runtime.settings.spill_bytes)
        self.tally = Tally()
        self.refusal: Refused | None = None
        """Why nothing of it was answered."""

    async def run(self, pieces: AsyncIterator[bytes]) -> None:
        """Read, decide and answer, into the outbox."""
        loop = asyncio.get_running_loop()
        body = Body(pieces, self._clock, self._runtime.importing, loop)
        items = self._items(body)
        started = False
        try:
            while some := await loop.run_in_executor(self._runtime.importers, _some, items, self._runtime.importing):
                await self.outbox.put(b"".join([line + b"\n" for line in await self._answer(some)]))
                started = True
            await self.outbox.put(summary_line(self.tally) + b"\n")
        except Refused as refused:
            if started:
                await self.outbox.put(b'{"problem":' + problem_json(refused.problem) + b"}\n")
            else:
                self.refusal = refused
        except (ClientDisconnect, CancelledError):
            pass
        finally:
            body.give_up()
            self.outbox.close()

    def _items(self, body: Body) -> Iterator[Item]:
        source = Source(io.BufferedReader(body, 64 << 10), max_database_bytes=self._runtime.settings.spill_bytes)
        yield from read_items(source, self._asked.form, self._asked.told.notification)

    async def ready(self) -> None:
        """Wait until the first answers should leave. Raises Refused where there are none."""
        loop = asyncio.get_running_loop()
        end = loop.time() + HOLD_S
        while not self.outbox.closed and not (self.outbox.waiting and loop.time() > end):
            await self.outbox.news(1.0)
        if self.refusal is not None:
            raise self.refusal

    async def _answer(self, items: list[Item]) -> list[bytes]:
        """The lines for some items, in their order."""
        told = [self._told(item) if isinstance(item, Reading) else item for item in items]
        readings = [item for item in told if isinstance(item, Reading)]
        if readings:
            await self._principal.pace(len(readings))
        answers = iter(await self._try_out(readings) if self._asked.dry_run else await self._keep(readings))
        lines: list[bytes] = []
        for item in told:
            self.tally.add(item)
            lines.append(result_line(read_answer(item, next(answers), self.tally) if isinstance(item, Reading) else Result(item)))
        return lines

    def _told(self, reading: Reading) -> Reading:
        settings = self._runtime.settings
        return apply(self._asked.told, reading, settings.default_policy, settings.custom)

    async def _try_out(self, readings: list[Reading]) -> list[bytes]:
        async with self._work.deciding(len(readings)):
            return [self._tried(document) for document in self._documents(readings)]

    def _tried(self, document: Document) -> bytes:
        try:
            return self._runtime.intake.try_out(document)
        except Refused as refused:
            return problem_json(with_retry_hint(refused.problem))
        except StoreError as error:
            return problem_json(with_retry_hint(store_failed(error)))

    async def _keep(self, readings: list[Reading]) -> list[bytes]:
        documents = self._documents(readings)
        if not documents:
            return []
        size = EXPECTED_GROWTH * sum(len(document.data) for document in documents)
        async with self._work.deciding(len(documents)):
            await self._runtime.writer.room(len(documents), size, share=QUEUE_SHARE)
            outcomes = self._runtime.intake.admit(documents)
        return [await self._kept(outcome) for outcome in outcomes]

    async def _kept(self, outcome: Outcome) -> bytes:
        try:
            return problem_json(with_retry_hint(outcome.problem)) if isinstance(outcome, Refused) else (await answer(outcome)).body
        except StoreError as error:
            return problem_json(with_retry_hint(store_failed(error)))

    def _documents(self, readings: list[Reading]) -> list[Document]:
        first, self._errors = self._errors, self._errors + len(readings)
        return [
            Document(event_json(reading.event), self._place(index), frozenset(one.field for one in reading.assumed))
            for index, reading in enumerate(readings, first)
        ]

    def _place(self, index: int) -> bytes | None:
        """What tells a repeat of the error at a position."""
        return None if self._asked.name is None else hashlib.sha256(self._asked.name + b"import" + index.to_bytes(8)).digest()


def _some(items: Iterator[Item], at_work: Semaphore) -> list[Item]:
    with at_work:
        return list(islice(items, SLICE))


class ImportResponse(Response):
    """Reads the request's body and sends the answers, both as they come."""

    def __init__(self, work: Import, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type="application/x-ndjson")
        self._work = work
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - what an ASGI application takes
        running = asyncio.create_task(self._work.run(self._body))
        try:
            await self._work.ready()
            headers = [(name, told) for name, told in self.raw_headers if name != b"content-length"]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while piece := await self._work.outbox.take():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await running
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._work.outbox.discard()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
