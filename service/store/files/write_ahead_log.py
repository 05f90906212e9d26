"""Length limit of the write-ahead log.

SQLite restarts its log when all of it is checkpointed and no reader uses it. Overlapping readers prevent that, and the log grows without
limit ("checkpoint starvation"). Therefore new queries wait while the log is over the limit.
"""

from __future__ import annotations

import os
import sqlite3
from threading import Event
from time import monotonic
from typing import Final

LIMIT_BYTES: Final = 16 << 20
"""Length from which the log is truncated."""

_CHECK_S: Final = 0.1
_CHECK_SHARE: Final = 8
"""Interval of the checks, and growth (as a divisor of the limit) that causes one earlier: each check is a system call."""

_ATTEMPT_S: Final = 0.1
"""Seconds between two attempts while there are readers."""
_PATIENCE_S: Final = 11.0
"""Seconds for which new queries wait: no query takes more than 10, so that a later reader is another process."""
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
        """When new queries began to wait."""
        self._next_attempt = 0.0
        self._grown = 0
        """Upper bound for the bytes added since the last check."""
        self._next_check = 0.0

    def grow(self, size: int) -> None:
        """Record that at most `size` bytes are added."""
        self._grown += size

    def grow_unknown(self) -> None:
        """Record a write of unknown size."""
        self._next_check = 0.0

    def size(self) -> int:
        """Return the length in bytes."""
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def wait(self) -> None:
        """Wait while the log is being truncated; call it before a long query."""
        self._open.wait(_PATIENCE_S)

    def keep_within(self, limit: int) -> None:
        """Truncate the log if it exceeds the limit. Raises sqlite3.Error."""
        now = monotonic()
        if self._grown <= limit // _CHECK_SHARE and now < self._next_check and self._since is None:
            return
        self._grown, self._next_check = 0, now + _CHECK_S
        if self.size() <= limit:
            self._resume()
            return
        if now < self._next_attempt:
            return
        if self._since is None:
            self._since = now
            self._open.clear()
        if self.truncate():
            self._resume()
        elif now - self._since > _PATIENCE_S:
            self._resume()
            self._next_attempt = now + _REST_S
        else:
            self._next_attempt = now + _ATTEMPT_S

    def _resume(self) -> None:
        self._since = None
        self._open.set()

    def truncate(self) -> bool:
        """Checkpoint and truncate the log. Return whether no reader prevented it. Raises sqlite3.Error."""
        self._writer.execute("PRAGMA busy_timeout = 0")
        try:
            busy: int = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        finally:
            self._writer.execute("PRAGMA busy_timeout = 5000")
        return not busy
