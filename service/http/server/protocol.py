"""HTTP/1.1 protocol of uvicorn with strict heads, deadlines and problem+json."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

from uuid_utils import uuid7
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ras_triage.service.api.problems import MEDIA_TYPE, Problem, problem_json, request_timeout
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.middleware.security_headers import security_headers
from ras_triage.service.http.server.connections import CloseReason, Connection
from ras_triage.service.http.server.exchange import Exchange
from ras_triage.service.http.server.request_head import RequestHead
from ras_triage.service.http.server.request_reader import MalformedRequest, RequestReader
from ras_triage.service.telemetry import logs

LINGER_S: Final = 5.0
"""Seconds for which the rest of a body is discarded after the response, so that the client can read that."""

LINGER_BYTES: Final = 8 << 20
LINGER_HEAD_BYTES: Final = 1 << 20
"""Bytes that are discarded at most: of a body, and of the input after a malformed head."""

TLS_CLOSE_S: Final = 1.0
"""Seconds that a stopping service waits for the close_notify of an idle TLS connection."""

STREAM_SEND_BYTES: Final = 64 << 10
"""Send buffer of the socket of a stream. Linux doubles it; without a limit it grows to 4 MiB per client that does not read."""

_SERVER_LOG: Final = logging.getLogger(logs.CONNECTIONS)


class _Transport(asyncio.Transport):
    """A transport with a lingering close.

    A socket that is closed with unread data resets the connection, and the client may lose the response (RFC 9112 9.6).
    """

    def __init__(self, transport: asyncio.Transport, begin_linger: Callable[[], bool]) -> None:
        super().__init__()
        self._transport = transport
        self._begin_linger: Callable[[], bool] | None = begin_linger
        self.lingering = False
        self.write = transport.write  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]
        self.set_write_buffer_limits = transport.set_write_buffer_limits  # type: ignore[method-assign]

    def is_closing(self) -> bool:
        return self.lingering or self._transport.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self.lingering = self._begin_linger is not None and self._begin_linger() and self._transport.can_write_eof()
        if self.lingering:
            self._transport.resume_reading()
            self._transport.write_eof()
        else:
            self._transport.close()

    def unsent(self) -> int:
        """Return the bytes in the write buffer; 0 for a closed TLS transport, which does not know."""
        with suppress(AttributeError):
            return self._transport.get_write_buffer_size()
        return 0

    def forget(self) -> None:
        """Break the reference cycle."""
        self._begin_linger = None


class HttpProtocol(HttpToolsProtocol):
    """Protocol of one connection, which requests have as `connection` in their state.

    Requests that the client sends before it has the response to the last one wait.
    """

    transport: _Transport
    exchange: Exchange | None = None
    """The latest request."""

    def __init__(self, connection: Connection, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        self._connection = connection
        self._settings = settings
        self._reader = RequestReader(settings.max_header_bytes)
        self.app_state = {**self.app_state, "connection": self}
        self.logger = _SERVER_LOG
        self._since = self._received_at = self.loop.time()
        """When the wait for a head, or the head itself, began; when the last bytes were received."""
        self._head_begun = self._refused = False
        self._paused_at: float | None = None
        """Since when the client has not read."""
        self._closing_until: float | None = None
        self._dropped = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.client = self.client or (self._connection.host, 0)  # a Unix domain socket has no address of the peer
        self.transport = _Transport(transport, self._may_linger)
        self._connection.protocol = self

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.ended()
        if self.exchange is not None and not self.exchange.response_complete:
            self.exchange.disconnect()
        super().connection_lost(exc)
        self.app_state = {}  # both lines break reference cycles
        self.transport.forget()

    def data_received(self, data: bytes) -> None:
        if self.transport.lingering:
            self._dropped += len(data)
            if self._dropped > (LINGER_HEAD_BYTES if self._refused else LINGER_BYTES):
                self._end("body_unread")
            return
        self._received_at = self.loop.time()
        if not self._head_begun and not self._is_draining():
            self._head_begun, self._since = True, self._received_at
        self._reader.receive(data)
        self._read_requests()

    def _read_requests(self) -> None:
        """Read as far as the input goes, or to the end of the request in progress."""
        try:
            while not self._refused:
                if self._reader.in_body:
                    self._read_body()
                if self._reader.in_body:
                    return
                if self._is_busy():
                    if self._reader.has_input:
                        self.flow.pause_reading()
                    return
                head = self._reader.read_head()
                if head is None:
                    return
                self._start_request(head)
        except MalformedRequest as error:
            self._connection.count("malformed")
            self._refuse(error.problem)

    def _is_busy(self) -> bool:
        """Return whether a request is in progress."""
        return self.exchange is not None and not self.exchange.response_complete

    def _start_request(self, head: RequestHead) -> None:
        path, _, query = head.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": head.version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": head.method,
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": head.headers,
            "state": self.app_state.copy(),
        }
        self.exchange = Exchange(scope, head, self.transport, self.flow, self.logger, self.on_response_complete)
        self._connection.request_started()
        task = self.loop.create_task(self.exchange.run(self.app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        self._read_body()

    def _read_body(self) -> None:
        """Pass on what has arrived of the body; after the response it is discarded."""
        data, exchange = self._reader.read_body(), self.exchange
        if exchange is None or exchange.response_complete:
            return
        exchange.add_body(data, more=self._reader.in_body)
        if exchange.unread > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    def _is_draining(self) -> bool:
        """Return whether the rest of a body is being discarded."""
        return self.exchange is not None and self.exchange.response_complete and self._lacks_body()

    def _lacks_body(self) -> bool:
        return self._reader.in_body and not self._refused

    def _may_linger(self) -> bool:
        """Return whether all responses are complete and the client may still be sending."""
        answered = self.exchange is None or self.exchange.response_complete
        return answered and (self._refused or self._lacks_body())

    def on_response_complete(self) -> None:
        self._connection.request_ended()
        self._head_begun, self._since = False, self.loop.time()
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._read_requests()

    def pause_writing(self) -> None:
        self._paused_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._paused_at = None
        super().resume_writing()

    def shutdown(self) -> None:
        if self.exchange is None or self.exchange.response_complete:
            self.transport.close()
        else:
            self.exchange.keep_alive = False
        if self.transport.is_closing() and not self.transport.unsent():
            self.loop.call_later(TLS_CLOSE_S, self.transport.abort)

    # Deadlines.

    def check(self, now: float) -> None:
        """End the connection if the client did not send a head, read its response, or stop sending in time."""
        if self.transport.lingering and not self.transport.unsent():
            if now - self._since > LINGER_S:
                self._end("body_unread")
        elif self.transport.is_closing():
            self._check_closing(now)
        elif self.exchange is not None and not self.exchange.response_complete:
            since = self.unread_since()
            if since is not None and now - since > self._settings.answer_timeout_s:
                self._end("answer_timeout")
        elif self._is_draining():
            if now - self._since > LINGER_S:
                self._end("body_unread")
        elif now - self._since > self._waiting_s():
            self._end_waiting()

    def stalled_since(self) -> float | None:
        """Return since when the client has neither sent its body nor read its response; None if it has."""
        if self.exchange is None or self.exchange.response_complete:
            return None
        if self._paused_at is not None:
            return self.unread_since()
        waits = self.exchange.more_body and not self.exchange.unread
        return self._received_at if waits else None

    @property
    def has_whole_body(self) -> bool:
        """Whether the body of the request in progress is complete."""
        return self.exchange is not None and not self.exchange.more_body

    def unread_since(self) -> float | None:
        """Return since when the client has neither read nor sent: many clients send everything before they read."""
        return None if self._paused_at is None else max(self._paused_at, self._received_at)

    def _check_closing(self, now: float) -> None:
        """End a closing connection whose client does not read the rest of the response."""
        if self._closing_until is None:
            self._closing_until = now + self._settings.answer_timeout_s + self.transport.unsent() / self._settings.min_body_rate
        elif now > self._closing_until:
            self._end("answer_timeout")

    def _waiting_s(self) -> float:
        """Return the timeout of the next head in seconds."""
        between_requests = self.exchange is not None and not self._head_begun
        return self._settings.keep_alive_s if between_requests else self._settings.head_timeout_s

    def _end_waiting(self) -> None:
        if not self._head_begun:
            self._end("idle")
            return
        self._connection.count("head_timeout")
        self._refuse(request_timeout(f"request head not complete within {self._settings.head_timeout_s:g} s"))

    def _end(self, reason: CloseReason) -> None:
        self._connection.report(reason)
        self.abort()

    def shrink_send_buffers(self) -> None:
        """Limit the write buffer of the transport and the send buffer of the socket."""
        self.transport.set_write_buffer_limits(high=0)
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):  # the client may have disconnected
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, STREAM_SEND_BYTES)

    def abort(self) -> None:
        """Close the connection at once; unsent data is lost."""
        self.transport.abort()

    # Malformed requests.

    def _refuse(self, problem: Problem) -> None:
        """Refuse a malformed request and close the connection, because the start of the next request is unknown."""
        if self.exchange is None or self.exchange.response_complete or not self.exchange.response_started:
            self._send_problem(problem)
        self._refused, self._since = True, self.loop.time()
        if self.exchange is not None and not self.exchange.response_complete:
            self.exchange.disconnect()
        self.transport.close()

    def _send_problem(self, problem: Problem) -> None:
        request_id = str(uuid7())
        client = self.client[0] if self.client else None
        kind = "malformed request"
        logs.log_limited(logging.WARNING, kind, kind=kind, request_id=request_id, problem=problem.type, client=client)
        self._connection.count_problem(problem.type)
        body = problem_json(problem)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            *security_headers({"path": "", "scheme": self.scheme or "http"}),
        ]
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[problem.status], *lines, b"\r\n", body]))
