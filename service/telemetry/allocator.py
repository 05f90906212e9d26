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

from ras_triage.service.telemetry import logs

ARENAS: Final = 2
"""Most heaps that threads allocate from. By default it is 8 for each processor, and what is free in one is of no use to the others; where
Python code runs in one thread at a time, few threads wait for each other."""

MMAP_BYTES: Final = 1 << 20
"""Allocations of this size and larger go back as soon as they are freed. By default this grows to the largest that was ever freed."""

LOOK_S: Final = 1.0
"""Seconds between two looks at the memory in use."""

GROWTH_BYTES: Final = 24 << 20
"""Growth since the last return from which a return is worth it."""

WORTH_BYTES: Final = 4 << 20
"""What a return must have come to for another one soon, while requests are under way."""

IDLE_SHARE: Final = 0.2
"""Processor time of the service over time that passes, up to which it counts as idle: what is returned would soon be needed again."""

PAUSE_S: Final = 10.0
"""Shortest time between two returns."""

LATEST_S: Final = 60.0
"""Seconds between two returns while the service is not idle."""

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
        self.is_busy: Callable[[], bool] = lambda: False
        """Whether requests are under way: a machine that has much else to do makes a service look idle that is not."""
        self._least = resident_bytes()
        """Resident bytes after the last return while nothing was under way, or the least since then."""
        self._returned_at = monotonic() - PAUSE_S
        self._gained = WORTH_BYTES
        """Bytes that the last return came to."""
        self.returned_bytes = 0
        """All that was returned, as far as the resident memory shows."""

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while self._least is not None:
            began, used = monotonic(), process_time()
            await asyncio.sleep(LOOK_S)
            await self._look((process_time() - used) / (monotonic() - began))

    async def _look(self, share: float) -> None:
        """Return memory if it has grown; `share`: of the time that passed, how much the processors worked for this process."""
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
        if is_idle and not self.is_busy():  # else what is left is not what will stay
            self._least = left
        self.returned_bytes += max(0, self._gained)
        logs.log(logging.INFO, "memory returned", resident_mib=left >> 20, returned_mib=max(0, self._gained) >> 20)

    def _pause_s(self, is_idle: bool) -> float:
        """Return the seconds from the last return to the next."""
        is_worth_it = not self.is_busy() or self._gained >= WORTH_BYTES
        return PAUSE_S if is_idle and is_worth_it else LATEST_S

    def _return_all(self) -> None:
        try:
            self._release()
        except Exception as error:  # the rest can be returned all the same
            logs.log(logging.ERROR, "caches not released", **logs.explain(error))
        gc.collect()
        trim()
