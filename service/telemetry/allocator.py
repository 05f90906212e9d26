"""C allocator: limits, statistics, and return of free memory to the kernel.

glibc cannot release freed memory below an allocation that is still in use, which after a load is most of what the load took (mallopt(3),
malloc_trim(3)). Other C libraries are not touched.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from time import monotonic, process_time
from typing import Any, Final, NamedTuple

from ras_triage.service.telemetry import logs

ARENAS: Final = 2
"""Maximum number of malloc arenas. The default is 8 per processor, and free memory of one is unusable by the others. With the GIL, few
threads compete for an arena."""

MMAP_BYTES: Final = 1 << 20
"""Allocations from this size on are returned as soon as they are freed. glibc's default threshold grows to the largest freed allocation."""

CHECK_S: Final = 1.0
"""Interval of the checks of resident memory, in seconds."""

GROWTH_BYTES: Final = 24 << 20
"""Growth since the last trim from which the next one is worth its cost."""

WORTH_BYTES: Final = 4 << 20
"""Result of a trim from which the next one comes soon even while requests are under way."""

IDLE_SHARE: Final = 0.2
"""Share of processor time up to which the service is idle. Under load, returned memory would soon be needed again."""

PAUSE_S: Final = 10.0
"""Shortest time between two trims, in seconds."""

LATEST_S: Final = 60.0
"""Interval of trims while the service is not idle, in seconds."""

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_STATM: Final = Path("/proc/self/statm")


class AllocatorStats(NamedTuple):
    """Bytes that the allocator has from the kernel. Free ones may have been returned already."""

    used: int
    free: int


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` (mallinfo(3))."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


@lru_cache
def _function(name: str) -> Any:
    """Return a function of the C library; None: there is no such function."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None


def limit() -> None:
    """Limit arenas and the mmap threshold."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)


def trim() -> None:
    """Return free pages to the kernel (malloc_trim)."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


def allocator_stats() -> AllocatorStats | None:
    """Return the allocator's statistics; None: not available (before glibc 2.33)."""
    mallinfo2 = _function("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return AllocatorStats(found.uordblks + found.hblkhd, found.fordblks)


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
        """Returns whether requests are under way: on a busy machine a service under load may look idle."""
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
        await asyncio.to_thread(self._return_all if is_idle else trim)
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
        trim()
