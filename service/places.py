"""Places for requests under way: how many there are, and how many one client may hold."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from service.connections import STALLED_S
from service.deadlines import BodyClock, Sending
from service.problems import RETRY_S, Refused, busy
from service.security.principal import ANONYMOUS
from service.settings import Settings

UNKNOWN: Final = ""
"""The client of a request without an address, as over a Unix socket."""


LOOK_S: Final = 0.1
"""Seconds between two searches for a stalled request of one client."""


class Client(Sending, Protocol):
    """The connection of a request."""

    def unread_since(self) -> float | None:
        """Return since when the client does not read its answer; None where it does."""

    def abort(self) -> None:
        """Close the connection at once."""


class UnderWay:
    """A request under way, with the places that it holds."""

    __slots__ = ("_connection", "_held", "clock")

    def __init__(self, clock: BodyClock, connection: Client | None) -> None:
        self.clock = clock
        self._connection = connection
        self._held: list[tuple[Places, str]] = []
        """With the client for which each place counts."""

    def take(self, places: Places, client: str) -> None:
        """Take a place. Raises Refused where there is none."""
        places.take(self, client)
        self._held.append((places, client))

    def charge(self, principal: str) -> None:
        """Count the places for who asks, too. Raises Refused where they have their share."""
        if principal == ANONYMOUS:
            return
        for places, _ in tuple(self._held):
            places.join(self, principal)
            self._held.append((places, principal))

    def release(self) -> None:
        """Give all places back."""
        while self._held:
            places, client = self._held.pop()
            places.leave(self, client)

    def stalled_since(self) -> float | None:
        """Return since when the request waits for its client, in the event loop's time; None where it does not."""
        if self.clock.waiting_since is not None:
            return self.clock.waiting_since
        return None if self._connection is None else self._connection.unread_since()

    def give_up(self) -> None:
        """Release the places and end the request: with a problem where its body is waited for, else without an answer."""
        self.release()
        if self.clock.waiting_since is not None:
            self.clock.give_up()
        elif self._connection is not None:
            self._connection.abort()


class _Group:
    """The requests of one client."""

    __slots__ = ("barren_until", "requests")

    def __init__(self) -> None:
        self.requests: dict[UnderWay, None] = {}
        self.barren_until = 0.0
        """Until when it is not worth looking for a stalled request again: looking costs as much as refusing does."""

    def longest_stalled(self) -> UnderWay | None:
        """Return the request that has waited for its client for the longest time, and long enough; None where there is none."""
        now = asyncio.get_running_loop().time()
        if now < self.barren_until:
            return None
        waits = ((one.stalled_since(), index, one) for index, one in enumerate(self.requests))
        stalled = [(since, index, one) for since, index, one in waits if since is not None and now - since >= STALLED_S]
        if not stalled:
            self.barren_until = now + LOOK_S
        return min(stalled)[2] if stalled else None

    def give_up_one(self) -> bool:
        """End the request that has stalled for the longest time; return whether there was one."""
        victim = self.longest_stalled()
        if victim is not None:
            victim.give_up()
        return victim is not None


class Places:
    """Places for requests of one kind.

    Where all are taken, a request whose client stalls loses its place to the next one: stalled requests keep nobody out, also not
    those of the same client.
    """

    def __init__(self, total: int, share: int) -> None:
        self._total, self._share = total, min(share, total)
        self._all: dict[UnderWay, None] = {}
        self._clients: dict[str, _Group] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether a new client would get no place."""
        return len(self._all) >= self._total and self._most().longest_stalled() is None

    def take(self, request: UnderWay, client: str) -> None:
        """Take a place for a request of a client. Raises Refused."""
        self.join(request, client)
        self._all[request] = None
        if len(self._all) > self._total and not self._most().give_up_one():
            self.leave(request, client)
            raise _refused(f"{self._total} requests of this kind are under way")

    def join(self, request: UnderWay, client: str) -> None:
        """Count a request among those of a client; `UNKNOWN` has no share. Raises Refused."""
        group = self._clients.get(client) or _Group()
        if len(group.requests) >= self._share and client != UNKNOWN and not group.give_up_one():
            raise _refused(f"{self._share} requests of this client and kind are under way")
        group.requests[request] = None
        self._clients[client] = group

    def leave(self, request: UnderWay, client: str) -> None:
        """Count a request no longer."""
        self._all.pop(request, None)
        group = self._clients[client]
        del group.requests[request]
        if not group.requests:
            del self._clients[client]

    def _most(self) -> _Group:
        return max(self._clients.values(), key=lambda group: len(group.requests), default=_Group())


def _refused(detail: str) -> Refused:
    return Refused(busy(detail), {"Retry-After": str(RETRY_S)})


class RequestPlaces:
    """The places of all kinds of requests."""

    def __init__(self, settings: Settings) -> None:
        total = settings.max_in_flight
        share = settings.max_in_flight_per_client or max(1, total // 2)
        self.requests = Places(total, share)
        self.lasting = Places(max(1, total * 3 // 4), max(1, share * 3 // 4))
        """Batches, imports and streams, which may last: the rest stays free for single requests."""
        self.imports = Places(settings.max_imports, max(1, settings.max_imports // 2))
