"""High-water mark: what was committed last, kept in a file beside the database.

A write-ahead log that was removed or cut leaves a sound database without its last commits. The mark tells: it is written after each
commit, so the database is never behind it unless something was lost. It is not synchronised with the disk for each commit: after a kill
it is exact, after a loss of power it may be some seconds behind.
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
"""Each of the two records has a sector of its own: one is written by the service alone, the other by commands beside it too."""
_LENGTH: Final = _RECORD.size + _CHECKSUM.size


@frozen
class Mark:
    """What a store had committed."""

    store_id: bytes
    """16 bytes."""
    sequence: int
    """Of the newest decision."""
    changes: int
    """Commits of anything else."""


def mark_path(path: Path) -> str:
    """The file of a store's mark, by whichever name the store is called."""
    return f"{os.path.realpath(path)}{SUFFIX}"


def read_mark(path: Path) -> Mark | None:
    """The mark of the store at `path`; None where there is none that can be read."""
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
    """The mark of a store that is open for writing."""

    def __init__(self, path: str, store_id: bytes, handle: int) -> None:
        self.path, self._store_id, self._handle = path, store_id, handle

    @classmethod
    def create(cls, path: Path, mark: Mark) -> MarkFile:
        """Create it for the store at `path`, or set it to `mark`. Raises OSError."""
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
    def existing(cls, path: Path, store_id: bytes) -> MarkFile | None:
        """The one of the store at `path`, for a command beside its service; None where there is none."""
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
        """The newest decision is durable. A mark that cannot be written stays behind, and then tells less."""
        with suppress(OSError):
            os.pwrite(self._handle, self._pack(sequence), 0)

    def set_changes(self, changes: int) -> None:
        """So are this many other commits."""
        with suppress(OSError):
            os.pwrite(self._handle, self._pack(changes), _SECTOR)

    def is_there(self) -> bool:
        """Whether its path still names it."""
        try:
            found, held = os.stat(self.path), os.fstat(self._handle)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)

    def close(self) -> None:
        """Close the file; it stays."""
        os.close(self._handle)
