"""Times at which refused clients are told to retry."""

from __future__ import annotations

from collections.abc import Callable
from random import randint
from time import monotonic
from typing import Final

LONGEST_RETRY_S: Final = 120
"""Seconds to the latest retry, unless the estimate itself is later."""


class RetrySchedule:
    """Retries of refused clients, at most `per_second` in each second.

    `Retry-After` has whole seconds: clients that are refused together, and told the same time, return together. While hundreds of them
    are accepted and refused again, probes wait behind them.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = monotonic) -> None:
        """`clock` returns seconds."""
        self._per_second = per_second
        self._clock = clock
        self._retries: dict[int, int] = {}
        """Number of retries by second of the clock, of the seconds to come."""

    def reserve(self, seconds: int) -> int:
        """Return the time for `Retry-After` in seconds: the first at or after `seconds` that has room, random if none has."""
        now = int(self._clock())
        if len(self._retries) > LONGEST_RETRY_S:
            self._retries = {second: number for second, number in self._retries.items() if second >= now}
        latest = max(LONGEST_RETRY_S, seconds)
        free = (after for after in range(seconds, latest + 1) if self._retries.get(now + after, 0) < self._per_second)
        after = next(free, None) or randint(seconds, latest)
        self._retries[now + after] = self._retries.get(now + after, 0) + 1
        return after
