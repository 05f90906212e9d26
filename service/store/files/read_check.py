"""Read check: distinguishes a failing disk from corrupt data.

SQLite reports a failed read (EIO) as corruption: "database disk image is malformed". Corruption is permanent, a read error may be
temporary, and only reading the file distinguishes them.
"""

from __future__ import annotations

import os
from threading import Lock, Thread
from time import monotonic
from typing import Final

_CHUNK: Final = 1 << 20
_VALID_S: Final = 1.0
_VALID_TIMES: Final = 10
"""A result is valid for 10 times the duration of the check, at least a second: at most a tenth of the time is spent here."""

UNKNOWN: Final = "the disk may have failed: a check of the database file is running"


class ReadCheck:
    """Reads the database and its log after a suspicious error."""

    def __init__(self, database: int, log_path: str) -> None:
        """`database`: an open descriptor. Closing another one would drop the POSIX locks of this process on the file."""
        self._database = database
        self._log_path = log_path
        self._lock = Lock()
        self._thread: Thread | None = None
        self._result: str | None = None
        self._valid_until = 0.0
        self._closed = False

    def failure(self, timeout_s: float | None) -> str | None:
        """Return why the file cannot be read; None: it can. Waits at most `timeout_s` for the result; None: without limit."""
        with self._lock:
            if monotonic() < self._valid_until:
                return self._result
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._check, name="store-read-check", daemon=True)
                self._thread.start()
            thread = self._thread
        thread.join(timeout_s)
        return UNKNOWN if thread.is_alive() else self._result

    def _check(self) -> None:
        began = monotonic()
        try:
            self._read_all(self._database)
            if os.path.exists(self._log_path):
                with open(self._log_path, "rb") as log:
                    self._read_all(log.fileno())
            result = None
        except OSError as error:
            result = f"the disk failed a read: {(error.strerror or 'unknown reason').lower()}"
        with self._lock:
            self._result = result
            self._valid_until = monotonic() + max(_VALID_S, _VALID_TIMES * (monotonic() - began))

    def _read_all(self, handle: int) -> None:
        offset = 0
        while not self._closed and (data := os.pread(handle, _CHUNK, offset)):
            offset += len(data)

    def close(self) -> None:
        """Stop reading; the descriptor may be closed afterwards."""
        self._closed = True
        if self._thread is not None:
            self._thread.join()
