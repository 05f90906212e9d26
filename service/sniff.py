"""What the bytes are that somebody hands over: an event, a status block or a CPER record, packed or as text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from models.cper_record import SIGNATURE
from models.formats.text_bytes import unpack_text


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
    return sniff_bytes(unpack_text(text) or data)


def sniff_bytes(data: bytes) -> Sniffed:
    """A CPER record begins with its signature (UEFI 2.10 table N.1), a status block does not."""
    return Sniffed(Kind.RECORD if data.startswith(SIGNATURE) else Kind.STATUS_BLOCK, data)
