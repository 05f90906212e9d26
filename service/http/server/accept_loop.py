"""Accept loop of the server."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final

from ras_triage.service.http.server.connections import Connection, Connections
from ras_triage.service.http.server.unix_socket import peer_user
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.metrics import Metrics

BURST: Final = 64
"""Connections that are accepted in one pass of the event loop."""

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
"""Seconds between two attempts after a failure."""

LOG_INTERVAL_S: Final = 60.0
"""Seconds between two log lines about failures."""

EVICTED: Final = 8
"""Idle connections that are closed when no file descriptor is left."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_DISCONNECTED: Final = (errno.ECONNABORTED, errno.EPROTO)
"""The client disconnected before it was accepted."""

MakeProtocol = Callable[[Connection], asyncio.Protocol]


async def open_listeners(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of a host. Raises OSError."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port, backlog=backlog, start_serving=False)
    try:
        return [listener.dup() for listener in server.sockets]
    finally:
        server.close()


class Acceptor:
    """Accept loop for listening sockets.

    That of asyncio writes a log line and sets a timer for each place in the backlog when file descriptors run out: 82,000 lines in half a
    minute. It also has no limit for connections.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        connections: Connections,
        make_protocol: MakeProtocol,
        metrics: Metrics,
        *,
        backlog: int,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        self._listeners = listeners
        self._connections = connections
        self._make_protocol = make_protocol
        self._metrics = metrics
        self._backlog = backlog
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {"ssl": tls, "ssl_handshake_timeout": handshake_s}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines = logs.LogRateLimit(lines=1, period_s=LOG_INTERVAL_S)
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Listen."""
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(self._backlog)
            self._run(self._accept(listener))
        self._watching = asyncio.create_task(self._connections.watch())

    def close(self) -> None:
        """Stop accepting connections, and cancel TLS handshakes in progress. Open connections stay open."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the accept loop has ended, and stop the checks of deadlines."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _accept(self, listener: socket.socket) -> None:
        pause = FIRST_PAUSE_S
        with closing(listener):
            while True:
                try:
                    await self._accept_some(listener)
                    pause = FIRST_PAUSE_S
                    await asyncio.sleep(0)
                except OSError as error:
                    self._handle_failure(error)
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _accept_some(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(BURST):
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno not in _DISCONNECTED:
                    raise
            else:
                self._open_or_close(accepted, address)

    def _handle_failure(self, error: OSError) -> None:
        self._metrics.count_closed_connection("descriptors")
        kind, connections = "connections cannot be accepted", self._metrics.connections
        logs.log_limited(logging.ERROR, kind, kind=kind, limit=self._lines, reason=error.strerror, connections=connections)
        if error.errno in _EXHAUSTED:
            for _ in range(EVICTED):
                self._connections.evict()

    def _open_or_close(self, accepted: socket.socket, address: Any) -> None:
        try:
            self._open(accepted, peer_user(accepted) if accepted.family == socket.AF_UNIX else address[0])
        except Exception as error:  # a defect with one connection must not end the accept loop
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            accepted.close()

    def _open(self, accepted: socket.socket, host: str) -> None:
        connection = self._connections.admit(host)
        if connection is None:
            accepted.close()
        else:
            task = self._run(self._connect(accepted, connection))
            connection.cancel_opening = task.cancel
            task.add_done_callback(partial(_opened, accepted, connection))

    async def _connect(self, accepted: socket.socket, connection: Connection) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(partial(self._make_protocol, connection), accepted, **self._tls)


def _opened(accepted: socket.socket, connection: Connection, opening: asyncio.Task[None]) -> None:
    """Close a socket that did not become a connection: a task that was cancelled before it ran leaves it open."""
    connection.cancel_opening = None
    if not opening.cancelled() and opening.exception() is None:
        return
    if not opening.cancelled():
        connection.report("tls")
    accepted.close()
    connection.ended()
