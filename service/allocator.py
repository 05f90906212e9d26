"""C allocator: its limits, what it holds, and the return of what it does not use to the kernel.

glibc keeps what was freed below an allocation that is still in use, which after a load is most of what the load took (mallopt(3),
malloc_trim(3)). Other C libraries are left alone.
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

from service import logs

ARENAS: Final = 2
"""Most heaps that threads allocate from. By default it is 8 for each processor, and what is free in one is of no use to the others; where
Python code runs in one thread at a time, few threads wait for each other."""

MMAP_BYTES: Final = 1 << 20
"""Allocations of this size and larger go back as soon as they are freed. By default this grows to the largest that was ever freed."""

LOOK_S: Final = 1.0
"""Seconds between two looks at the memory in use."""

GROWTH_BYTES: Final = 24 << 20
"""Growth since the last return from which a return is worth it."""

IDLE_SHARE: Final = 0.2
"""Processor time of the service over time that passes, up to which it counts as idle: what is returned would soon be needed again."""

PAUSE_S: Final = 10.0
"""Shortest time between two returns."""

LATEST_S: Final = 60.0
"""Seconds after which memory is returned although the service is not idle."""

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_STATM: Final = Path("/proc/self/statm")


class Holdings(NamedTuple):
    """Bytes that the allocator has from the kernel. The pages of those that are free may have been returned."""

    used: int
    free: int


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` (mallinfo(3))."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


@lru_cache
def _function(name: str) -> Any:
    """Return a function of the C library; None where it has none of this name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None


def limit() -> None:
    """Have the allocator keep less of what is freed."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES)


def trim() -> None:
    """Return the pages that hold nothing to the kernel."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(ctypes.c_size_t(0))


def holdings() -> Holdings | None:
    """Return what the allocator holds; None where it does not tell (glibc does from 2.33 on)."""
    mallinfo2 = _function("mallinfo2")
    if mallinfo2 is None:
        return None
    mallinfo2.restype = _Mallinfo2
    found = mallinfo2()
    return Holdings(found.uordblks + found.hblkhd, found.fordblks)


def resident_bytes() -> int | None:
    """Return the memory that the process has in use; None where the kernel does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


class MemoryReturn:
    """Returns memory to the kernel when a load is over."""

    def __init__(self, release: Callable[[], None]) -> None:
        """`release` frees what is only cached; it is called in a thread."""
        self._release = release
        self._least = resident_bytes()
        """Resident bytes after the last return while the service was idle, or the least since then."""
        self._grown_at: float | None = None
        self._returned_at = -PAUSE_S
        self.returned_bytes = 0
        """All that was returned, as far as the resident memory shows."""

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while self._least is not None:
            began, used = monotonic(), process_time()
            await asyncio.sleep(LOOK_S)
            await self._look((process_time() - used) / (monotonic() - began))

    async def _look(self, share: float) -> None:
        """Return memory if it has grown, and the share of processor time says that nobody needs it."""
        resident, now = resident_bytes(), monotonic()
        if resident is None or self._least is None:
            return
        self._least = min(self._least, resident)
        if resident - self._least < GROWTH_BYTES:
            self._grown_at = None
            return
        self._grown_at = self._grown_at or now
        is_idle = share < IDLE_SHARE
        if now - self._returned_at >= PAUSE_S and (is_idle or now - self._grown_at >= LATEST_S):
            await asyncio.to_thread(self._return_all if is_idle else trim)
            self._returned_at = self._grown_at = monotonic()
            left = resident_bytes() or resident
            if is_idle:  # else most of it is in use, and the rest is returned when it is not
                self._least = left
            self._account(resident, left)

    def _return_all(self) -> None:
        try:
            self._release()
        except Exception as error:  # the rest can be returned all the same
            logs.log(logging.ERROR, "caches not released", **logs.explain(error))
        gc.collect()
        trim()

    def _account(self, before: int, after: int) -> None:
        self.returned_bytes += max(0, before - after)
        logs.log(logging.INFO, "memory returned", resident_mib=after >> 20, returned_mib=max(0, before - after) >> 20)
