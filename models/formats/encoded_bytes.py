"""Bytes that somebody wrote down as text: hexadecimal, base64, or the 32-bit words of a memory dump."""

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
    """The bytes that hexadecimal or base64 text stands for; None where it is neither.

    White space and lines that begin with `#` are left out.
    """
    packed = b"".join(_COMMENT.sub(b"", data).split())
    if _HEX.fullmatch(packed):
        return binascii.unhexlify(packed[2:] if packed[:2].lower() == b"0x" else packed)
    if _BASE64.fullmatch(packed) and len(packed) % 4 == 0:
        return base64.b64decode(packed)
    return None


def unpack_words(data: bytes) -> bytes | None:
    """The memory that a dump of 32-bit little-endian words shows, as QEMU's `xp /24xw` prints it; None where the text is none.

    Addresses before a colon and lines that begin with `#` are left out.
    """
    words = [_WORD.fullmatch(word) for word in _ADDRESS.sub(b"", _COMMENT.sub(b"", data)).split()]
    if not words or not all(words):
        return None
    return b"".join(binascii.unhexlify(word[1])[::-1] for word in words if word)


def unpack_base64(text: str) -> bytes:
    """The bytes of base64 with white space in it, as JSON documents carry it. Raises ValueError where it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not valid base64: {str(error).lower()}") from None
