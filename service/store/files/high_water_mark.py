"""High-water mark: file that records the last commit.

A write-ahead log that was removed or truncated leaves a sound database without its last commits. The mark detects this: it is written
after each commit, so that the database is behind it only if commits were lost. It is not flushed for each commit: after a kill it is
exact, after a power failure it may be some seconds behind.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final
from zlib import crc32

from ras_triage.models.frozen import frozen

SUFFIX: Final = "-mark"

_RECORD: Final = struct.Struct(">8s16sQ")
_CHECKSUM: Final = struct.Struct(">I")
_MAGIC: Final = b"RASmark1"
_SECTOR: Final = 512
"""Each of the two records has its own sector: one is written only by the service, the other also by commands."""
_LENGTH: Final = _RECORD.size + _CHECKSUM.size


@frozen
class Mark:
    """State of the last commit."""

    store_id: bytes
    """16 bytes."""
    sequence: int
    """Sequence of the newest decision."""
    changes: int
    """Number of other commits."""


def mark_path(path: Path) -> str:
    """Return the path of a store's mark file, with symbolic links resolved."""
    return f"{os.path.realpath(path)}{SUFFIX}"


def read_mark(path: Path) -> Mark | None:
    """Read the mark of the store at `path`; None: missing or unreadable."""
    try:
        data = Path(mark_path(path)).read_bytes()
    except OSError:
        return None
    first, second = _unpack(data[:_LENGTH]), _unpack(data[_SECTOR : _SECTOR + _LENGTH])
    if first is None or second is None or first[0] != second[0]:
        return None
    return Mark(first[0], first[1], second[1])


def _unpack(data: bytes) -> tuple[bytes, int] | None:
    if len(data) < _LENGTH or _CHECKSUM.unpack_from(data, _RECORD.size)[0] != crc32(data[: _RECORD.size]):
        return None
    magic, store_id, number = _RECORD.unpack_from(data)
    return (store_id, number) if magic == _MAGIC else None


class MarkFile:
    """Open mark file."""

    def __init__(self, path: str, store_id: bytes, handle: int) -> None:
        self.path, self._store_id, self._handle = path, store_id, handle

    @classmethod
    def create(cls, path: Path, mark: Mark) -> MarkFile:
        """Create or overwrite the mark file of the store at `path`. Raises OSError."""
        name = mark_path(path)
        made = cls(name, mark.store_id, os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            os.pwrite(made._handle, made._pack(mark.sequence).ljust(_SECTOR, b"\0") + made._pack(mark.changes), 0)
            os.fsync(made._handle)
        except OSError:
            made.close()
            raise
        return made

    @classmethod
    def open_existing(cls, path: Path, store_id: bytes) -> MarkFile | None:
        """Open the mark file of the store at `path`, for a command while a service runs; None: missing or of another store."""
        found = read_mark(path)
        if found is None or found.store_id != store_id:
            return None
        try:
            return cls(mark_path(path), store_id, os.open(mark_path(path), os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            return None

    def _pack(self, number: int) -> bytes:
        record = _RECORD.pack(_MAGIC, self._store_id, number)
        return record + _CHECKSUM.pack(crc32(record))

    def set_sequence(self, sequence: int) -> None:
        """Record the newest durable decision. If the mark cannot be written, it stays behind and detects less."""
        with suppress(OSError):
            os.pwrite(self._handle, self._pack(sequence), 0)

    def set_changes(self, changes: int) -> None:
        """Record the number of other durable commits."""
        with suppress(OSError):
            os.pwrite(self._handle, self._pack(changes), _SECTOR)

    def is_there(self) -> bool:
        """Return whether the path still names the open file."""
        try:
            found, held = os.stat(self.path), os.fstat(self._handle)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def close(self) -> None:
        """Close the file without deleting it."""
        os.close(self._handle)
