"""Free space of the store's file system, with a reserve for purges.

A purge needs space before it frees any. Therefore commits are refused while there is no space for a checkpoint of the write-ahead log, and
a reserve file of a few MiB is kept, which a purge on a full disk deletes first.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Final

from ras_triage.service.store.port import StoreUnavailable

SUFFIX: Final = "-reserve"

RESERVE_BYTES: Final = 4 << 20
_SHARE: Final = 32
"""Divisor of the file system's size: upper limit of the reserve."""

_SURPLUS_S: Final = 0.25
"""Seconds for which a measurement of free space is valid, less what this store writes. If others fill the disk, a commit fails."""

_COMMIT_BYTES: Final = 64 << 10
_ENTRY_BYTES: Final = 10 << 10
"""Index pages changed by each commit, and by each of its decisions, in bytes."""


def commit_bytes(entries: int, size: int) -> int:
    """Return an upper bound for the bytes that a commit adds to the write-ahead log, and its checkpoint to the database.

    `size`: bytes of its events and decisions.
    """
    return _COMMIT_BYTES + entries * _ENTRY_BYTES + size + size // 4


class FreeSpace:
    """Free space for one store."""

    def __init__(self, path: Path) -> None:
        real = os.path.realpath(path)
        self._folder = os.path.dirname(real)
        self.path = f"{real}{SUFFIX}"
        self.reserve = RESERVE_BYTES
        with suppress(OSError):
            found = os.statvfs(self._folder)
            self.reserve = min(RESERVE_BYTES, found.f_blocks * found.f_frsize // _SHARE)
        self._lacks = 0
        """Bytes of the reserve that are missing and have to be allocated again."""
        self.short = False
        """Whether the last check found too little space."""
        self._free = 0
        self._surplus = 0
        """Bytes that may be written before the next measurement."""
        self._surplus_until = 0.0

    def has_without_measuring(self, needed: int) -> bool:
        """Return whether the last measurement is sufficient, without a system call."""
        if needed > self._surplus or monotonic() > self._surplus_until:
            return False
        self._surplus -= needed
        return True

    def has(self, needed: int) -> bool:
        """Measure, and return whether so many bytes can be written without the reserve; True if it cannot be measured."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return True
        self._free = found.f_bavail * found.f_frsize
        self.short = self._free < needed + self._lacks
        self._surplus = (self._free - needed - self._lacks) // 2
        self._surplus_until = monotonic() + _SURPLUS_S
        return not self.short

    def require(self, needed: int) -> None:
        """Raise StoreUnavailable if so many bytes cannot be written."""
        if not self.has(needed):
            raise StoreUnavailable(f"disk full: {self._free} bytes free, a commit may need {needed + self._lacks}")

    def take_reserve(self) -> None:
        """Allocate the reserve, if there is space for twice its size."""
        if self._taken() >= self.reserve:
            self._lacks = 0
            return
        self._lacks = self.reserve
        with suppress(OSError):
            found = os.statvfs(self._folder)
            if found.f_bavail * found.f_frsize < 2 * self.reserve:
                return
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self.reserve)
                self._lacks = 0
            finally:
                os.close(handle)

    def release_reserve(self) -> None:
        """Delete the reserve, for a purge that follows."""
        self._lacks = self.reserve
        with suppress(OSError):
            os.unlink(self.path)

    def release_if_full(self) -> bool:
        """Delete the reserve if there is little other space. Return whether it was deleted."""
        if not self._taken() or self.has(self.reserve):
            return False
        self.release_reserve()
        return True

    def _taken(self) -> int:
        try:
            return os.stat(self.path).st_blocks * 512
        except OSError:
            return 0
