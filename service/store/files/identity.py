"""Identity of the open database files, compared with what their paths name.

SQLite goes on writing to a file that was deleted or replaced, and what it writes there is gone when it closes the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, time_ns
from typing import Final, NamedTuple

from ras_triage.service.store.port import StoreUnavailable, StoreUnusable

CHECK_S: Final = 0.25
"""Seconds for which a check of each file stands where there are many to make."""

_SETTLED_NS: Final = 100_000_000
"""Age from which on a folder's time of change tells a later change from it. The kernel's clock for it ticks every few milliseconds."""


class _OpenFile(NamedTuple):
    name: str
    """As messages call it."""
    path: str
    device: int
    inode: int


class OpenFiles:
    """The database, its write-ahead log and its shared memory, as they were when a connection had just opened them."""

    def __init__(self, path: Path) -> None:
        """Raises StoreUnavailable where one of them is not there."""
        self._database = str(path)
        real = os.path.realpath(path)
        self.log_path = log_path(path)
        named = (("database file", str(path)), ("write-ahead log", self.log_path), ("shared memory file", f"{real}-shm"))
        self._files: Sequence[_OpenFile] = [_open_file(name, file) for name, file in named]
        self._folder = os.path.dirname(real)
        self._is_link = real != os.path.abspath(path)
        self._folder_state: tuple[int, int, int] | None = None
        """Device, inode and time of change when the files were compared; None: it would not tell a later change."""
        self._checked = 0.0
        self.check()

    def check(self) -> None:
        """Compare. Raises StoreUnavailable where a path names another file or none, or the database has a second name.

        Inode numbers are not given to other files while these are open.
        """
        self._checked = 0.0
        folder = _folder_state(self._folder)  # first: what changes from now on changes it
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
        """Compare the folder, whose time of change tells that a file in it was deleted, replaced or renamed. Raises StoreUnavailable.

        Each system call gives the interpreter away, and a commit waits to have it back. What the folder does not tell, a hard link from
        elsewhere, is found a moment later.
        """
        if monotonic() - self._checked > CHECK_S or self._folder_state is None or _folder_state(self._folder) != self._folder_state:
            self.check()

    def check_sometimes(self) -> bool:
        """Compare, unless that was done a moment ago; whether it was done. Raises StoreUnavailable."""
        if monotonic() - self._checked <= CHECK_S:
            return False
        self.check()
        return True


def log_path(path: Path) -> str:
    """The write-ahead log of a database, by whichever name that is called."""
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
    """Raises StoreUnusable for a file with a second name: by each name it would have a write-ahead log of its own."""
    try:
        links = path.stat().st_nlink
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreUnusable(f"`{path}` cannot be examined: {(error.strerror or 'unknown reason').lower()}") from None
    if links > 1:
        raise StoreUnusable(f"`{path}` has {links} names (hard links): remove all but one, and keep the one with the `-wal` file beside it")
