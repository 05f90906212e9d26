"""Retention: purges decisions that are too old or too many, a few at a time, and puts that on record."""

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
"""Seconds between two looks for what is too old. For what is too much the writer looks after each commit."""

AT_ONCE: Final = 1000
AT_ONCE_BYTES: Final = 16 << 20
"""What one write takes away, in decisions and roughly in bytes: others wait no longer than that takes. It is more than one commit adds."""

_LOG_SHARE: Final = 8
"""The write-ahead log is emptied at this part of the limit."""
_LONGEST_LOG_SHARE: Final = 4
"""Until that is done it may grow to this part, which is not for decisions. How long it is now makes no difference: a log that somebody
keeps from being emptied must not cost decisions.
"""
_LEAST_SHARE: Final = 4
"""This part is for decisions, whatever else there is."""
_SLACK_SHARE: Final = 64
"""This part of the limit is purged at once, so that not each commit brings a purge."""

Reason = Literal["age", "size"]

_DAY_MS: Final = 24 * 60 * 60 * 1000


class Retention:
    """Keeps a store within its limits."""

    def __init__(self, settings: Settings, writer: Writer, store: Store, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._writer = writer
        self._store = store
        self._clock_ms = clock_ms
        self._purging = False
        """Whether the limit of bytes was passed and the slack below it is not reached yet."""
        self.purged: list[Callable[[Reason, int], None]] = []
        """Called with what was taken away."""

    def use(self, settings: Settings) -> None:
        """Keep other limits from the next look on."""
        self._settings = settings

    async def run(self) -> None:
        """Look, time and again, until cancelled."""
        loop = asyncio.get_running_loop()
        self._writer.upkeep = partial(self.upkeep, lambda count: loop.call_soon_threadsafe(self._tell, "size", count))
        while True:
            with suppress(StoreError):  # the writer has it on record, and the next look tries again
                await self.purge()
            await asyncio.sleep(EVERY_S)

    async def purge(self) -> int:
        """Take away what is beyond the limits; how many decisions that was. Raises StoreError."""
        total = 0
        now = self._clock_ms()
        if (days := self._settings.retention_days) is not None:
            total += await self._all("age", partial(self._purge_older, now - round(min(now, days * _DAY_MS)), now))
        if (size := self._settings.retention_bytes) is not None:
            total += await self._all("size", partial(self._purge_larger, size, now))
        return total

    def upkeep(self, purged: Callable[[int], object]) -> bool:
        """Look after the store, in the writer's thread; whether there is more to purge. Raises StoreError.

        `purged` is called with how many were.
        """
        limit = self._settings.retention_bytes
        self._store.upkeep(LIMIT_BYTES if limit is None else min(LIMIT_BYTES, limit // _LOG_SHARE))
        if limit is None or (self._store.disk_bytes() <= limit and not self._purging):
            return False
        if count := self._purge_larger(limit, self._clock_ms()):
            purged(count)
        return self._purging

    def _purge_older(self, than_ms: int, now: int) -> int:
        return self._store.purge_older(than_ms, now, portion(self._store.usage(), AT_ONCE_BYTES))

    def _purge_larger(self, limit: int, now: int) -> int:
        """Purge a few, from the limit down to a little below it; how many."""
        usage = self._store.usage()
        target = max(limit - min(2 * LIMIT_BYTES, limit // _LONGEST_LOG_SHARE) - usage.reserve_bytes, limit // _LEAST_SHARE)
        if usage.live_bytes > target:
            self._purging = True
        aim = target - limit // _SLACK_SHARE if self._purging else target
        count = self._store.purge_larger(aim, now, portion(usage, min(AT_ONCE_BYTES, usage.live_bytes - aim)))
        self._purging = self._purging and count > 0
        return count

    async def _all(self, reason: Reason, some: Callable[[], int]) -> int:
        total = 0
        while count := await self._writer.call(some):
            total += count
            self._tell(reason, count)
        return total

    def _tell(self, reason: Reason, count: int) -> None:
        for hear in self.purged:
            hear(reason, count)


def portion(usage: Usage, size: int) -> int:
    """How many decisions of average size that many bytes are, within what one write may take away."""
    return max(1, min(AT_ONCE, size * usage.decisions // max(1, usage.live_bytes)))
