"""Responses to requests during shutdown (ASGI middleware)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ras_triage.service.api.problems import MEDIA_TYPE, problem_json, stopping
from ras_triage.service.telemetry import logs

RETRY_S: Final = 5
"""`Retry-After` in seconds: the service should be back by then."""

_PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""Paths that are available until the end: a stopping service is alive."""


@dataclass(slots=True)
class Shutdown:
    """Progress of the shutdown of a service."""

    begun: bool = False
    """Whether new requests are refused; those in progress may finish."""
    over: bool = False
    """Whether the time to finish is over; the rest is interrupted."""

    def interrupts(self) -> bool:
        """Return whether the shutdown cancelled the current task, and undo that, so that it can end its response."""
        task = asyncio.current_task()
        if not self.over or task is None:
            return False
        task.uncancel()
        return True


def shutdown_of(scope: Scope) -> Shutdown:
    """Return the shutdown state of the application of a request."""
    found: Shutdown = scope["app"].state.shutdown
    return found


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class ShutdownMiddleware:
    """ASGI middleware that refuses new requests during shutdown, and responds to interrupted ones."""

    def __init__(self, app: ASGIApp, shutdown: Shutdown) -> None:
        self.app = app
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._shutdown.begun and not scope["path"].startswith(_PROBES):
            await _refuse(send, (b"connection", b"close"))
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if self._shutdown.begun:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            if started or not self._shutdown.interrupts():
                raise
            await _refuse(send)  # not closed yet: closing while the client still sends would lose the response


async def _refuse(send: Send, *headers: tuple[bytes, bytes]) -> None:
    problem = stopping()
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    start_headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_S).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": start_headers})
    await send({"type": "http.response.body", "body": body})
