"""Bytes encoded as text: hexadecimal, base64 and memory dumps."""

from __future__ import annotations

import base64
import binascii
import re

_HEX = re.compile(rb"(?:0[xX])?(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]+={0,2}")
_ADDRESS = re.compile(rb"^[0-9a-fA-Fx]{4,18}:", re.MULTILINE)
_COMMENT = re.compile(rb"^[ \t]*#[^\n]*$", re.MULTILINE)
_WORD = re.compile(rb"(?:0[xX])?([0-9a-fA-F]{8})")


def unpack_text(data: bytes) -> bytes | None:
    """Decode hexadecimal or base64 text; return None if it is neither.

    White space and lines that begin with `#` are ignored.
    """
    packed = b"".join(_COMMENT.sub(b"", data).split())
    if _HEX.fullmatch(packed):
        return binascii.unhexlify(packed[2:] if packed[:2].lower() == b"0x" else packed)
    if _BASE64.fullmatch(packed) and len(packed) % 4 == 0:
        return base64.b64decode(packed)
    return None


def unpack_words(data: bytes) -> bytes | None:
    """Decode a memory dump of 32-bit little-endian words, as printed by QEMU's `xp /24xw`; return None for any other text.

    Addresses before a colon and lines that begin with `#` are ignored.
    """
    words = [_WORD.fullmatch(word) for word in _ADDRESS.sub(b"", _COMMENT.sub(b"", data)).split()]
    if not words or not all(words):
        return None
    return b"".join(binascii.unhexlify(word[1])[::-1] for word in words if word)


def unpack_base64(text: str) -> bytes:
    """Decode base64 that may contain white space, as in JSON documents. Raises ValueError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not valid base64: {str(error).lower()}") from None
