"""What is seen of every request: its id, its trace, a line in the log, a count. Bodies stream through, both ways."""

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

CLIENT_GONE: Final = 499
"""The status in log and metrics of a request whose client went away before the answer was complete (nginx's number; nobody receives it)."""

_CAUSED_BY_LOAD: Final = (408, 429, 431, 503)
"""Status codes of requests whose lines would fill the log: those beyond a few each second are counted and suppressed."""

_SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_ACCESS = logging.getLogger("ras_triage.access")


class AccessLogMiddleware:
    """ASGI middleware, the outermost: what is answered outside of it is not seen."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        self.metrics.under_way += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.gone = True
        except Exception as error:
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            await exchange.fail()
        finally:
            self.metrics.under_way -= 1
            exchange.account(self.metrics)


class _Exchange:
    """A request and its answer, as they pass by."""

    __slots__ = ("_receive", "_request_id", "_scope", "_send", "_started", "complete", "gone", "known", "received", "sent", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started = perf_counter()
        self._scope, self._receive, self._send = scope, receive, send
        self.status = 0
        self.received = 0
        self.sent = 0
        self.complete = False
        self.gone = False
        self._request_id, trace_id = _identify(scope)
        self.known = logs.begin(request_id=self._request_id.decode())
        if trace_id is not None:
            self.known["trace_id"] = trace_id

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        elif not self.complete:
            self.gone = True
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
        """Answer that the service failed, unless an answer has begun: then all that can be done is to break it off."""
        if self.status:
            return
        problem = internal()
        self.known["problem"] = problem.type
        body = problem_json(problem)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    def account(self, metrics: Metrics) -> None:
        """Count the request, and write its line."""
        duration = perf_counter() - self._started
        method = self._scope["method"]
        route = getattr(self._scope.get("route"), "path_format", "other")
        status = CLIENT_GONE if self.gone else self.status if self.complete else 500
        metrics.requested(method, route, status, duration, self.received, self.sent)
        problem = self.known.get("problem")
        if problem is not None:
            metrics.refused(str(problem))
        client = self._scope.get("client")
        write = partial(logs.log_limited, kind=f"request: {problem}") if status in _CAUSED_BY_LOAD else logs.log
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
    """The request's id, its own if it is sane, and its trace's."""
    request_id: bytes | None = None
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            request_id = value
        elif name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    context = trace_context.read(parents, states) if parents else None
    trace_context.CURRENT.set(context)
    trace_id = tracing.trace_id() or (context.trace_id if context else None)
    return request_id or str(uuid7()).encode(), trace_id
