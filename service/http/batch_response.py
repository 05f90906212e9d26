"""A batch as a response that leaves while its request still comes in."""

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
    """Reads the request's body and sends the results, both as they come.

    The status is that of all results where they were complete when the first of them left, else of those that were there by then.
    """

    def __init__(self, batch: BatchRun, form: BatchFormat, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type=form.media_type)
        self._batch = batch
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        batch, body_ended, begun = self._batch, asyncio.Event(), False

        async def send_piece(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        work = asyncio.create_task(batch.run(until_ended(self._body, body_ended)))
        try:
            with WhileConnected(receive, body_ended):
                await batch.ready()
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": batch.tally.status, "headers": headers})
                begun = True
                await batch.outbox.drain(send_piece)
                await work
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not begun or not shutdown_of(scope).breaks_off():
                raise
            await cancel(work)
            await batch.outbox.drain(send_piece)
            await send({"type": "http.response.body", "body": batch.break_off(ProblemError(stopping()))})
        finally:
            batch.outbox.discard()
            await cancel(work)
