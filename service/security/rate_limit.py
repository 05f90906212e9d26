"""Rate limiter by principal."""

from __future__ import annotations

import asyncio
from math import ceil
from time import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from ras_triage.service.api.problems import ProblemError, rate_limited


class RateLimiter:
    """Rate limit for each name: `burst` at once, `rate` per second on average."""

    def __init__(self, rate: float, burst: int | None = None) -> None:
        seconds = max(1, ceil((burst or rate) / rate))
        self._rate = rate
        self._item = RateLimitItemPerSecond(max(1, round(rate * seconds)), seconds)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, name: str, events: int) -> None:
        """Count events. Raises ProblemError over the limit. More events than the burst size count as the burst size."""
        if not self._fits(name, min(events, self._item.amount)):
            raise ProblemError(rate_limited(self._rate), {"Retry-After": str(max(1, ceil(self._seconds(name))))})

    async def wait(self, name: str, events: int) -> None:
        """Count events, waiting as long as the rate requires."""
        while events > 0:
            portion = min(events, self._item.amount)
            while not self._fits(name, portion):
                await asyncio.sleep(min(max(self._seconds(name), 0.01), 1.0))
            events -= portion

    def _fits(self, name: str, events: int) -> bool:
        return self._limiter.hit(self._item, name, cost=events)

    def _seconds(self, name: str) -> float:
        """Return the seconds until at least one more event is allowed."""
        return self._limiter.get_window_stats(self._item, name).reset_time - time()
