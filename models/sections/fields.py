"""Field types of CPER records, data entries and sections."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import IntFlag
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, StringConstraints, WithJsonSchema

from ras_triage.models.errors import suggestion
from ras_triage.models.records.guid import guid, guid_text
from ras_triage.models.scalars import decode_bytes, encode_base64
from ras_triage.models.severity import Severity
from ras_triage.models.times import to_utc, utc_text

GUID_BYTES = 16
TIMESTAMP_BYTES = 8


class EntryFlag(IntFlag):
    """Flags of a data entry or section descriptor (ACPI 6.5 table 18.12, UEFI 2.10 N.2.2)."""

    PRIMARY = 1 << 0
    CONTAINMENT_WARNING = 1 << 1
    """The error was not contained: it may have reached storage or the network."""
    RESET = 1 << 2
    """The component was reset and must be initialised again."""
    THRESHOLD_EXCEEDED = 1 << 3
    """Corrected errors passed a threshold: stop using the resource."""
    RESOURCE_NOT_ACCESSIBLE = 1 << 4
    LATENT_ERROR = 1 << 5
    """The error has not been consumed."""
    PROPAGATED = 1 << 6
    OVERFLOW = 1 << 7
    """Further errors of this kind were not logged."""


_FLAG_NAMES = {flag.name.lower(): flag.value for flag in EntryFlag if flag.name}
_SEVERITY_NAMES = {severity.name.lower(): severity.value for severity in Severity}
_SEVERITY_TEXTS = {value: name for name, value in _SEVERITY_NAMES.items()}


def flag_names(value: int) -> list[str]:
    """Return the names of the flags that are set in the low 8 bits, lowest bit first."""
    return [name for name, bit in _FLAG_NAMES.items() if value & bit]


def _parse_severity(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected the name or number of a severity, not a boolean")
    if isinstance(value, str):
        if value not in _SEVERITY_NAMES:
            raise ValueError(
                f"unknown severity `{value}`; expected one of {', '.join(_SEVERITY_NAMES)}, or a number{suggestion(value, _SEVERITY_NAMES)}"
            )
        return _SEVERITY_NAMES[value]
    return value


def _severity_json(value: int) -> str | int:
    return _SEVERITY_TEXTS.get(value, value)


def _parse_flags(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a list of flag names, not a boolean")
    if not isinstance(value, (list, tuple)):
        return value
    flags = 0
    for name in value:
        if not isinstance(name, str) or name not in _FLAG_NAMES:
            raise ValueError(f"unknown flag `{name}`; expected any of {', '.join(_FLAG_NAMES)}")
        flags |= _FLAG_NAMES[name]
    return flags


def _parse_guid(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return guid(value)
        except ValueError:
            raise ValueError(f"`{value}` is not a GUID") from None
    return value.bytes_le if isinstance(value, UUID) else value


def _require_latin1(value: str) -> str:
    if any(ord(character) > 0xFF for character in value):
        raise ValueError("expected characters of one byte only (U+0000 to U+00FF)")
    return value


SeverityCode = Annotated[
    int,
    Field(ge=0, lt=1 << 32),
    BeforeValidator(_parse_severity),
    PlainSerializer(_severity_json, return_type=str | int, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "enum": list(_SEVERITY_NAMES)}, {"type": "integer", "minimum": 0}]}),
]
"""32-bit CPER severity: its name, or the number of an unknown one."""

EntryFlags = Annotated[
    int,
    Field(ge=0, lt=1 << 8),
    BeforeValidator(_parse_flags),
    PlainSerializer(flag_names, return_type=list[str], when_used="json"),
    WithJsonSchema({"type": "array", "items": {"type": "string", "enum": list(_FLAG_NAMES)}}),
]
"""8 bits of `EntryFlag`; a list of names in JSON."""

GuidValue = Annotated[
    bytes,
    Field(min_length=GUID_BYTES, max_length=GUID_BYTES),
    BeforeValidator(_parse_guid),
    PlainSerializer(guid_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
"""16 bytes in record order; the text of the GUID in JSON."""

Latin1 = Annotated[str, AfterValidator(_require_latin1)]
"""Text of a NUL-padded field, without the padding. One character is one byte (ISO 8859-1), so that any content is preserved."""

FruText = Annotated[Latin1, StringConstraints(max_length=20)]
"""20 bytes of FRU text."""

NO_TIMESTAMP = bytes(TIMESTAMP_BYTES)
_PRECISE = 1
_FLAG_BYTE = 3
_RAW_TIMESTAMP = re.compile(r"[A-Za-z0-9+/]{11}=|0[xX][0-9a-fA-F]{16}")


def encode_timestamp(moment: datetime) -> bytes:
    """Return 8 bytes of BCD, in UTC and not marked precise (UEFI 2.10 N.2.1, timestamp). Raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("expected a time with a time zone and whole seconds")
    moment = to_utc(moment)
    if moment.microsecond:
        raise ValueError("expected a time with a time zone and whole seconds")
    century, year = divmod(moment.year, 100)
    return bytes(_bcd(number) for number in (moment.second, moment.minute, moment.hour, 0, moment.day, moment.month, year, century))


def read_timestamp(value: bytes) -> datetime | None:
    """Return the time of 8 bytes of BCD, ignoring the flag byte; None if they are not a date."""
    if any(byte & 0xF > 9 or byte >> 4 > 9 for byte in value[:3] + value[4:]):
        return None
    second, minute, hour, _, day, month, year, century = ((byte >> 4) * 10 + (byte & 0xF) for byte in value)
    try:
        return datetime(century * 100 + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _bcd(number: int) -> int:
    return number // 10 << 4 | number % 10


def split_timestamp(value: bytes) -> tuple[bytes, bool]:
    """Return the 8 bytes with bit 0 of the flag byte cleared, and that bit: whether the time is precise."""
    flags = value[_FLAG_BYTE]
    return value[:_FLAG_BYTE] + bytes([flags & ~_PRECISE]) + value[_FLAG_BYTE + 1 :], bool(flags & _PRECISE)


def join_timestamp(value: bytes, *, is_precise: bool) -> bytes:
    """Return the 8 bytes with bit 0 of the flag byte set if the time is precise."""
    return value[:_FLAG_BYTE] + bytes([value[_FLAG_BYTE] | is_precise]) + value[_FLAG_BYTE + 1 :]


def timestamp_text(value: bytes) -> str:
    """Return RFC 3339 text in UTC if the 8 bytes are a date with a clear flag byte, else their base64."""
    moment = read_timestamp(value) if value[_FLAG_BYTE] == 0 else None
    return encode_base64(value) if moment is None else utc_text(moment)


def _parse_timestamp(value: Any) -> Any:
    if isinstance(value, str):
        if _RAW_TIMESTAMP.fullmatch(value):
            return decode_bytes(value)
        try:
            return encode_timestamp(datetime.fromisoformat(value))
        except ValueError as error:
            raise ValueError(f"`{value}` is neither an RFC 3339 time nor base64 of 8 bytes: {error}") from None
    return encode_timestamp(value) if isinstance(value, datetime) else value


Timestamp = Annotated[
    bytes,
    Field(min_length=TIMESTAMP_BYTES, max_length=TIMESTAMP_BYTES),
    BeforeValidator(_parse_timestamp),
    PlainSerializer(timestamp_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "description": "RFC 3339, or base64 of the 8 bytes if they are not a date"}),
]
"""8 bytes: seconds, minutes, hours, flags (bit 0 precise), day, month, year, century, in BCD."""
