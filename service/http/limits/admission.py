"""Admission of batches and imports by the time that they would wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import ceil
from time import monotonic
from typing import Final

from ras_triage.service.api.problems import ProblemError, busy
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.retry_schedule import RetrySchedule
from ras_triage.service.http.limits.scheduling import RoundRobin
from ras_triage.service.security.principal import ANONYMOUS, Principal

SLICE: Final = 64
"""Events of a new batch that count as the first ones."""

HALF_LIFE_S: Final = 10.0
"""Seconds after which a measurement counts half."""

_EXPECTED_RATE: Final = 1000.0
"""Events per second, before any were decided."""


def client_of(principal: Principal, peer: str) -> str:
    """Return the client for which work counts: the key or token subject, else the address."""
    return peer if principal.name == ANONYMOUS else principal.name


class Rate:
    """Events per second while there is work; recent measurements count most."""

    def __init__(self) -> None:
        self._seconds, self._events = 1.0, _EXPECTED_RATE

    def measure(self, events: int, seconds: float) -> None:
        """Add a measurement."""
        weight = 0.5 ** (seconds / HALF_LIFE_S)
        self._seconds = self._seconds * weight + seconds
        self._events = self._events * weight + events

    @property
    def per_second(self) -> float:
        """The rate, always above 0."""
        return max(self._events, 1.0) / self._seconds


class Admission:
    """Queued events of batches and imports, and their scheduling.

    Slices are decided one at a time and in rotation between clients, with a pass of the event loop in between, in which single requests
    and probes come first.
    """

    def __init__(self, settings: Settings, retries: RetrySchedule, clock: Callable[[], float] = monotonic) -> None:
        self._retries = retries
        self._longest_s = settings.max_batch_wait_s
        self._clock = clock
        self.deciding = RoundRobin()
        self.predeciding = RoundRobin(max(2 * settings.batch_workers, 1))
        """For workers: one slice each that they decide, and one each that waits for them."""
        self._queued: dict[str, int] = {}
        self._rate = Rate()
        self._mark = 0.0
        """When the latest slice was decided, or the queue ceased to be empty."""

    def wait_s(self, client: str) -> float:
        """Return the seconds after which the first events of a new batch of this client would be decided."""
        own = self._queued.get(client, 0) + SLICE
        return sum(min(queued, own) for queued in self._queued.values()) / self._rate.per_second

    def require(self, client: str) -> None:
        """Raise ProblemError if a new batch of this client would wait too long."""
        wait_s = self.wait_s(client)
        if wait_s > self._longest_s:
            detail = f"a new batch would wait {wait_s:.0f} s for its first decision; at most {self._longest_s:g} s are accepted"
            raise ProblemError(busy(detail), {"Retry-After": str(self._retries.reserve(ceil(wait_s)))})

    def queue(self, client: str, events: int) -> None:
        """Add events that are to be decided."""
        if not self._queued:
            self._mark = self._clock()
        self._queued[client] = self._queued.get(client, 0) + events

    def drop(self, client: str, events: int) -> None:
        """Take out events that will not be decided."""
        left = self._queued.get(client, 0) - events
        if left > 0:
            self._queued[client] = left
        else:
            self._queued.pop(client, None)

    def decided(self, client: str, events: int) -> None:
        """Take out events that were decided."""
        now = self._clock()
        self._rate.measure(events, now - self._mark)
        self._mark = now
        self.drop(client, events)


class ClientWork:
    """Queues the events of one batch or import, for its client."""

    def __init__(self, admission: Admission, client: str) -> None:
        self._admission = admission
        self._client = client

    def require(self) -> None:
        """Raise ProblemError if a new batch would wait too long."""
        self._admission.require(self._client)

    @asynccontextmanager
    async def deciding(self, events: int) -> AsyncIterator[None]:
        """Wait for a turn to decide events."""
        admission, client = self._admission, self._client
        admission.queue(client, events)
        try:
            async with admission.deciding.turn(client):
                yield
        except BaseException:
            admission.drop(client, events)
            raise
        admission.decided(client, events)

    @asynccontextmanager
    async def predeciding(self, events: int) -> AsyncIterator[None]:
        """Wait for a turn to have events decided by a worker."""
        admission, client = self._admission, self._client
        admission.queue(client, events)
        try:
            async with admission.predeciding.turn(client):
                yield
        finally:
            admission.drop(client, events)
