"""What one request, and all of them together, may take: checked before anything reads a body."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service import logs
from service.problems import MEDIA_TYPE, Problem, Refused, busy, headers_too_large, problem_json
from service.settings import Settings

RETRY_S: Final = 1

_LINE_BYTES: Final = 4
"""`: ` and the end of a line."""

_RETRY: Final = {"Retry-After": str(RETRY_S)}


class Held:
    """The bytes of bodies that are in memory, of one request."""

    __slots__ = ("_all", "bytes")

    def __init__(self, limits: Limits) -> None:
        self._all = limits
        self.bytes = 0

    def add(self, count: int) -> None:
        """Hold so many more, until the request is answered. Raises Refused."""
        if self._all.bytes + count > self._all.max_bytes:
            raise Refused(busy("as many bytes of requests are held as may be"), _RETRY)
        self._all.bytes += count
        self.bytes += count


class Limits:
    """Refuses headers that are too long, and requests while too many are under way.

    Leaves a `Held` in the request's scope as `held`, for whoever collects a body.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.requests = 0
        self.bytes = 0
        self.max_bytes = settings.max_in_flight_bytes
        self._max_requests = settings.max_in_flight
        self._max_header_bytes = settings.max_header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _header_bytes(scope) > self._max_header_bytes:
            await _refuse(send, headers_too_large(self._max_header_bytes), {})
        elif self.requests >= self._max_requests and not scope["path"].startswith(_PROBES):
            await _refuse(send, busy(f"{self._max_requests} requests are under way"), _RETRY)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = scope["held"] = Held(self)
        self.requests += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.requests -= 1
            self.bytes -= held.bytes


_PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""Answered all the same: a service that is busy is alive."""


def _header_bytes(scope: Scope) -> int:
    line = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return line + sum(len(name) + len(value) + _LINE_BYTES for name, value in scope["headers"])


async def _refuse(send: Send, problem: Problem, headers: dict[str, str]) -> None:
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    told = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    start = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), *told]
    await send({"type": "http.response.start", "status": problem.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
