"""Limits for concurrent requests, in total and per client."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from ras_triage.service.api.problems import RETRY_S, ProblemError, busy
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.admission import Admission
from ras_triage.service.http.limits.body_deadlines import BodyClock, BodySource
from ras_triage.service.http.limits.retry_schedule import RetrySchedule
from ras_triage.service.http.server.connections import STALLED_S
from ras_triage.service.security.principal import ANONYMOUS

UNKNOWN: Final = ""
"""The client of a request without an address, as over a Unix socket."""

LASTING_RETRY_S: Final = 5
"""Seconds after which to retry a batch, an import or a stream: its places become free less often than those of single requests."""

RETRIES_PER_S: Final = 256
LASTING_RETRIES_PER_S: Final = 32
"""Refused clients that are told to retry in the same second: of single requests, and of batches, imports and streams."""

SEARCH_INTERVAL_S: Final = 0.1
"""Seconds between two searches for a stalled request of one client."""


class ClientConnection(BodySource, Protocol):
    """The connection of a request."""

    def unread_since(self) -> float | None:
        """Return since when the client has not read its response; None if it reads."""

    def shrink_send_buffers(self) -> None:
        """Buffer less of a response that the client does not read."""

    def abort(self) -> None:
        """Close the connection at once."""


class ActiveRequest:
    """A request in progress, and the limits that it counts for."""

    __slots__ = ("_counted", "clock", "connection")

    def __init__(self, clock: BodyClock, connection: ClientConnection | None) -> None:
        self.clock = clock
        self.connection = connection
        self._counted: list[tuple[ConcurrencyLimit, str]] = []
        """Each limit with the client for which the request counts."""

    def enter(self, limit: ConcurrencyLimit, client: str) -> None:
        """Count the request for a limit. Raises ProblemError if that is reached."""
        limit.enter(self, client)
        self._counted.append((limit, client))

    def charge(self, principal: str) -> None:
        """Count the request for a key or token subject, too. Raises ProblemError if its share is reached."""
        if principal == ANONYMOUS:
            return
        for limit, _ in tuple(self._counted):
            limit.count(self, principal)
            self._counted.append((limit, principal))

    def release(self) -> None:
        """Stop counting the request."""
        while self._counted:
            limit, client = self._counted.pop()
            limit.leave(self, client)

    def stalled_since(self) -> float | None:
        """Return since when the request waits for its client, in the time of the event loop; None if it does not."""
        if self.clock.waiting_since is not None:
            return self.clock.waiting_since
        return None if self.connection is None else self.connection.unread_since()

    def preempt(self) -> None:
        """End the request and stop counting it: with a problem if it waits for its body, else by closing the connection."""
        self.release()
        if self.clock.waiting_since is not None:
            self.clock.interrupt()
        elif self.connection is not None:
            self.connection.abort()


class _Group:
    """The requests of one client, or of all."""

    __slots__ = ("_next_search", "requests")

    def __init__(self) -> None:
        self.requests: dict[ActiveRequest, None] = {}
        self._next_search = 0.0
        """When to search for a stalled request again after none was found: a search costs as much as a refusal."""

    def longest_stalled(self) -> ActiveRequest | None:
        """Return the request that has waited longest for its client, at least `STALLED_S`; None if there is none."""
        now = asyncio.get_running_loop().time()
        if now < self._next_search:
            return None
        waits = ((one.stalled_since(), index, one) for index, one in enumerate(self.requests))
        stalled = [(since, index, one) for since, index, one in waits if since is not None and now - since >= STALLED_S]
        if not stalled:
            self._next_search = now + SEARCH_INTERVAL_S
        return min(stalled)[2] if stalled else None

    def preempt_one(self) -> bool:
        """End the request that has stalled for the longest time; return whether there was one."""
        stalled_request = self.longest_stalled()
        if stalled_request is not None:
            stalled_request.preempt()
        return stalled_request is not None


class ConcurrencyLimit:
    """A limit for requests of one kind, and a share of it for each client.

    When it is reached, a stalled request is ended in favour of a new one, so that stalled requests block no client.
    """

    def __init__(self, total: int, share: int, retries: RetrySchedule, retry_s: int = RETRY_S) -> None:
        self._total, self._share = total, min(share, total)
        self._retries, self._retry_s = retries, retry_s
        self._all = _Group()
        self._clients: dict[str, _Group] = {}

    def __len__(self) -> int:
        return len(self._all.requests)

    @property
    def full(self) -> bool:
        """Whether a request of a new client would be refused."""
        return len(self) >= self._total and self._all.longest_stalled() is None

    def enter(self, request: ActiveRequest, client: str) -> None:
        """Count a request of a client. Raises ProblemError."""
        self.count(request, client)
        self._all.requests[request] = None
        if len(self) > self._total and not self._all.preempt_one():
            self.leave(request, client)
            raise self._refused(f"limit of {self._total} concurrent requests of this kind reached; retry later")

    def count(self, request: ActiveRequest, client: str) -> None:
        """Count a request for a client; `UNKNOWN` has no share. Raises ProblemError."""
        group = self._clients.get(client) or _Group()
        if len(group.requests) >= self._share and client != UNKNOWN and not group.preempt_one():
            raise self._refused(f"limit of {self._share} concurrent requests of this kind per client reached; retry later")
        group.requests[request] = None
        self._clients[client] = group

    def leave(self, request: ActiveRequest, client: str) -> None:
        """Stop counting a request."""
        self._all.requests.pop(request, None)
        group = self._clients[client]
        del group.requests[request]
        if not group.requests:
            del self._clients[client]

    def _refused(self, detail: str) -> ProblemError:
        return ProblemError(busy(detail), {"Retry-After": str(self._retries.reserve(self._retry_s))})


class ConcurrencyLimits:
    """The limits of all kinds of requests."""

    def __init__(self, settings: Settings) -> None:
        total = settings.max_in_flight
        share = settings.max_in_flight_per_client or max(1, total // 2)
        self.requests = ConcurrencyLimit(total, share, RetrySchedule(RETRIES_PER_S))
        lasting = RetrySchedule(LASTING_RETRIES_PER_S)
        self.long_running = ConcurrencyLimit(max(1, total * 3 // 4), max(1, share * 3 // 4), lasting, LASTING_RETRY_S)
        """Batches, imports and streams, which may last; the rest of the places is for single requests."""
        self.imports = ConcurrencyLimit(settings.max_imports, max(1, settings.max_imports // 2), lasting, LASTING_RETRY_S)
        self.admission = Admission(settings, lasting)
