"""A batch as a response that leaves while its request still comes in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.batch.answering import Batch, Form
from service.disconnects import WhileConnected, until_ended


class BatchResponse(Response):
    """Reads the request's body and sends the results, both as they come.

    The status is that of all results where they were complete when the first of them left, else of those that were there by then.
    """

    def __init__(self, batch: Batch, form: Form, body: AsyncIterator[bytes]) -> None:
        super().__init__(media_type=form.media_type)
        self._batch = batch
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - what an ASGI application takes
        batch, body_ended = self._batch, asyncio.Event()
        work = asyncio.create_task(batch.run(until_ended(self._body, body_ended)))
        try:
            with WhileConnected(receive, body_ended):
                await batch.ready()
                headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
                await send({"type": "http.response.start", "status": batch.tally.status, "headers": headers})
                while piece := await batch.outbox.take():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await work
            await send({"type": "http.response.body", "body": b""})
        finally:
            batch.outbox.discard()
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work
