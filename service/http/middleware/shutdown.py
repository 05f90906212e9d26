"""Answers to requests that a shutdown refuses or breaks off (ASGI middleware)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ras_triage.service.api.problems import MEDIA_TYPE, problem_json, stopping
from ras_triage.service.telemetry import logs

RETRY_S: Final = 5
"""Seconds after which a service that was restarted should answer again."""

_PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""Answered to the end: a service that stops is alive."""


@dataclass(slots=True)
class Shutdown:
    """How far the shutdown of a service has come."""

    begun: bool = False
    """New requests are refused, and those under way may finish."""
    over: bool = False
    """The time to finish is over: what is left is broken off."""

    def breaks_off(self) -> bool:
        """Return whether the current task was cancelled by the shutdown, and have it go on to say so."""
        task = asyncio.current_task()
        if not self.over or task is None:
            return False
        task.uncancel()
        return True


def shutdown_of(scope: Scope) -> Shutdown:
    """Return the shutdown of the application that answers a request."""
    found: Shutdown = scope["app"].state.shutdown
    return found


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class ShutdownMiddleware:
    """Refuses requests that come during a shutdown, and answers those that it breaks off before their answer began."""

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
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if self._shutdown.begun:
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except asyncio.CancelledError:
            if begun or not self._shutdown.breaks_off():
                raise
            await _refuse(send)  # the connection stays open for now: closing it while more is sent would take the answer away


async def _refuse(send: Send, *headers: tuple[bytes, bytes]) -> None:
    problem = stopping()
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    given = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_S).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": problem.status, "headers": given})
    await send({"type": "http.response.body", "body": body})
