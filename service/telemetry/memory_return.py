"""Return of free memory to the kernel after a load peak."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time
from typing import Final

from ras_triage.service.telemetry import allocator, logs

CHECK_S: Final = 1.0
"""Interval of the checks of resident memory, in seconds."""

GROWTH_BYTES: Final = 24 << 20
"""Growth since the last trim from which the next one is worth its cost."""

WORTH_BYTES: Final = 4 << 20
"""Result of a trim from which the next one comes soon even while requests are in progress."""

IDLE_SHARE: Final = 0.2
"""Share of processor time up to which the service is idle. Under load, returned memory would soon be needed again."""

PAUSE_S: Final = 10.0
"""Shortest time between two trims, in seconds."""

LATEST_S: Final = 60.0
"""Interval of trims while the service is not idle, in seconds."""

_STATM: Final = Path("/proc/self/statm")


def resident_bytes() -> int | None:
    """Return the resident memory of the process in bytes; None: not available."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class MemoryReturn:
    """Returns memory to the kernel after a load."""

    def __init__(self, release: Callable[[], None]) -> None:
        """`release` frees caches; it is called in a thread."""
        self._release = release
        self.is_busy: Callable[[], bool] = lambda: False
        """Return whether requests are in progress: on a busy machine a service under load may look idle."""
        self._least = resident_bytes()
        """Lowest resident memory since the last trim without requests, in bytes."""
        self._returned_at = monotonic() - PAUSE_S
        self._gained = WORTH_BYTES
        """Bytes returned by the last trim."""
        self.returned_bytes = 0
        """Sum of returned bytes, by resident memory."""

    async def run(self) -> None:
        """Check every second, until cancelled."""
        while self._least is not None:
            began, used = monotonic(), process_time()
            await asyncio.sleep(CHECK_S)
            await self._check((process_time() - used) / (monotonic() - began))

    async def _check(self, share: float) -> None:
        """Return memory if it has grown. `share`: processor time of this process over elapsed time."""
        resident = resident_bytes()
        if resident is None or self._least is None:
            return
        self._least = min(self._least, resident)
        is_idle = share < IDLE_SHARE
        if resident - self._least < GROWTH_BYTES or monotonic() - self._returned_at < self._pause_s(is_idle):
            return
        await asyncio.to_thread(self._return_all if is_idle else allocator.trim)
        left = resident_bytes() or resident
        self._returned_at, self._gained = monotonic(), resident - left
        if is_idle and not self.is_busy():  # under load, part of the remaining memory is still transient
            self._least = left
        self.returned_bytes += max(0, self._gained)
        logs.log(logging.INFO, "memory returned", resident_mib=left >> 20, returned_mib=max(0, self._gained) >> 20)

    def _pause_s(self, is_idle: bool) -> float:
        """Return the seconds from the last trim to the next."""
        is_worth_it = not self.is_busy() or self._gained >= WORTH_BYTES
        return PAUSE_S if is_idle and is_worth_it else LATEST_S

    def _return_all(self) -> None:
        try:
            self._release()
        except Exception as error:  # trimming is still useful
            logs.log(logging.ERROR, "caches not released", **logs.explain(error))
        gc.collect()
        allocator.trim()
