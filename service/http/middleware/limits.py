"""Limits for requests: headers, memory, concurrency (ASGI middleware)."""

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
"""Paths without limits: a busy service is alive."""

_QUEUED: Final = frozenset({"/v1/decisions/batch", "/v1/import"})
"""Paths that are refused at once if their events would wait too long."""

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


class BodyBudget:
    """Bytes of a request body in memory, counted for the limit of all requests."""

    __slots__ = ("_all", "bytes")

    def __init__(self, limits: LimitsMiddleware) -> None:
        self._all = limits
        self.bytes = 0

    def add(self, count: int) -> None:
        """Reserve more bytes until the end of the request. Raises ProblemError."""
        if self._all.bytes + count > self._all.max_bytes:
            raise ProblemError(busy("request memory limit reached; retry later"), _RETRY)
        self._all.bytes += count
        self.bytes += count

    def reserve(self, count: int) -> None:
        """Replace the reservation. Raises ProblemError."""
        self.add(count - self.bytes)


class LimitsMiddleware:
    """ASGI middleware that refuses requests beyond the limits.

    The scope of a request has its `BodyBudget` as `body_budget` and its `ActiveRequest` as `active_request`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, limits: ConcurrencyLimits | None = None) -> None:
        self.app = app
        self.bytes = 0
        self.max_bytes = settings.max_in_flight_bytes
        self._settings = settings
        self._limits = limits or ConcurrencyLimits(settings)
        self._starts = StartLimiter()
        self._long_running: Final[dict[str, tuple[ConcurrencyLimit, ...]]] = {
            "/v1/decisions/batch": (self._limits.long_running, self._limits.requests),
            "/v1/decisions/stream": (self._limits.long_running, self._limits.requests),
            "/v1/import": (self._limits.imports, self._limits.long_running, self._limits.requests),
        }

    @property
    def requests(self) -> int:
        """Number of requests in progress."""
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
        budget = scope["body_budget"] = BodyBudget(self)
        try:
            if scope["path"] in _PROBES or await self._admit(scope, send, request):
                await self.app(scope, clock.receive, send)
        finally:
            request.release()
            self.bytes -= budget.bytes
            del scope["active_request"]  # breaks the reference cycle with the scope

    async def _admit(self, scope: Scope, send: Send, request: ActiveRequest) -> bool:
        """Count a request for its limits and wait for its turn. Return false after refusing it."""
        client = scope.get("client")
        peer = peer_of(client[0]) if client else UNKNOWN
        path = scope["path"]
        try:
            if path in _QUEUED:
                self._limits.admission.require(peer)  # checked again for the key after authentication
            for limit in self._long_running.get(path, (self._limits.requests,)):
                request.enter(limit, peer)
        except ProblemError as refused:
            await _refuse(send, refused)
            return False
        await self._starts.turn(long_running=path in self._long_running)
        return True


def _header_bytes(scope: Scope) -> int:
    line = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return line + sum(len(name) + len(value) + _LINE_BYTES for name, value in scope["headers"])


async def _refuse(send: Send, refused: ProblemError) -> None:
    problem = refused.problem
    logs.bind(problem=problem.type)
    body = problem_json(problem)
    extra = [(name.lower().encode(), value.encode()) for name, value in refused.headers.items()]
    start = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode()), *extra]
    await send({"type": "http.response.start", "status": problem.status, "headers": start})
    await send({"type": "http.response.body", "body": body})
