"""Length of the write-ahead log.

SQLite starts its log over when everything in it is in the database and nobody reads from it. Readers that follow one another without a
gap keep it from doing so, and the log grows without limit. Beyond a limit, new questions therefore wait until the log was emptied.
"""

from __future__ import annotations

import os
import sqlite3
from threading import Event
from time import monotonic
from typing import Final

LIMIT_BYTES: Final = 16 << 20
"""Length beyond which the log is emptied."""

_LOOK_S: Final = 0.1
_LOOK_SHARE: Final = 8
"""The length is looked at so often, or when it may have grown by this part of the limit: each look is a system call."""

_ATTEMPT_S: Final = 0.1
"""Seconds between two attempts while somebody reads."""
_PATIENCE_S: Final = 11.0
"""Seconds for which new questions wait: no question takes longer than 10. Who still reads then is not of this process."""
_REST_S: Final = 30.0
"""Seconds until the next series of attempts."""


class WriteAheadLog:
    """The log of the connection that writes."""

    def __init__(self, writer: sqlite3.Connection, path: str) -> None:
        self._writer = writer
        self._path = path
        self._open = Event()
        self._open.set()
        self._since: float | None = None
        """When new questions began to wait."""
        self._next_attempt = 0.0
        self._grown = 0
        """Bytes that were added at most since the length was looked at."""
        self._next_look = 0.0

    def grow(self, size: int) -> None:
        """So much is added at most."""
        self._grown += size

    def suspect(self) -> None:
        """Something was written of which nobody knows how much it was."""
        self._next_look = 0.0

    def size(self) -> int:
        """Bytes of the file."""
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def wait(self) -> None:
        """Before a question that may take long: wait while the log is about to be emptied."""
        self._open.wait(_PATIENCE_S)

    def keep_within(self, limit: int) -> None:
        """Empty the log if it is longer. Raises sqlite3.Error."""
        now = monotonic()
        if self._grown <= limit // _LOOK_SHARE and now < self._next_look and self._since is None:
            return
        self._grown, self._next_look = 0, now + _LOOK_S
        if self.size() <= limit:
            self._resume()
            return
        if now < self._next_attempt:
            return
        if self._since is None:
            self._since = now
            self._open.clear()
        if self.empty():
            self._resume()
        elif now - self._since > _PATIENCE_S:
            self._resume()
            self._next_attempt = now + _REST_S
        else:
            self._next_attempt = now + _ATTEMPT_S

    def _resume(self) -> None:
        self._since = None
        self._open.set()

    def empty(self) -> bool:
        """Write everything in it into the database and cut it to nothing, unless somebody reads from it. Raises sqlite3.Error."""
        self._writer.execute("PRAGMA busy_timeout = 0")
        try:
            busy: int = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self._writer.execute("PRAGMA busy_timeout = 5000")
        return not busy
