"""ACPI Hardware Error Source Table (HEST, ACPI 6.5 18.3.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType

SIGNATURE = b"HEST"
HEADER_LENGTH = 40
"""Bytes of the ACPI table header and the error source count after it."""
BANK_LENGTH = 28
"""Bytes of a machine check bank structure (ACPI 6.5 18.3.2.1.1)."""
NO_RELATED_SOURCE = 0xFFFF
FIRMWARE_FIRST = 1 << 0
"""Flag of a source with firmware-first error handling."""

_HEADER = struct.Struct("<4sI28xI")
_SOURCE = struct.Struct("<HH")
_ADDRESS = struct.Struct("<BBBBQ")
_GENERIC = struct.Struct("<HHHBBIII12s28sI")
_GENERIC_V2 = struct.Struct("<12sQQ")
_NOTIFICATION = struct.Struct("<BBHIIIIII")


class SourceType(IntEnum):
    """Error source types (ACPI 6.5 18.3.2). 3 to 5 are reserved and have no layout; from 12 on a structure contains its length."""

    IA32_MACHINE_CHECK = 0
    IA32_CORRECTED_MACHINE_CHECK = 1
    IA32_NMI = 2
    AER_ROOT_PORT = 6
    AER_ENDPOINT = 7
    AER_BRIDGE = 8
    GENERIC = 9
    GENERIC_V2 = 10
    IA32_DEFERRED_MACHINE_CHECK = 11


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
_NOTIFICATION_TYPES = tuple(NotificationType)


@frozen
class GenericAddress:
    """A generic address structure: 12 bytes (ACPI 6.5 5.2.3.2)."""

    space_id: int
    """u8: 0 system memory, 1 system I/O."""
    bit_width: int
    """u8"""
    bit_offset: int
    """u8"""
    access_size: int
    """u8"""
    address: int
    """u64"""


@frozen
class HardwareNotification:
    """A hardware error notification structure: 28 bytes (ACPI 6.5 18.3.2.9)."""

    number: int
    """u8, the HEST number of the notification type."""
    poll_interval_ms: int
    """u32, milliseconds."""
    vector: int
    """u32"""

    @property
    def type(self) -> NotificationType | None:
        """Return the notification type; None for an unknown number (12 and above)."""
        return _NOTIFICATION_TYPES[self.number] if self.number < len(_NOTIFICATION_TYPES) else None


@frozen
class ErrorSource:
    """One error source structure."""

    offset: int
    """Bytes from the start of the table."""
    length: int
    """Bytes, including the banks."""
    type: int
    """u16, see `SourceType`."""
    source_id: int | None
    """u16; None from type 12 on, whose layout does not define its position."""
    related_source_id: int | None = None
    """u16; None if there is none."""
    flags: int | None = None
    """u8, see `FIRMWARE_FIRST`."""
    enabled: bool | None = None
    notification: HardwareNotification | None = None
    error_block_length: int | None = None
    """u32, bytes; generic sources only."""
    error_status_address: GenericAddress | None = None
    """Location of the status block address; generic sources only."""
    read_ack: GenericAddress | None = None
    """Read-acknowledge register; GHESv2 only (ACPI 6.5 18.3.2.8)."""
    read_ack_preserve: int | None = None
    """u64 mask of the bits to preserve."""
    read_ack_write: int | None = None
    """u64 mask of the bits to set."""

    @property
    def ghes_version(self) -> int | None:
        """Return 1 or 2; None for a source without a generic error status block."""
        return {SourceType.GENERIC: 1, SourceType.GENERIC_V2: 2}.get(self.type)  # type: ignore[call-overload,no-any-return]


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
            found.setdefault(source.source_id, _to_notification(source, source.notification))
    return {source_id: notification for source_id, notification in found.items() if notification is not None}


def _to_notification(source: ErrorSource, structure: HardwareNotification) -> Notification | None:
    if structure.type is None:
        return None
    return Notification(
        type=structure.type,
        source_id=source.source_id,
        ghes_version=1 if source.ghes_version == 1 else 2,
        error_block_length=source.error_block_length or 0,
        poll_interval_ms=structure.poll_interval_ms if structure.type is NotificationType.POLLED else None,
    )
