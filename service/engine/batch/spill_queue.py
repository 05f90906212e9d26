"""Results on their way to a client that reads as it pleases: a little in memory, the rest on disk.

Many clients send everything before they read anything. If results waited in memory for them, a large batch would fill it; if the
service waited for them, both would wait for ever.
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
"""Bytes that are held in memory."""

PIECE: Final = 64 << 10
"""Bytes that are read from disk at a time."""


class SpillQueue:
    """A queue of bytes between one writer and one reader."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes that may wait before the writer does."""
        self._limit = limit
        self._pieces: deque[bytes] = deque()
        self._unsent = b""
        """A piece that was taken, and whose sending did not end."""
        self._file: FileIO | None = None
        self._read_at = self._write_at = 0
        self._changed = asyncio.Event()
        self._told = False
        """Whether the log knows that the disk is full."""
        self.closed = False
        """Whether nothing more will be put."""
        self.waiting = 0
        """Bytes put and not taken."""

    async def put(self, data: bytes) -> None:
        """Add bytes, once there is room for them."""
        while not self._holds(data):
            self._changed.clear()
            await self._changed.wait()
        self.waiting += len(data)
        self._changed.set()

    def _holds(self, data: bytes) -> bool:
        """Hold bytes if there is room for them, and say whether there was. A disk that takes no more is as good as a limit."""
        if self._file is None and (not self.waiting or self.waiting + len(data) <= IN_MEMORY):
            self._pieces.append(data)
            return True
        if self.waiting + len(data) > self._limit:
            return False
        try:
            self._write(data)
        except OSError as error:
            if not self._told:
                logs.log(logging.WARNING, "no room for results", reason=str(error))
            self._told = True
            return False
        return True

    def _write(self, data: bytes) -> None:
        """Unbuffered: what a full disk took in part is written over. Raises OSError."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="ras-triage-", buffering=0)  # noqa: SIM115 - it lasts until it was read
        written = 0
        while written < len(data):
            self._file.seek(self._write_at + written)
            written += self._file.write(data[written:])
        self._write_at += written

    def close(self) -> None:
        """Put nothing more."""
        self.closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """The next bytes; none at the end."""
        while not self.waiting and not self.closed:
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft() if self._pieces else self._read()
        self.waiting -= len(piece)
        self._changed.set()
        return piece

    async def drain(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send everything, to the end. What could not be sent because the task was cancelled is sent first the next time."""
        while piece := self._unsent or await self.take():
            self._unsent = piece
            await send(piece)
            self._unsent = b""

    async def news(self, seconds: float) -> None:
        """Wait until something was put or taken, or that long."""
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
        """Let go of the file, and of what is in it."""
        if self._file is not None:
            self._file.close()
        self._file, self._read_at, self._write_at = None, 0, 0
