"""Bytes encoded as text: hexadecimal, base64 and memory dumps."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable

from ras_triage.models.scalars import decode_base64, decode_text

_HEX = re.compile(rb"(?:0[xX])?(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]+={0,2}")
_ADDRESS = re.compile(rb"^[0-9a-fA-Fx]{4,18}:", re.MULTILINE)
_COMMENT = re.compile(rb"^[ \t]*#[^\n]*$", re.MULTILINE)
_WORD = re.compile(rb"(?:0[xX])?([0-9a-fA-F]{8})")


def is_encoded(data: bytes) -> bool:
    """Return whether text can be hexadecimal or base64. White space and lines that begin with `#` are ignored."""
    packed = _pack(data)
    return _HEX.fullmatch(packed) is not None or (_BASE64.fullmatch(packed) is not None and len(packed) % 4 == 0)


def unpack_text(data: bytes, is_plausible: Callable[[bytes], bool], noun: str) -> bytes | None:
    """Decode hexadecimal or base64 text as `decode_text` does; return None if it is neither.

    White space and lines that begin with `#` are ignored. Raises AmbiguousEncoding.
    """
    return decode_text(_pack(data).decode(), is_plausible, noun) if is_encoded(data) else None


def _pack(data: bytes) -> bytes:
    return b"".join(_COMMENT.sub(b"", data).split())


def unpack_words(data: bytes) -> bytes | None:
    """Decode a memory dump of 32-bit little-endian words, as printed by QEMU's `xp /24xw`; return None for any other text.

    Addresses before a colon and lines that begin with `#` are ignored.
    """
    words = [_WORD.fullmatch(word) for word in _ADDRESS.sub(b"", _COMMENT.sub(b"", data)).split()]
    if not words or not all(words):
        return None
    return b"".join(binascii.unhexlify(word[1])[::-1] for word in words if word)


def unpack_base64(text: str) -> bytes:
    """Decode base64 that may contain white space, as other tools write it in JSON documents. Raises ValueError."""
    data: bytes = decode_base64("".join(text.split()))
    return data
