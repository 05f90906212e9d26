"""Whether a database file can be read at all, found out by reading it.

SQLite reports a read that the disk failed (EIO) as damage: "database disk image is malformed". What is damaged stays so, while a disk may
answer later, and only reading the file tells one from the other.
"""

from __future__ import annotations

import os
from threading import Lock, Thread
from time import monotonic
from typing import Final

_CHUNK: Final = 1 << 20
_STANDS_S: Final = 1.0
_STANDS_TIMES: Final = 10
"""A verdict stands for so many times what it took, and a second at least: however many failures come, a tenth of the time goes here."""

UNKNOWN: Final = "the disk may have failed: the database file is being read to find out"


class ReadCheck:
    """Reads the database and its log when they are suspected."""

    def __init__(self, database: int, log_path: str) -> None:
        """`database`: an open descriptor. Closing another one would drop the locks of this process on the file (POSIX)."""
        self._database = database
        self._log_path = log_path
        self._lock = Lock()
        self._thread: Thread | None = None
        self._verdict: str | None = None
        self._stands_until = 0.0
        self._closed = False

    def failure(self, patience_s: float | None) -> str | None:
        """Return why the file cannot be read, None where all of it can. Waits so many seconds to find out; None: until it is found."""
        with self._lock:
            if monotonic() < self._stands_until:
                return self._verdict
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._find_out, name="store-read-check", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(patience_s)
        return UNKNOWN if thread.is_alive() else self._verdict

    def _find_out(self) -> None:
        began = monotonic()
        try:
            self._read_all(self._database)
            if os.path.exists(self._log_path):
                with open(self._log_path, "rb") as log:
                    self._read_all(log.fileno())
            verdict = None
        except OSError as error:
            verdict = f"the disk failed a read: {(error.strerror or 'unknown reason').lower()}"
        with self._lock:
            self._verdict = verdict
            self._stands_until = monotonic() + max(_STANDS_S, _STANDS_TIMES * (monotonic() - began))

    def _read_all(self, handle: int) -> None:
        offset = 0
        while not self._closed and (data := os.pread(handle, _CHUNK, offset)):
            offset += len(data)

    def close(self) -> None:
        """Stop reading; the descriptor may be closed then."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()
