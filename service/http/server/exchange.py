"""A request and its response on a connection (ASGI)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Final, Protocol

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ras_triage.service.api.problems import MEDIA_TYPE, internal, problem_json
from ras_triage.service.http.server.request_head import RequestHead

_HEAD: Final = re.compile(rb"HTTP/1\.1 [\x20-\x7e]++\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+\r\n")

_WITHOUT_BODY: Final = (204, 304)
"""Status codes of responses without a body (RFC 9110 6.4.1)."""


class ResponseTransport(Protocol):
    """The connection as a response uses it."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def is_closing(self) -> bool:
        """Return whether nothing more is sent."""

    def close(self) -> None:
        """Close the connection once everything is sent."""


class Exchange:
    """One request and its response.

    A head with `Content-Length` is sent together with the first part of the body: a write takes as long as what precedes it here.
    """

    __slots__ = (
        "_expects_continue",
        "_flow",
        "_has_news",
        "_head",
        "_is_chunked",
        "_logger",
        "_news",
        "_on_complete",
        "_pieces",
        "_transport",
        "_unsent",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "scope",
        "unread",
    )

    def __init__(
        self, scope: Scope, head: RequestHead, transport: ResponseTransport, flow: FlowControl, logger: logging.Logger,
        on_complete: Callable[[], None],
    ) -> None:  # fmt: skip
        """`on_complete` is called after the response."""
        self.scope = scope
        self._transport = transport
        self._flow = flow
        self._logger = logger
        self._on_complete: Callable[[], None] | None = on_complete
        self._expects_continue = head.expects_continue
        self.keep_alive = head.keep_alive
        self.disconnected = False
        self.response_started = self.response_complete = False
        self._pieces: list[bytes] = []
        """What has arrived of the body, and the application has not read."""
        self.unread = 0
        """Bytes of it."""
        self.more_body = True
        self._has_news = False
        """Whether there is something that the application has not received: a part or the end of the body, or of the request."""
        self._news: asyncio.Event | None = None
        """Set on news; None: nobody waits."""
        self._head: list[bytes] | None = None
        """Head of the response that waits for its body."""
        self._is_chunked = False
        self._unsent = 0
        """Bytes that the response lacks, of its `Content-Length`."""

    # For the connection.

    def add_body(self, data: bytes, *, more: bool) -> None:
        """Add a part of the request's body."""
        if data:
            self._pieces.append(data)
            self.unread += len(data)
        self.more_body = more
        if data or not more:
            self._wake()

    def disconnect(self) -> None:
        """Note that the client is gone."""
        self.disconnected = True
        self._wake()

    def _wake(self) -> None:
        self._has_news = True
        if self._news is not None:
            self._news.set()

    async def run(self, app: ASGIApp) -> None:
        """Call the application, and respond if it does not."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            self._logger.error("Exception in ASGI application\n", exc_info=error)
            await self._fail()
        else:
            if not self.response_complete and not self.disconnected:
                self._logger.error("ASGI callable returned without completing response.")
                await self._fail()
        finally:
            self._on_complete = None

    async def _fail(self) -> None:
        """Respond with an error, or end the response that has started."""
        if self.response_started:
            self._transport.write(b"".join(self._head or ()))
            self._transport.close()
            return
        problem = internal()
        body = problem_json(problem)
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    # For the application.

    async def receive(self) -> Message:
        """Return the next part of the body, or `http.disconnect` after the request."""
        if self._expects_continue and not self._transport.is_closing():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._expects_continue = False
        if not self.disconnected and not self.response_complete:
            self._flow.resume_reading()
            if not self._has_news:
                await self._wait_for_news()
            self._has_news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._pieces, self.unread = b"".join(self._pieces), [], 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def _wait_for_news(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        await self._news.wait()

    async def send(self, message: Message) -> None:
        """Send a part of the response. Raises RuntimeError for one that does not fit what was sent before."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if not self.response_started and kind == "http.response.start":
            self._start(message)
        elif self.response_started and not self.response_complete and kind == "http.response.body":
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected ASGI message `{kind}`")

    def _start(self, message: Message) -> None:
        self.response_started = True
        self._expects_continue = False
        length: int | None = None
        closes = False
        lines = [STATUS_LINE[message["status"]][:-2]]
        for name, value in message.get("headers", ()):
            if name == b"content-length":
                length = int(value)
            elif name == b"connection":
                closes = closes or b"close" in value.lower()
            lines.append(b"%b: %b" % (name, value))
        if closes:
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        has_body = self.scope["method"] != "HEAD" and message["status"] not in _WITHOUT_BODY
        self._is_chunked = has_body and length is None
        self._unsent = length or 0 if has_body else 0
        if self._is_chunked:
            lines.append(b"transfer-encoding: chunked")
        head = b"\r\n".join((*lines, b"", b""))
        if _HEAD.fullmatch(head) is None or head.count(b"\n") != len(lines) + 1:
            raise RuntimeError("invalid header of a response")
        if self._is_chunked:
            self._transport.write(head)
        else:
            self._head = [head]

    def _send_body(self, body: bytes, *, more: bool) -> None:
        pieces, self._head = self._head or [], None
        if self._is_chunked:
            if body:
                pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                pieces.append(b"0\r\n\r\n")
        elif self.scope["method"] != "HEAD":
            pieces.append(body)
            self._unsent -= len(body)
        if self._unsent < 0:
            raise RuntimeError("response content longer than its `Content-Length`")
        self._transport.write(b"".join(pieces))
        if more:
            return
        if self._unsent:
            raise RuntimeError("response content shorter than its `Content-Length`")
        self.response_complete = True
        self._wake()
        if not self.keep_alive:
            self._transport.close()
        if self._on_complete is not None:
            self._on_complete()
