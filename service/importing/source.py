"""Input of an import: a byte stream with its first bytes peeked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from ras_triage.models.formats.json_text import BYTE_ORDER_MARK
from ras_triage.service.api.problems import ProblemError, too_large
from ras_triage.service.importing.format_detection import HEAD_BYTES

MAX_LINE_BYTES: Final = 256 << 10
"""Longest line, in bytes; longer ones are truncated."""

MAX_DOCUMENT_BYTES: Final = 16 << 20
"""Longest file that is read into memory, in bytes."""

_PIECE: Final = 256 << 10


class ImportSource:
    """A file, standard input or a request body, read once from the start."""

    def __init__(
        self,
        stream: BinaryIO,
        path: str | None = None,
        taken: Callable[[int], None] = lambda _size: None,
        max_database_bytes: int = 1 << 40,
        text_field: str | None = None,
    ) -> None:
        """`path`: path of a file; None: a stream. `taken` is called with the number of bytes of each read.

        `text_field`: the JSON field with the lines of a collected log; None: known ones.
        """
        self.text_field = text_field
        self._stream = stream
        self._path = path
        self._taken = taken
        self._max_database_bytes = max_database_bytes
        self.head = self._read_head()
        """First bytes."""
        self.is_whole = len(self.head) < HEAD_BYTES
        """Whether `head` is the whole input."""

    @property
    def name(self) -> str | None:
        """Return the name of the file without its folder; None for a stream."""
        return None if self._path is None else Path(self._path).name

    def _read_head(self) -> bytes:
        pieces: list[bytes] = []
        left = HEAD_BYTES
        while left and (piece := self._stream.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def read_all(self) -> bytes:
        """Return the whole input. Raises ProblemError if it is too long."""
        rest = b"" if self.is_whole else self._stream.read(MAX_DOCUMENT_BYTES + 1 - len(self.head))
        data = self.head + rest
        self._taken(len(data))
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ProblemError(too_large(MAX_DOCUMENT_BYTES))
        return data

    def lines(self) -> Iterator[bytes]:
        """Return the lines with their ends; long lines are truncated."""
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
        """Return the path of a file with the content. Raises ProblemError if it is too long for a temporary file."""
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
