"""C allocator (glibc): limits, statistics, trimming.

glibc cannot release freed memory below an allocation that is still in use, which after a load peak is most of what the peak took
(mallopt(3), malloc_trim(3)). Other C libraries are not touched.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any, Final, NamedTuple

ARENAS: Final = 2
"""Maximum number of malloc arenas. The default is 8 per processor, and free memory of one is unusable by the others. With the GIL, few
threads compete for an arena."""

MMAP_BYTES: Final = 1 << 20
"""Allocations from this size on are returned as soon as they are freed. glibc's default threshold grows to the largest freed allocation."""

_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


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
