"""Compression of stored events and decisions with Zstandard (RFC 8878)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Final

import zstandard

LEVEL: Final = 3
"""Compression level. Level 1 takes as long for texts of a few kilobytes, and gives a tenth more bytes."""

DICTIONARY: Final = 0x8001
"""Dictionary of new frames, by its id in the frame header (RFC 8878 5: ids below 0x8000 are reserved).

The files in `dictionaries/` stay for ever: stored frames need them. A better dictionary gets the next id.
"""

MAX_BYTES: Final = 1 << 30
"""Longest text, in bytes: a frame that claims more is corrupt."""

_MAGIC: Final = zstandard.FRAME_HEADER


class Compressor:
    """Compressor for one thread."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, dict_data=_dictionary(DICTIONARY))

    def compress(self, texts: Sequence[bytes]) -> list[bytes]:
        """Compress each text to a frame; empty texts alone stay as they are.

        One call for many: each call of the library releases the GIL, and then waits for it.
        """
        if not any(texts):
            return list(texts)
        frames = self._compressor.multi_compress_to_buffer(list(texts))
        return [frames[place].tobytes() for place in range(len(frames))]


def decompress(data: bytes) -> bytes:
    """Return the text of a frame; other bytes are returned unchanged: schema 2 did not compress. Raises ValueError."""
    if not data.startswith(_MAGIC):
        return data
    try:
        header = zstandard.get_frame_parameters(data)
        if header.content_size > MAX_BYTES:
            raise ValueError(f"frame claims {header.content_size} bytes, more than {MAX_BYTES}")
        return _decompressor(header.dict_id).decompress(data)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=8)
def _dictionary(number: int) -> zstandard.ZstdCompressionDict:
    """Return a dictionary. Raises ValueError."""
    try:
        data = (files("ras_triage.service.store") / "dictionaries" / f"{number:x}.dict").read_bytes()
    except OSError:
        raise ValueError(f"unknown dictionary `{number:#x}`") from None
    return zstandard.ZstdCompressionDict(data)


_of_thread = threading.local()


def _decompressor(number: int) -> zstandard.ZstdDecompressor:
    """Return the decompressor of this thread for a dictionary. Raises ValueError."""
    known: dict[int, zstandard.ZstdDecompressor] = _of_thread.__dict__.setdefault("decompressors", {})
    if number not in known:
        known[number] = zstandard.ZstdDecompressor(dict_data=_dictionary(number))
    return known[number]
