"""ACPI Hardware Error Source Table (HEST, ACPI 6.5 18.3.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.encoded_bytes import unpack_text
from ras_triage.models.notification import Notification
from ras_triage.models.records.error_source import ErrorSource, GenericAddress, HardwareNotification, SourceType
from ras_triage.models.scalars import AmbiguousEncoding

SIGNATURE = b"HEST"
HEADER_LENGTH = 40
"""Bytes of the ACPI table header and the error source count after it."""
BANK_LENGTH = 28
"""Bytes of a machine check bank structure (ACPI 6.5 18.3.2.1.1)."""
NO_RELATED_SOURCE = 0xFFFF

_HEADER = struct.Struct("<4sI28xI")
_SOURCE = struct.Struct("<HH")
_ADDRESS = struct.Struct("<BBBBQ")
_GENERIC = struct.Struct("<HHHBBIII12s28sI")
_GENERIC_V2 = struct.Struct("<12sQQ")
_NOTIFICATION = struct.Struct("<BBHIIIIII")


_LENGTHS = {
    SourceType.IA32_MACHINE_CHECK: 40,
    SourceType.IA32_CORRECTED_MACHINE_CHECK: 48,
    SourceType.IA32_NMI: 20,
    SourceType.AER_ROOT_PORT: 48,
    SourceType.AER_ENDPOINT: 44,
    SourceType.AER_BRIDGE: 56,
    SourceType.GENERIC: 64,
    SourceType.GENERIC_V2: 92,
    SourceType.IA32_DEFERRED_MACHINE_CHECK: 48,
}
"""Bytes of each structure without its banks (`hest_esrc_len_tab`, Linux 6.12, and actbl1.h)."""
_BANK_COUNTS = {
    SourceType.IA32_MACHINE_CHECK: 32,
    SourceType.IA32_CORRECTED_MACHINE_CHECK: 44,
    SourceType.IA32_DEFERRED_MACHINE_CHECK: 44,
}
"""Offset of the bank count, in bytes from the start of the structure."""
_FIRST_WITH_LENGTH = 12
"""First source type whose second field is the length of the structure (ACPI 6.5 18.3.2.11)."""
_NOTIFICATIONS = {SourceType.IA32_CORRECTED_MACHINE_CHECK: 16, SourceType.IA32_DEFERRED_MACHINE_CHECK: 16}


def unpack_table(data: bytes) -> bytes:
    """Decode `data` if it is the hexadecimal or base64 of a HEST; otherwise return it unchanged."""
    try:
        unpacked = unpack_text(data, is_table, "a HEST")
    except AmbiguousEncoding:
        return data
    return unpacked if unpacked is not None and is_table(unpacked) else data


def is_table(data: bytes) -> bool:
    """Return whether the bytes begin with the signature of a HEST."""
    return data.startswith(SIGNATURE)


def read_hest(data: bytes) -> tuple[ErrorSource, ...]:
    """Parse the error sources of a table, in order. Bytes after the table are ignored, the checksum is not verified.

    Raises MalformedBytes with offset, index of the source and field.
    """
    count, end = _read_header(data)
    sources: list[ErrorSource] = []
    offset = HEADER_LENGTH
    for index in range(count):
        source = _read_source(data, offset, end, index)
        sources.append(source)
        offset += source.length
    return tuple(sources)


def _read_header(data: bytes) -> tuple[int, int]:
    if data[:4] != SIGNATURE[: len(data)]:
        raise MalformedBytes("unknown signature; expected `HEST`", offset=0, field="signature")
    if len(data) < HEADER_LENGTH:
        raise MalformedBytes(
            f"the table ends after {len(data)} bytes, within its header of {HEADER_LENGTH}", offset=len(data), field="header"
        )
    _, length, count = _HEADER.unpack_from(data)
    if not HEADER_LENGTH <= length <= len(data):
        raise MalformedBytes(f"the stated length is {length} bytes, the input has {len(data)}", offset=4, field="length")
    return count, length


def _read_source(data: bytes, offset: int, end: int, index: int) -> ErrorSource:
    if offset + _SOURCE.size > end:
        raise MalformedBytes(
            f"the error source begins at byte {offset}, and the table ends at byte {end}",
            offset=36,
            field="error_source_count",
            section=index,
        )
    kind, second = _SOURCE.unpack_from(data, offset)
    length = _source_length(data, offset, end, index)
    if offset + length > end:
        raise MalformedBytes(
            f"an error source of type {kind} needs {length} bytes; {end - offset} are left", offset=offset, field="type", section=index
        )
    if kind in (SourceType.GENERIC, SourceType.GENERIC_V2):
        return _read_generic(data, offset, length)
    if kind >= _FIRST_WITH_LENGTH:
        return ErrorSource(offset, length, kind, None)
    has_flags = kind != SourceType.IA32_NMI
    return ErrorSource(
        offset,
        length,
        kind,
        second,
        flags=data[offset + 6] if has_flags else None,
        enabled=bool(data[offset + 7]) if has_flags else None,
        notification=_read_notification(data, offset + at) if (at := _NOTIFICATIONS.get(SourceType(kind))) else None,
    )


def _source_length(data: bytes, offset: int, end: int, index: int) -> int:
    kind, second = _SOURCE.unpack_from(data, offset)
    if kind >= _FIRST_WITH_LENGTH:
        if second < _SOURCE.size:
            raise MalformedBytes(
                f"the error source of type {kind} has a stated length of {second} bytes, less than its header",
                offset=offset + 2,
                field="length",
                section=index,
            )
        return int(second)
    if kind not in _LENGTHS:
        raise MalformedBytes(f"unknown error source type {kind}", offset=offset, field="type", section=index)
    banks_at = _BANK_COUNTS.get(kind)
    if banks_at is None or offset + banks_at >= end:
        return _LENGTHS[kind]
    return _LENGTHS[kind] + BANK_LENGTH * data[offset + banks_at]


def _read_generic(data: bytes, offset: int, length: int) -> ErrorSource:
    kind, source_id, related, flags, enabled, _, _, _, address, _, block_length = _GENERIC.unpack_from(data, offset)
    ack, preserve, write = _GENERIC_V2.unpack_from(data, offset + _GENERIC.size) if kind == SourceType.GENERIC_V2 else (None, None, None)
    return ErrorSource(
        offset,
        length,
        kind,
        source_id,
        related_source_id=None if related == NO_RELATED_SOURCE else related,
        flags=flags,
        enabled=bool(enabled),
        notification=_read_notification(data, offset + 32),
        error_block_length=block_length,
        error_status_address=GenericAddress(*_ADDRESS.unpack(address)),
        read_ack=None if ack is None else GenericAddress(*_ADDRESS.unpack(ack)),
        read_ack_preserve=preserve,
        read_ack_write=write,
    )


def _read_notification(data: bytes, offset: int) -> HardwareNotification:
    number, _, _, poll, vector, *_ = _NOTIFICATION.unpack_from(data, offset)
    return HardwareNotification(number, poll, vector)


def notifications(sources: Iterable[ErrorSource]) -> dict[int, Notification]:
    """Return the notification of each generic error source by its id, as used in an event.

    A source with an unknown notification type is omitted. Of two sources with the same id the first is used.
    """
    found: dict[int, Notification | None] = {}
    for source in sources:
        if source.source_id is not None and source.notification is not None and source.ghes_version is not None:
            found.setdefault(source.source_id, source.to_notification())
    return {source_id: notification for source_id, notification in found.items() if notification is not None}
