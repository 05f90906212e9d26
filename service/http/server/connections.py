"""Limits for open connections, in total and per peer, with eviction."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Protocol

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.peers import TrustedProxies, peer_of
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.metrics import Metrics

SWEEP_S: Final = 0.5
"""Seconds between two checks of all deadlines: one timer instead of one for each connection."""

STALLED_S: Final = 1.0
"""Seconds without progress after which a request may be ended in favour of another."""

_MOST_DESCRIPTORS: Final = 65_536

CloseReason = Literal["limit", "evicted", "idle", "head_timeout", "answer_timeout", "body_unread", "malformed", "tls"]
"""Why the service closed a connection."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open files towards the hard one: 1,024 is a default from the days of `select()`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_limit(wanted: int) -> int:
    """Return how many connections may be open: no more than leave a quarter of the file descriptors for files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft * 3 // 4))


class ConnectionHandler(Protocol):
    """The server's side of an open connection."""

    def check(self, now: float) -> None:
        """End the connection, or its wait, if a deadline has passed."""

    def stalled_since(self) -> float | None:
        """Return since when the client has neither sent its body nor read its response; None if it has."""

    def abort(self) -> None:
        """Close the connection at once."""


class _Group:
    """The connections of one peer, or of all."""

    __slots__ = ("connections", "idle", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.connections: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        """Those without a request in progress, longest idle first."""


class Connection:
    """An accepted connection, from before its TLS handshake until it is closed."""

    __slots__ = ("_connections", "cancel_opening", "host", "peer", "protocol")

    def __init__(self, connections: Connections, peer: _Group, host: str) -> None:
        self._connections = connections
        self.peer = peer
        self.host = host
        self.protocol: ConnectionHandler | None = None
        self.cancel_opening: Callable[[], object] | None = None
        """Cancels the TLS handshake."""

    def request_started(self) -> None:
        """Note that a request began."""
        self._connections.request_started(self)

    def request_ended(self) -> None:
        """Note that no request is in progress."""
        self._connections.request_ended(self)

    def ended(self) -> None:
        """Note that the connection is closed."""
        self.protocol = None
        self._connections.forget(self)

    def count(self, reason: CloseReason) -> None:
        """Count that the service closes the connection."""
        self._connections.metrics.count_closed_connection(reason)

    def count_problem(self, kind: str) -> None:
        """Count a problem response to a malformed request."""
        self._connections.metrics.count_problem(kind)

    def report(self, reason: CloseReason) -> None:
        """Count and log that the service closes the connection."""
        self._connections.report(reason, self.host)

    def abort(self) -> None:
        """Close the connection at once, in whatever state it is."""
        if (protocol := self.protocol) is not None:
            protocol.abort()
        elif self.cancel_opening is not None:
            self.cancel_opening()
        self.ended()


class Connections:
    """All open connections of a server."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self._limit = connection_limit(settings.max_connections)
        share = settings.max_connections_per_peer or settings.max_connections // 2
        self._share = max(1, min(share, self._limit * share // settings.max_connections))
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._peers: dict[str, _Group] = {}
        self._all = _Group("")

    def admit(self, host: str) -> Connection | None:
        """Return a new connection from `host`; None if the limit is reached.

        An idle connection is evicted for it: one of the same peer if that has reached its share, else the longest idle one.
        """
        name = peer_of(host)
        peer = self._peers.get(name) or _Group(name)
        has_share = len(peer.connections) >= self._share and host not in self._proxies
        if (has_share and not _evict(peer)) or (len(self._all.connections) >= self._limit and not self.evict()):
            self.report("limit", host)
            return None
        connection = Connection(self, peer, host)
        self._peers[name] = peer
        for group in (peer, self._all):
            group.connections[connection] = group.idle[connection] = None
        self.metrics.connections = len(self._all.connections)
        return connection

    def evict(self) -> bool:
        """Close the longest idle or stalled connection. Return whether there was one."""
        return _evict(self._all)

    def request_started(self, connection: Connection) -> None:
        """Note that a request began."""
        for group in (connection.peer, self._all):
            group.idle.pop(connection, None)

    def request_ended(self, connection: Connection) -> None:
        """Note that no request is in progress."""
        if connection in self._all.connections:
            for group in (connection.peer, self._all):
                group.idle[connection] = None

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection."""
        self.request_started(connection)
        for group in (connection.peer, self._all):
            group.connections.pop(connection, None)
        if not connection.peer.connections:
            self._peers.pop(connection.peer.name, None)
        self.metrics.connections = len(self._all.connections)

    def report(self, reason: CloseReason, host: str) -> None:
        """Count and log that the service closes a connection."""
        self.metrics.count_closed_connection(reason)
        logs.log_limited(logging.WARNING, "connection closed", kind=f"connection closed: {reason}", reason=reason, client=host)

    async def watch(self) -> None:
        """Check all deadlines periodically."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            for connection in list(self._all.connections):
                _check(connection, now)
            logs.report_suppressed()


def _check(connection: Connection, now: float) -> None:
    if connection.protocol is None:
        return
    try:
        connection.protocol.check(now)
    except Exception as error:  # a defect in one connection must not stop the checks of all
        logs.log(logging.ERROR, "defect", **logs.explain(error))
        connection.abort()


def _evict(group: _Group) -> bool:
    evicted = next(iter(group.idle), None) or _longest_stalled(group)
    if evicted is None:
        return False
    evicted.report("evicted")
    evicted.abort()
    return True


def _longest_stalled(group: _Group) -> Connection | None:
    """Return the connection that is stalled longest, at least `STALLED_S`; None if there is none."""
    now = asyncio.get_running_loop().time()
    stalled = [
        (since, index, connection)
        for index, connection in enumerate(group.connections)
        if connection.protocol is not None and (since := connection.protocol.stalled_since()) is not None and now - since >= STALLED_S
    ]
    return min(stalled)[2] if stalled else None
