"""What the bytes are that somebody hands over: an event, a status block or a CPER record, packed or as text."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ras_triage.models.formats.encoded_bytes import unpack_text
from ras_triage.models.records.cper_record import SIGNATURE


class InputKind(Enum):
    """What bytes can be."""

    JSON = "json"
    RECORD = "record"
    STATUS_BLOCK = "status_block"


@dataclass(frozen=True, slots=True)
class DetectedInput:
    """The bytes themselves, text encodings undone, and what they are."""

    kind: InputKind
    data: bytes


def detect_input(data: bytes) -> DetectedInput:
    """Tell by the content. Whatever is nothing else is a status block: one may begin with any bytes."""
    text = data.strip()
    if text.startswith(b"{") and b"\0" not in text:
        return DetectedInput(InputKind.JSON, data)
    return detect_bytes(unpack_text(text) or data)


def detect_bytes(data: bytes) -> DetectedInput:
    """A CPER record begins with its signature (UEFI 2.10 table N.1), a status block does not."""
    return DetectedInput(InputKind.RECORD if data.startswith(SIGNATURE) else InputKind.STATUS_BLOCK, data)
