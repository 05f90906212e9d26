"""Detection of deleted, replaced or hard-linked database files.

SQLite continues to write to a file that was deleted or replaced, and that data is lost when the file is closed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, time_ns
from typing import Final, NamedTuple

from ras_triage.service.store.port import StoreUnavailable, StoreUnusable

CHECK_S: Final = 0.25
"""Seconds for which a check of all files is valid."""

_SETTLED_NS: Final = 100_000_000
"""Age from which a directory's mtime differs from that of a later change: the kernel's clock for it ticks every few milliseconds."""


class _OpenFile(NamedTuple):
    name: str
    """Name in messages."""
    path: str
    device: int
    inode: int


class OpenFiles:
    """The database, its write-ahead log and its shared memory file, as opened by a connection."""

    def __init__(self, path: Path) -> None:
        """Record the files. Raises StoreUnavailable if one is missing."""
        self._database = str(path)
        real = os.path.realpath(path)
        self.log_path = log_path(path)
        named = (("database file", str(path)), ("write-ahead log", self.log_path), ("shared memory file", f"{real}-shm"))
        self._files: Sequence[_OpenFile] = [_open_file(name, file) for name, file in named]
        self._folder = os.path.dirname(real)
        self._is_link = real != os.path.abspath(path)
        self._folder_state: tuple[int, int, int] | None = None
        """Device, inode and mtime of the directory at the last check; None: mtime too recent to detect a later change."""
        self._checked = 0.0
        self.check()

    def check(self) -> None:
        """Check all files. Raises StoreUnavailable if a path names another file or none, or the database has a second name.

        Inode numbers are not reused while the files are open.
        """
        self._checked = 0.0
        folder = _folder_state(self._folder)  # first, so that later changes are detected
        for file in self._files:
            found = _stat(file.name, file.path)
            if (found.st_dev, found.st_ino) != (file.device, file.inode):
                raise StoreUnavailable(f"the {file.name} was replaced while the service runs")
            if found.st_nlink > 1 and file.path is self._database:
                raise StoreUnavailable("the database file has a second name (hard link)")
        self._checked = monotonic()
        settled = folder is not None and not self._is_link and time_ns() - folder[2] > _SETTLED_NS
        self._folder_state = folder if settled else None

    def check_quickly(self) -> None:
        """Check only the directory, whose mtime shows that a file was deleted, replaced or renamed. Raises StoreUnavailable.

        Each system call releases the GIL, and a commit waits to get it back. A hard link from another directory does not change the
        mtime; the next full check finds it.
        """
        if monotonic() - self._checked > CHECK_S or self._folder_state is None or _folder_state(self._folder) != self._folder_state:
            self.check()

    def check_sometimes(self) -> bool:
        """Check all files, unless the last check is still valid. Return whether it checked. Raises StoreUnavailable."""
        if monotonic() - self._checked <= CHECK_S:
            return False
        self.check()
        return True


def log_path(path: Path) -> str:
    """Return the path of the write-ahead log, with symbolic links resolved."""
    return f"{os.path.realpath(path)}-wal"


def _folder_state(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _open_file(name: str, path: str) -> _OpenFile:
    found = _stat(name, path)
    return _OpenFile(name, path, found.st_dev, found.st_ino)


def _stat(name: str, path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise StoreUnavailable(f"the {name} was deleted while the service runs") from None
    except OSError as error:
        raise StoreUnavailable(f"the {name} cannot be examined: {(error.strerror or 'unknown reason').lower()}") from None


def require_one_name(path: Path) -> None:
    """Raise StoreUnusable for a file with hard links: under each name it would have another write-ahead log."""
    try:
        links = path.stat().st_nlink
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnusable(f"`{path}` cannot be examined: {(error.strerror or 'unknown reason').lower()}") from None
    if links > 1:
        raise StoreUnusable(f"`{path}` has {links} names (hard links): remove all but one, and keep the one with the `-wal` file beside it")
