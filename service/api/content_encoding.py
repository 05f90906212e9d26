"""Content decoding of request bodies (RFC 9110 8.4): gzip and zstd, in chunks."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from ras_triage.service.api.problems import ProblemError, malformed_encoding, too_large, unsupported_encoding

PIECE: Final = 256 << 10
"""Largest decompressed chunk, in bytes."""

_WINDOW_LOG_MAX: Final = 23
"""Largest window of a frame: 8 MiB, which RFC 8878 3.1.1.1.2 recommends to support."""

_GZIP: Final = 16 + zlib.MAX_WBITS


class ContentDecoder(Protocol):
    """Decoder of one compressed stream, which may have several members or frames."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Decompress bytes. Raises ValueError for malformed data."""

    @property
    def complete(self) -> bool:
        """Whether the stream may end here."""


class _Gzip:
    """gzip members (RFC 1952)."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            member = self._member = self._member or zlib.decompressobj(_GZIP)
            try:
                piece = member.decompress(data, PIECE)
            except zlib.error as error:
                raise ValueError(str(error)) from None
            data = member.unused_data if member.eof else member.unconsumed_tail
            full = len(piece) == PIECE and not member.eof
            if member.eof:
                self._member = None
            if piece:
                yield piece

    @property
    def complete(self) -> bool:
        return self._member is None


class _Zstd:
    """Zstandard frames (RFC 8878)."""

    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data or (self._frame is not None and not self._frame.needs_input):
            frame = self._frame = self._frame or zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX}
            )
            try:
                piece = frame.decompress(data, PIECE)
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from None
            data = b""
            if frame.eof:
                data, self._frame = frame.unused_data, None
            if piece:
                yield piece

    @property
    def complete(self) -> bool:
        return self._frame is None


_DECODERS: Final[dict[str, Callable[[], ContentDecoder]]] = {"gzip": _Gzip, "x-gzip": _Gzip, "zstd": _Zstd}

ENCODINGS: Final = "gzip, zstd"
"""Accepted encodings, for `Accept-Encoding`."""


def decoder_for(encoding: str) -> ContentDecoder | None:
    """Return a decoder for a content encoding; None: unknown encoding."""
    found = _DECODERS.get(encoding)
    return None if found is None else found()


def require_known_encoding(encoding: str) -> None:
    """Raise ProblemError for an unknown content encoding."""
    if encoding.strip().lower() not in ("", "identity", *_DECODERS):
        raise ProblemError(unsupported_encoding(encoding, ENCODINGS), {"Accept-Encoding": ENCODINGS})


async def decoded_chunks(chunks: AsyncIterator[bytes], encoding: str, limit: int) -> AsyncIterator[bytes]:
    """Return the decoded body in chunks. Raises ProblemError: unknown encoding, malformed data, more than `limit` bytes."""
    left = limit
    async for piece in _pieces(chunks, encoding.strip().lower()):
        left -= len(piece)
        if left < 0:
            raise ProblemError(too_large(limit))
        yield piece


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces, since each has a fixed cost for the consumer."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


async def _pieces(chunks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
    if encoding in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    require_known_encoding(encoding)
    decoder = _DECODERS[encoding]()
    try:
        async for chunk in chunks:
            for piece in _joined(decoder.pieces(chunk)):
                yield piece
                await asyncio.sleep(0)  # a few bytes may expand to very many: let other requests run
    except ValueError as error:
        raise ProblemError(malformed_encoding(encoding, str(error))) from None
    if not decoder.complete:
        raise ProblemError(malformed_encoding(encoding, "unexpected end of the body"))
