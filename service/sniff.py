"""What the bytes are that somebody hands over: an event, a status block or a CPER record, packed or as text."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import Enum

from models.cper_record import SIGNATURE

_HEX = re.compile(rb"(?:0[xX])?(?:[0-9a-fA-F]{2})+")
_BASE64 = re.compile(rb"[0-9A-Za-z+/]+={0,2}")


class Kind(Enum):
    """What bytes can be."""

    JSON = "json"
    RECORD = "record"
    STATUS_BLOCK = "status_block"


@dataclass(frozen=True, slots=True)
class Sniffed:
    """The bytes themselves, text encodings undone, and what they are."""

    kind: Kind
    data: bytes


def sniff(data: bytes) -> Sniffed:
    """Tell by the content. Whatever is nothing else is a status block: one may begin with any bytes."""
    text = data.strip()
    if text.startswith(b"{") and b"\0" not in text:
        return Sniffed(Kind.JSON, data)
    return sniff_bytes(_unpack(text) or data)


def sniff_bytes(data: bytes) -> Sniffed:
    """A CPER record begins with its signature (UEFI 2.10 table N.1), a status block does not."""
    return Sniffed(Kind.RECORD if data.startswith(SIGNATURE) else Kind.STATUS_BLOCK, data)


def _unpack(text: bytes) -> bytes | None:
    """The bytes that hexadecimal or base64 text stands for; None where it is neither."""
    packed = b"".join(text.split())
    if _HEX.fullmatch(packed):
        return binascii.unhexlify(packed[2:] if packed[:2].lower() == b"0x" else packed)
    if _BASE64.fullmatch(packed) and len(packed) % 4 == 0:
        return base64.b64decode(packed)
    return None
