"""Room on the store's file system: what a commit needs, and a reserve that only a purge may use.

A purge writes before it frees anything. So a commit is refused while a checkpoint of the write-ahead log would not fit any more, and a
file of a few MiB is kept that a purge on a full disk can delete first.
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
"""The reserve takes at most this part of the file system."""

_SURPLUS_S: Final = 0.25
"""Seconds for which free space is taken for granted, as far as this store does not use it up. Others may: then a commit fails."""

_COMMIT_BYTES: Final = 64 << 10
_ENTRY_BYTES: Final = 10 << 10
"""Pages of indexes that a commit changes, and each of its decisions, in bytes."""


def commit_bytes(entries: int, size: int) -> int:
    """Return an upper estimate of what a commit adds to the write-ahead log, and a checkpoint then to the database.

    `size`: bytes of its events and decisions.
    """
    return _COMMIT_BYTES + entries * _ENTRY_BYTES + size + size // 4


class Room:
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
        """Bytes of the reserve that were given away and have to be taken again."""
        self.short = False
        """Whether there was too little when room was asked for last."""
        self._free = 0
        self._surplus = 0
        """Bytes that may be written before room has to be asked for again."""
        self._surplus_until = 0.0

    def surely_has(self, needed: int) -> bool:
        """Whether there was so much room a moment ago that this needs no system call."""
        if needed > self._surplus or monotonic() > self._surplus_until:
            return False
        self._surplus -= needed
        return True

    def has(self, needed: int) -> bool:
        """Whether so many bytes can be written, the reserve not among them. Where that cannot be told, the write tells."""
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
        """Raises StoreUnavailable where so many bytes cannot be written."""
        if not self.has(needed):
            raise StoreUnavailable(f"disk full: {self._free} bytes are free, and a commit may need {needed + self._lacks}")

    def take_reserve(self) -> None:
        """Take the reserve, if there is room for it and as much again; else a later call may."""
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
        """Give it to whoever writes next, who makes room with it."""
        self._lacks = self.reserve
        with suppress(OSError):
            os.unlink(self.path)

    def give_way(self) -> bool:
        """Release the reserve if there is one and little else; whether that was done."""
        if not self._taken() or self.has(self.reserve):
            return False
        self.release_reserve()
        return True

    def _taken(self) -> int:
        try:
            return os.stat(self.path).st_blocks * 512
        except OSError:
            return 0
