"""Record of each request: log line, id, metrics (ASGI middleware)."""

from __future__ import annotations

import logging
import re
from functools import partial
from time import perf_counter
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from ras_triage.service.api.problems import MEDIA_TYPE, internal, problem_json
from ras_triage.service.telemetry import logs, trace_context, tracing
from ras_triage.service.telemetry.metrics import Metrics

CLIENT_DISCONNECTED: Final = 499
"""Status in log and metrics of a request whose client disconnected before the response was complete (as in nginx)."""

_RATE_LIMITED: Final = (408, 429, 431, 503)
"""Status codes of requests whose log lines are rate limited: overload would fill the log."""

_VALID_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_ACCESS = logging.getLogger("ras_triage.access")


class AccessLogMiddleware:
    """Outermost ASGI middleware but for the security headers."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        self.metrics.in_progress += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.disconnected = True
        except Exception as error:
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            await exchange.fail()
        finally:
            self.metrics.in_progress -= 1
            exchange.record(self.metrics)


class _Exchange:
    """Measurements of one request and its response."""

    __slots__ = (
        "_receive",
        "_request_id",
        "_scope",
        "_send",
        "_started",
        "complete",
        "disconnected",
        "log_fields",
        "received",
        "sent",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started = perf_counter()
        self._scope, self._receive, self._send = scope, receive, send
        self.status = 0
        self.received = 0
        self.sent = 0
        self.complete = False
        self.disconnected = False
        self._request_id, trace_id = _identify(scope)
        self.log_fields = logs.begin(request_id=self._request_id.decode())
        if trace_id is not None:
            self.log_fields["trace_id"] = trace_id

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        elif not self.complete:
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._request_id)]
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def fail(self) -> None:
        """Respond with an internal error, unless the response has started: then it just ends."""
        if self.status:
            return
        problem = internal()
        self.log_fields["problem"] = problem.type
        body = problem_json(problem)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def record(self, metrics: Metrics) -> None:
        """Record the request in metrics and log."""
        duration = perf_counter() - self._started
        method = self._scope["method"]
        route = getattr(self._scope.get("route"), "path_format", "other")
        status = CLIENT_DISCONNECTED if self.disconnected else self.status if self.complete else 500
        metrics.count_request(method, route, status, duration, self.received, self.sent)
        problem = self.log_fields.get("problem")
        if problem is not None:
            metrics.count_problem(str(problem))
        client = self._scope.get("client")
        write = partial(logs.log_limited, kind=f"request: {problem}") if status in _RATE_LIMITED else logs.log
        write(
            logging.WARNING if status >= 500 else logging.INFO,
            "request",
            logger=_ACCESS,
            method=method,
            route=route,
            status=status,
            duration_ms=round(duration * 1000, 3),
            bytes_in=self.received,
            bytes_out=self.sent,
            client=client[0] if client else None,
        )


def _identify(scope: Scope) -> tuple[bytes, str | None]:
    """Return the request id, that of the client if it is valid, and the trace id."""
    request_id: bytes | None = None
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _VALID_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    context = trace_context.read(parents, states) if parents else None
    trace_context.CURRENT.set(context)
    trace_id = tracing.trace_id() or (context.trace_id if context else None)
    return request_id or str(uuid7()).encode(), trace_id
