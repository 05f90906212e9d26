"""Queue of result bytes that spills from memory to disk.

Many clients send the whole batch before they read any result. Buffering in memory would need as much memory as a large batch has results;
backpressure would be a deadlock.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import FileIO
from typing import Final

from ras_triage.service.telemetry import logs

IN_MEMORY: Final = 1 << 20
"""Bytes kept in memory."""

PIECE: Final = 64 << 10
"""Bytes read from disk at a time."""


class SpillQueue:
    """Byte queue with one writer and one reader."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes in the queue, in memory and on disk, from which `put` waits."""
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._unsent = b""
        """A piece that was taken and whose sending was cancelled."""
        self._file: FileIO | None = None
        self._read_at = self._write_at = 0
        self._changed = asyncio.Event()
        self._logged = False
        """Whether the full disk was logged."""
        self.closed = False
        """Whether the writer is done."""
        self.waiting = 0
        """Bytes in the queue."""

    async def put(self, data: bytes) -> None:
        """Add bytes; wait for room."""
        while not self._add(data):
            self._changed.clear()
            await self._changed.wait()
        self.waiting += len(data)
        self._changed.set()

    def _add(self, data: bytes) -> bool:
        """Add bytes if there is room. Return whether they were added. A full disk counts as no room."""
        if self._file is None and (not self.waiting or self.waiting + len(data) <= IN_MEMORY):
            self._pieces.append(data)
            return True
        if self.waiting + len(data) > self._limit:
            return False
        try:
            self._write(data)
        except OSError as error:
            if not self._logged:
                logs.log(logging.WARNING, "no disk space for batch results", reason=str(error))
            self._logged = True
            return False
        return True

    def _write(self, data: bytes) -> None:
        """Write to the file, unbuffered: a partial write on a full disk is overwritten later. Raises OSError."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="ras-triage-", buffering=0)  # noqa: SIM115 - closed when it was read
        written = 0
        while written < len(data):
            self._file.seek(self._write_at + written)
            written += self._file.write(data[written:])
        self._write_at += written

    def close(self) -> None:
        """End the queue: nothing more is put."""
        self.closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """Return the next bytes; empty at the end."""
        while not self.waiting and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft() if self._pieces else self._read()
        self.waiting -= len(piece)
        self._changed.set()
        return piece

    async def drain(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send everything up to the end. A piece whose sending was cancelled is sent first in the next call."""
        while piece := self._unsent or await self.take():
            self._unsent = piece
            await send(piece)
            self._unsent = b""

    async def wait_for_change(self, seconds: float) -> None:
        """Wait until something was put or taken, at most `seconds`."""
        self._changed.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        self._file.seek(self._read_at)
        piece = self._file.read(min(PIECE, self._write_at - self._read_at))
        self._read_at += len(piece)
        if self._read_at == self._write_at:
            self.discard()
        return piece

    def discard(self) -> None:
        """Close and delete the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._read_at, self._write_at = None, 0, 0
