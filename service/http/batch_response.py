"""Streaming response of a batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ras_triage.service.api.problems import ProblemError, stopping
from ras_triage.service.http.batch_run import BatchFormat, BatchRun
from ras_triage.service.http.disconnects import WhileConnected, until_ended
from ras_triage.service.http.middleware.shutdown import cancel, shutdown_of


class BatchResponse(Response):
    """Response that sends results while the request body is still read.

    The status is that of the results that are known when the first of them is sent: of all if the batch was complete by then.
    """

    def __init__(self, batch: BatchRun, batch_format: BatchFormat, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type=batch_format.media_type)
        self._batch = batch
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        batch, body_ended, started = self._batch, asyncio.Event(), False

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        task = asyncio.create_task(batch.run(until_ended(self._body, body_ended)))
        try:
            with WhileConnected(receive, body_ended):
                await batch.ready()
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": batch.tally.status, "headers": headers})
                started = True
                await batch.outbox.drain(send_piece)
                await task
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not started or not shutdown_of(scope).interrupts():
                raise
            await cancel(task)
            await batch.outbox.drain(send_piece)
            await send({"type": "http.response.body", "body": batch.interrupted_end(ProblemError(stopping()))})
        finally:
            batch.outbox.discard()
            await cancel(task)
