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


class Places:
    """Places for requests of one kind.

    Where all are taken, a request whose client stalls loses its place to the next one: stalled requests keep nobody out, also not
    those of the same client.
    """

    def __init__(self, total: int, share: int) -> None:
        self._total, self._share = total, min(share, total)
        self._all: dict[UnderWay, None] = {}
        self._clients: dict[str, dict[UnderWay, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    @property
    def full(self) -> bool:
        """Whether a new client would get no place."""
        return len(self._all) >= self._total and _longest_stalled(self._most()) is None

    def take(self, request: UnderWay, client: str) -> None:
        """Take a place for a request of a client. Raises Refused."""
        if len(self._all) >= self._total and not _give_up_one(self._most()):
            raise _refused(f"{self._total} requests of this kind are under way")
        self.join(request, client)
        self._all[request] = None

    def join(self, request: UnderWay, client: str) -> None:
        """Count a request among those of a client; `UNKNOWN` has no share. Raises Refused."""
        group = self._clients.get(client, {})
        if len(group) >= self._share and client != UNKNOWN and not _give_up_one(group):
            raise _refused(f"{self._share} requests of this client and kind are under way")
        self._clients.setdefault(client, {})[request] = None

    def leave(self, request: UnderWay, client: str) -> None:
        """Count a request no longer."""
        self._all.pop(request, None)
        group = self._clients[client]
        del group[request]
        if not group:
            del self._clients[client]

    def _most(self) -> dict[UnderWay, None]:
        return max(self._clients.values(), key=len, default={})


def _give_up_one(group: dict[UnderWay, None]) -> bool:
    victim = _longest_stalled(group)
    if victim is not None:
        victim.give_up()
    return victim is not None


def _longest_stalled(group: dict[UnderWay, None]) -> UnderWay | None:
    """Return the request that has waited for its client for the longest time, and long enough; None where there is none."""
    now = asyncio.get_running_loop().time()
    stalled = [
        (since, index, one) for index, one in enumerate(group) if (since := one.stalled_since()) is not None and now - since >= STALLED_S
    ]
    return min(stalled)[2] if stalled else None


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
