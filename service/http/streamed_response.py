"""Response that is sent while its request is still read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ras_triage.service.api.problems import ProblemError, stopping
from ras_triage.service.engine.batch.spill_queue import SpillQueue
from ras_triage.service.http.disconnects import WhileConnected, until_ended
from ras_triage.service.http.middleware.shutdown import cancel, shutdown_of

UNBUFFERED: Final = {"x-accel-buffering": "no"}
"""Header of streams: nginx and its relatives pass them on at once."""


class StreamedRun(Protocol):
    """Processing of a request body with a streamed result: a batch or an import."""

    outbox: SpillQueue

    @property
    def status(self) -> int:
        """HTTP status code of the results that are known."""

    async def run(self, body: AsyncIterator[bytes]) -> None:
        """Process the body and put the results into the outbox."""

    async def ready(self) -> None:
        """Wait until the first results should be sent. Raises ProblemError if the request as a whole was refused."""

    def interrupted_end(self, refused: ProblemError) -> bytes:
        """Return the end of the response after `run` was cancelled."""


class StreamedResponse(Response):
    """Response with the results of a run. Its status is that of the results that are known when the first of them is sent."""

    def __init__(self, run: StreamedRun, media_type: str, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type=media_type, headers=UNBUFFERED)
        self._run = run
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run, body_ended, started = self._run, asyncio.Event(), False

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        task = asyncio.create_task(run.run(until_ended(self._body, body_ended)))
        try:
            with WhileConnected(receive, body_ended):
                await run.ready()
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": run.status, "headers": headers})
                started = True
                await run.outbox.drain(send_piece)
                await task
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not started or not shutdown_of(scope).interrupts():
                raise
            await cancel(task)
            await run.outbox.drain(send_piece)
            await send({"type": "http.response.body", "body": run.interrupted_end(ProblemError(stopping()))})
        finally:
            run.outbox.discard()
            await cancel(task)
