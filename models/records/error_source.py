"""Error source structures of a HEST (ACPI 6.5 18.3.2)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, Literal

from ras_triage.models.frozen import frozen
from ras_triage.models.notification import HEST_TYPES, Notification, NotificationType

SourceStatus = Literal["read", "refused", "skipped", "never_read", "panics"]
"""`skipped`: no driver instance; `never_read`: accepted, but its status block is not read; `panics`: the boot ends with a panic."""


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


_GHES_VERSIONS: Final[dict[int, Literal[1, 2]]] = {SourceType.GENERIC: 1, SourceType.GENERIC_V2: 2}


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
        return HEST_TYPES[self.number] if self.number < len(HEST_TYPES) else None


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
    """u8, bit 0: firmware first, bit 2: GHES_ASSIST."""
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
    def ghes_version(self) -> Literal[1, 2] | None:
        """Return 1 or 2; None for a source without a generic error status block."""
        return _GHES_VERSIONS.get(self.type)

    def to_notification(self) -> Notification | None:
        """Return the notification, as used in an event; None for an unknown notification type, and for a source that is not generic."""
        structure, ghes_version = self.notification, self.ghes_version
        if structure is None or structure.type is None or ghes_version is None:
            return None
        return Notification(
            type=structure.type,
            source_id=self.source_id,
            ghes_version=ghes_version,
            error_block_length=self.error_block_length or 0,
            poll_interval_ms=structure.poll_interval_ms if structure.type is NotificationType.POLLED else None,
        )
