"""What is imported: a stream of bytes of which the beginning was looked at."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import BinaryIO, Final

from ras_triage.models.formats.json_text import BYTE_ORDER_MARK
from ras_triage.service.api.problems import ProblemError, too_large
from ras_triage.service.importing.format_detection import HEAD_BYTES

MAX_LINE_BYTES: Final = 256 << 10
"""A longer line is cut."""

MAX_DOCUMENT_BYTES: Final = 16 << 20
"""Longest file that has to be held as a whole."""

_PIECE: Final = 256 << 10


class ImportSource:
    """A file, standard input, or a request's body; it is read once, from its beginning."""

    def __init__(
        self,
        stream: BinaryIO,
        path: str | None = None,
        taken: Callable[[int], None] = lambda _size: None,
        max_database_bytes: int = 1 << 40,
    ) -> None:
        """`path`: where the file is, if it is one. `taken` hears how many more bytes were read."""
        self._stream = stream
        self._path = path
        self._taken = taken
        self._max_database_bytes = max_database_bytes
        self.head = self._read_head()
        """How it begins."""
        self.is_whole = len(self.head) < HEAD_BYTES
        """Whether that is all."""

    def _read_head(self) -> bytes:
        pieces: list[bytes] = []
        left = HEAD_BYTES
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def everything(self) -> bytes:
        """All of it. Raises Refused where it is longer than may be held."""
        rest = b"" if self.is_whole else self._stream.read(MAX_DOCUMENT_BYTES + 1 - len(self.head))
        data = self.head + rest
        self._taken(len(data))
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ProblemError(too_large(MAX_DOCUMENT_BYTES))
        return data

    def lines(self) -> Iterator[bytes]:
        """Its lines with their ends; what is too long of one is left out."""
        head = BytesIO(self.head)
        head.seek(len(BYTE_ORDER_MARK) if self.head.startswith(BYTE_ORDER_MARK) else 0)
        while line := head.readline():
            if not self.is_whole and head.tell() == len(self.head) and not line.endswith(b"\n"):
                line += self._stream.readline(MAX_LINE_BYTES)
            yield self._cut(line)
        if not self.is_whole:
            while line := self._stream.readline(MAX_LINE_BYTES):
                yield self._cut(line)

    def _cut(self, line: bytes) -> bytes:
        self._taken(len(line))
        if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := self._stream.readline(_PIECE)) and not rest.endswith(b"\n"):
                self._taken(len(rest))
            return line + b"\n"
        return line

    @contextmanager
    def file(self) -> Iterator[str]:
        """The path of a file with its content. Raises Refused where it is longer than may be put on disk."""
        if self._path is not None:
            yield self._path
            return
        with tempfile.NamedTemporaryFile(prefix="ras-triage-") as spooled:
            piece, size = self.head, 0
            while piece:
                self._taken(len(piece))
                size += len(piece)
                if size > self._max_database_bytes:
                    raise ProblemError(too_large(self._max_database_bytes))
                spooled.write(piece)
                piece = b"" if self.is_whole else self._stream.read(_PIECE)
            spooled.flush()
            yield spooled.name
