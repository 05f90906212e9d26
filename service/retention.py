"""Retention: decisions that are too old, or too many, are taken away a few at a time, and it is put on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Literal

from service.settings import Settings
from service.store.port import Size, Store, StoreError
from service.writer import Writer

EVERY_S: Final = 60.0
"""Seconds between two looks."""

AT_ONCE: Final = 500
AT_ONCE_BYTES: Final = 16 << 20
"""What one write takes away, in decisions and roughly in bytes: others wait no longer than that takes."""

Reason = Literal["age", "size"]

_DAY_MS: Final = 24 * 60 * 60 * 1000


class Retention:
    """Keeps a store within its limits."""

    def __init__(self, settings: Settings, writer: Writer, store: Store, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._writer = writer
        self._store = store
        self._clock_ms = clock_ms
        self.purged: list[Callable[[Reason, int], None]] = []
        """Called with what was taken away."""

    def use(self, settings: Settings) -> None:
        """Keep other limits from the next look on."""
        self._settings = settings

    async def run(self) -> None:
        """Look, time and again, until cancelled."""
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

    def _purge_older(self, than_ms: int, now: int) -> int:
        return self._store.purge_older(than_ms, now, portion(self._store.size(), AT_ONCE_BYTES))

    def _purge_larger(self, than_bytes: int, now: int) -> int:
        held = self._store.size()
        return self._store.purge_larger(than_bytes, now, portion(held, min(AT_ONCE_BYTES, held.bytes - than_bytes)))

    async def _all(self, reason: Reason, some: Callable[[], int]) -> int:
        total = 0
        while count := await self._writer.call(some):
            total += count
            for hear in self.purged:
                hear(reason, count)
        return total


def portion(held: Size, size: int) -> int:
    """How many decisions of average size that many bytes are, within what one write may take away."""
    return max(1, min(AT_ONCE, size * held.decisions // max(1, held.bytes)))
