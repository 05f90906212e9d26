"""Event stream response, cut off where its client does not read."""

from __future__ import annotations

import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service import logs
from service.following import Subscription

if TYPE_CHECKING:
    from asyncio import Transport

    from service.protocol import Protocol

_KERNEL_BYTES: Final = 64 << 10
"""Send buffer of a stream's socket. Linux doubles it; left to itself, it grows to 4 MiB for each client that does not read."""


class EventStream(StreamingResponse):
    """The events of one subscription."""

    def __init__(self, subscription: Subscription) -> None:
        super().__init__(subscription.events(), media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._subscription = subscription

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        subscription = self._subscription

        async def watched(message: Message) -> None:
            subscription.waiting_since = monotonic()
            await send(message)
            subscription.waiting_since = None

        connection: Protocol | None = scope.get("state", {}).get("connection")
        if connection is not None:
            _bound_buffers(connection.transport)
            subscription.cut = connection.transport.abort
        try:
            await super().__call__(scope, receive, watched)
        finally:
            subscription.close()
            if subscription.stalled:
                logs.bind(dropped="client does not read")


def _bound_buffers(transport: Transport) -> None:
    """Have writing wait as soon as the kernel takes no more, and the kernel take little."""
    transport.set_write_buffer_limits(high=0)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):  # the client may be gone
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
