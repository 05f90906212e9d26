"""Retention by age and store size: purges in small, recorded transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Literal

from ras_triage.service.config.settings import Settings
from ras_triage.service.store.files.write_ahead_log import LIMIT_BYTES
from ras_triage.service.store.port import Store, StoreError, Usage
from ras_triage.service.store.writer import Writer

EVERY_S: Final = 60.0
"""Interval of the check for age, in seconds. The writer checks the size after each commit."""

AT_ONCE: Final = 1000
AT_ONCE_BYTES: Final = 16 << 20
"""Limits of one purge transaction, in decisions and approximate bytes: other writes wait for it. It is more than one commit adds."""

_LOG_SHARE: Final = 8
"""Divisor of the limit: length from which the write-ahead log is emptied."""
_LONGEST_LOG_SHARE: Final = 4
"""Divisor of the limit: share that is reserved for the write-ahead log. Its actual length does not count: a reader that keeps the log from
being emptied must not cause purges.
"""
_LEAST_SHARE: Final = 4
"""Divisor of the limit: share that is always left for decisions."""
_SLACK_SHARE: Final = 64
"""Divisor of the limit: how far below the target a purge goes, so that not every commit needs one."""

PurgeReason = Literal["age", "size"]

_DAY_MS: Final = 24 * 60 * 60 * 1000


class Retention:
    """Purges the decisions that exceed the limits of age and size."""

    def __init__(self, settings: Settings, writer: Writer, store: Store, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._writer = writer
        self._store = store
        self._clock_ms = clock_ms
        self._purging = False
        """Whether the size limit was exceeded and the slack below it is not reached yet."""
        self.purged: list[Callable[[PurgeReason, int], None]] = []
        """Called with the reason and number of each purge."""

    def use(self, settings: Settings) -> None:
        """Apply new settings from the next check on."""
        self._settings = settings

    async def run(self) -> None:
        """Check periodically, until cancelled."""
        loop = asyncio.get_running_loop()
        self._writer.maintain = partial(self.maintain, lambda count: loop.call_soon_threadsafe(self._report, "size", count))
        while True:
            with suppress(StoreError):  # the writer records the failure; the next check tries again
                await self.purge()
            await asyncio.sleep(EVERY_S)

    async def purge(self) -> int:
        """Purge what exceeds the limits. Return the number of decisions. Raises StoreError."""
        total = 0
        now = self._clock_ms()
        if (days := self._settings.retention_days) is not None:
            total += await self._all("age", partial(self._purge_older, now - round(min(now, days * _DAY_MS)), now))
        if (size := self._settings.retention_bytes) is not None:
            total += await self._all("size", partial(self._purge_larger, size, now))
        return total

    def maintain(self, purged: Callable[[int], object]) -> bool:
        """Maintain the store, in the writer's thread. Return whether there is more to purge. Raises StoreError.

        `purged` is called with the number of purged decisions.
        """
        limit = self._settings.retention_bytes
        self._store.maintain(LIMIT_BYTES if limit is None else min(LIMIT_BYTES, limit // _LOG_SHARE))
        if limit is None or (self._store.disk_bytes() <= limit and not self._purging):
            return False
        if count := self._purge_larger(limit, self._clock_ms()):
            purged(count)
        return self._purging

    def _purge_older(self, than_ms: int, now: int) -> int:
        return self._store.purge_older(than_ms, now, portion(self._store.usage(), AT_ONCE_BYTES))

    def _purge_larger(self, limit: int, now: int) -> int:
        """Purge one portion, down to slightly below the limit. Return the number of decisions."""
        usage = self._store.usage()
        target = max(limit - min(2 * LIMIT_BYTES, limit // _LONGEST_LOG_SHARE) - usage.reserve_bytes, limit // _LEAST_SHARE)
        if usage.live_bytes > target:
            self._purging = True
        aim = target - limit // _SLACK_SHARE if self._purging else target
        count = self._store.purge_larger(aim, now, portion(usage, min(AT_ONCE_BYTES, usage.live_bytes - aim)))
        self._purging = self._purging and count > 0
        return count

    async def _all(self, reason: PurgeReason, some: Callable[[], int]) -> int:
        total = 0
        while count := await self._writer.call(some):
            total += count
            self._report(reason, count)
        return total

    def _report(self, reason: PurgeReason, count: int) -> None:
        for hook in self.purged:
            hook(reason, count)


def portion(usage: Usage, size: int) -> int:
    """Return how many decisions of average size make up `size` bytes, within the limit of one transaction."""
    return max(1, min(AT_ONCE, size * usage.decisions // max(1, usage.live_bytes)))
