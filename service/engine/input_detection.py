"""Detection of the input of `decide` and `decode`: event, block or CPER record."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ras_triage.models.formats.cper import RECORD_OR_BLOCK, is_record_or_block
from ras_triage.models.formats.encoded_bytes import unpack_text
from ras_triage.models.records.cper_record import SIGNATURE
from ras_triage.models.scalars import AmbiguousEncoding
from ras_triage.service.api.problems import ProblemError, unrecognised


class InputKind(Enum):
    """Kind of input."""

    JSON = "json"
    RECORD = "record"
    STATUS_BLOCK = "status_block"


@dataclass(frozen=True, slots=True)
class DetectedInput:
    """Detected kind and the bytes after hexadecimal or base64 decoding."""

    kind: InputKind
    data: bytes


def detect_input(data: bytes) -> DetectedInput:
    """Detect the kind of input by its content. The fallback is a status block, which may begin with any bytes.

    Raises ProblemError for text that could be hexadecimal or base64, and is a record or a status block in neither.
    """
    text = data.strip()
    if text.startswith(b"{") and b"\0" not in text:
        return DetectedInput(InputKind.JSON, data)
    try:
        return detect_bytes(unpack_text(text, is_record_or_block, RECORD_OR_BLOCK) or data)
    except AmbiguousEncoding as error:
        raise ProblemError(unrecognised(f"the text {error}")) from None


def detect_bytes(data: bytes) -> DetectedInput:
    """Distinguish a CPER record, which begins with a signature (UEFI 2.10 table N.1), from a status block."""
    return DetectedInput(InputKind.RECORD if data.startswith(SIGNATURE) else InputKind.STATUS_BLOCK, data)
