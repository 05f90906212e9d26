"""Limits for requests: headers, bodies in memory, requests under way (ASGI middleware)."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ras_triage.service.api.problems import MEDIA_TYPE, RETRY_S, ProblemError, busy, headers_too_large, problem_json
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.body_deadlines import BodyClock
from ras_triage.service.http.limits.concurrency import UNKNOWN, ActiveRequest, ConcurrencyLimit, ConcurrencyLimits
from ras_triage.service.http.limits.scheduling import StartLimiter
from ras_triage.service.http.server.peers import peer_of
from ras_triage.service.telemetry import logs

_LINE_BYTES: Final = 4
"""`: ` and the end of a line."""

_RETRY: Final = {"Retry-After": str(RETRY_S)}

_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered all the same: a service that is busy is alive."""

_QUEUED: Final = frozenset({"/v1/decisions/batch", "/v1/import"})
"""Refused before anything is spent on them, where their events would wait too long."""

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class BodyBudget:
    """The bytes of a request's body that are in memory."""

    __slots__ = ("_all", "bytes")

    def __init__(self, limits: LimitsMiddleware) -> None:
        self._all = limits
        self.bytes = 0

    def add(self, count: int) -> None:
        """Hold so many more, until the request is answered. Raises Refused."""
        if self._all.bytes + count > self._all.max_bytes:
            raise ProblemError(busy("request memory limit reached; retry later"), _RETRY)
        self._all.bytes += count
        self.bytes += count

    def keep(self, count: int) -> None:
        """Hold so many, instead of those before. Raises Refused."""
        self.add(count - self.bytes)


class LimitsMiddleware:
    """Refuses headers that are too long, and requests beyond the limits.

    Leaves in the request's scope a `Held` as `held`, for whoever collects a body, and an `ActiveRequest` as `active_request`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, limits: ConcurrencyLimits | None = None) -> None:
        self.app = app
        self.bytes = 0
        self.max_bytes = settings.max_in_flight_bytes
        self._settings = settings
        self._limits = limits or ConcurrencyLimits(settings)
        self._starts = StartLimiter()
        self._lasting: Final[dict[str, tuple[ConcurrencyLimit, ...]]] = {
            "/v1/decisions/batch": (self._limits.requests, self._limits.lasting),
            "/v1/decisions/stream": (self._limits.requests, self._limits.lasting),
            "/v1/import": (self._limits.requests, self._limits.lasting, self._limits.imports),
        }

    @property
    def requests(self) -> int:
        """Requests under way."""
        return len(self._limits.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = scope.get("state", {}).pop("connection", None)
        if _header_bytes(scope) > self._settings.max_header_bytes:
            await _refuse(send, ProblemError(headers_too_large(self._settings.max_header_bytes)))
            return
        clock = BodyClock(receive, self._settings, connection, expected=scope["method"] in _WITH_BODY)
        request = scope["active_request"] = ActiveRequest(clock, connection)
        held = scope["held"] = BodyBudget(self)
        try:
            if scope["path"] in _PROBES or await self._may_begin(scope, send, request):
                await self.app(scope, clock.receive, send)
        finally:
            request.release()
            self.bytes -= held.bytes
            del scope["active_request"]  # it holds the scope: both would be left to the garbage collector

    async def _may_begin(self, scope: Scope, send: Send, request: ActiveRequest) -> bool:
        """Count a request for its limits and wait for its turn; where a limit is reached, refuse it."""
        client = scope.get("client")
        peer = peer_of(client[0]) if client else UNKNOWN
        path = scope["path"]
        try:
            if path in _QUEUED:
                self._limits.admission.require(peer)  # for a key again, when it is known
            for limit in self._lasting.get(path, (self._limits.requests,)):
                request.enter(limit, peer)
        except ProblemError as refused:
            await _refuse(send, refused)
            return False
        await self._starts.turn(lasting=path in self._lasting)
        return True


def _header_bytes(scope: Scope) -> int:
    line = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return line + sum(len(name) + len(value) + _LINE_BYTES for name, value in scope["headers"])


async def _refuse(send: Send, refused: ProblemError) -> None:
    problem = refused.problem
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    told = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    start = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), *told]
    await send({"type": "http.response.start", "status": problem.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
