"""CXL protocol error (UEFI 2.10 N.2.13) and component event sections (N.2.14).

Event records of components are defined in CXL 3.1 8.2.9.2.1.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal

from pydantic import Field

from ras_triage.models.scalars import U8, U16, U32, EncodedBytes, Hex8, Hex16, Hex32, Hex64
from ras_triage.models.sections.layout import LayoutField, with_layout
from ras_triage.models.sections.pcie import U13, device_text
from ras_triage.models.sections.section import StructuredSection

PROTOCOL_HEADER_LENGTH = 116
"""Bytes of a protocol error before its DVSEC."""
COMPONENT_EVENT_LENGTH = 144
"""Bytes of a component event: 32 of header, 32 of the common event record without its UUID, 80 of event body."""

AGENT_TYPE_VALID = 1 << 0
AGENT_ADDRESS_VALID = 1 << 1
SERIAL_NUMBER_VALID = 1 << 3
ERROR_LOG_VALID = 1 << 6
COMPONENT_EVENT_LOG_VALID = 1 << 2
"""Validation bit of a component event's event record."""

_DVSEC_VALID = 1 << 5
_PROTOCOL = struct.Struct("<QB99xHH")
_COMPONENT = struct.Struct("<IQ")


def read_protocol_error(window: bytes) -> tuple[int, int, int, int]:
    """Return validation bits (u64), agent type (u8), DVSEC length (u16, bytes) and error log length (u16, bytes).

    `window` has at least 112 bytes, zero-filled after the end of the sender's bytes.
    """
    validation, agent, dvsec, error_log = _PROTOCOL.unpack_from(window)
    return validation, agent, dvsec, error_log


def read_component_event(window: bytes) -> tuple[int, int]:
    """Return stated length (u32, bytes) and validation bits (u64).

    `window` has at least 12 bytes, zero-filled after the end of the sender's bytes.
    """
    length, validation = _COMPONENT.unpack_from(window)
    return length, validation


_AGENT_TYPES = (
    "restricted_cxl_device",
    "restricted_cxl_host_downstream_port",
    "cxl_device",
    "cxl_logical_device",
    "cxl_fabric_manager_managed_logical_device",
    "cxl_root_port",
    "cxl_downstream_switch_port",
    "cxl_upstream_switch_port",
)
_RCRB_AGENT = 1

Hex24 = Annotated[Hex32, Field(lt=1 << 24)]
"""24-bit mask or identifier."""


@with_layout(PROTOCOL_HEADER_LENGTH)
class CxlProtocol(StructuredSection):
    """CXL protocol error: 116 bytes, then the DVSEC, then the error log (UEFI 2.10 N.2.13)."""

    type: Literal["cxl_protocol"] = "cxl_protocol"
    validation_bits: Annotated[Hex64 | None, LayoutField(0, 8)] = None
    """Validation bits; absent in a request: those of the fields present."""
    agent_type: Annotated[U8 | None, LayoutField(8, 1, valid=AGENT_TYPE_VALID)] = None
    """0 restricted device, 1 restricted host's downstream port, 2 device, 3 logical device, 4 managed logical device,
    5 to 7 root, downstream switch and upstream switch port."""
    agent_address: Annotated[Hex64 | None, LayoutField(16, 8, valid=AGENT_ADDRESS_VALID)] = None
    """Agent type 1: RCRB base address; else function, device, bus (one byte each), segment (two), lowest byte first."""
    vendor_id: Annotated[Hex16 | None, LayoutField(24, 2, valid=1 << 2)] = None
    """PCI vendor id."""
    device_id: Annotated[Hex16 | None, LayoutField(26, 2, valid=1 << 2)] = None
    """PCI device id."""
    subsystem_vendor_id: Annotated[Hex16 | None, LayoutField(28, 2, valid=1 << 2)] = None
    """PCI subsystem vendor id."""
    subsystem_id: Annotated[Hex16 | None, LayoutField(30, 2, valid=1 << 2)] = None
    """PCI subsystem id."""
    class_code: Annotated[Hex16 | None, LayoutField(32, 2, valid=1 << 2)] = None
    """PCI class code."""
    slot: Annotated[U13 | None, LayoutField(34, 2, valid=1 << 2, shift=3, bits=13)] = None
    """Physical slot number."""
    serial_number: Annotated[Hex64 | None, LayoutField(40, 8, valid=SERIAL_NUMBER_VALID)] = None
    """Serial number of the device."""
    capability_structure: Annotated[EncodedBytes | None, LayoutField(48, 60, valid=1 << 4, kind="bytes")] = None
    """60 bytes; the PCI Express capability structure fills the first 36."""
    dvsec_length: Annotated[U16 | None, LayoutField(108, 2)] = None
    """Bytes as stated; absent in a request: those of `dvsec`."""
    error_log_length: Annotated[U16 | None, LayoutField(110, 2)] = None
    """Bytes as stated; absent in a request: those of `error_log`."""
    dvsec: EncodedBytes | None = None
    """CXL DVSEC structure."""
    error_log: EncodedBytes | None = None
    """88 bytes for a CXL RAS capability structure."""

    @classmethod
    def decode_payload(cls, payload: bytes) -> dict[str, Any]:
        fields = cls.LAYOUT.decode(payload)
        offset = PROTOCOL_HEADER_LENGTH
        for part in ("dvsec", "error_log"):
            length = fields.get(f"{part}_length", 0)
            if offset + length > len(payload):
                break
            if length:
                fields[part] = payload[offset : offset + length]
            offset += length
        if offset < len(payload):
            fields["trailing"] = payload[offset:]
        return fields

    def encode_payload(self) -> bytes:
        header = self.LAYOUT.encode(
            self.__dict__,
            validation=(_DVSEC_VALID if self.dvsec else 0) | (ERROR_LOG_VALID if self.error_log else 0),
            defaults={"dvsec_length": len(self.dvsec or b""), "error_log_length": len(self.error_log or b"")},
        )
        return self.join(header, self.dvsec, self.error_log)

    def readings(self) -> dict[str, Any]:
        readings = super().readings()
        if self.agent_type is not None:
            number = self.agent_type
            readings["agent_type"] = _AGENT_TYPES[number] if number < len(_AGENT_TYPES) else f"unknown ({number})"
        if self.agent_address is not None and self.agent_type != _RCRB_AGENT:
            address = self.agent_address
            readings["device"] = device_text(address >> 24 & 0xFFFF, address >> 16 & 0xFF, address >> 8 & 0xFF, address & 0xFF)
        return readings


_DEVICE_ID_VALID = 1 << 0
_RECORD = 32
"""Offset of the event record within the section, bytes."""
_BODY = 64
"""Offset of the event's body within the section, bytes."""


def _event(offset: int, size: int, *, kind: Literal["int", "bytes"] = "int") -> LayoutField:
    return LayoutField(offset, size, valid=COMPONENT_EVENT_LOG_VALID, kind=kind)


_DESCRIPTOR_BITS = {1: "uncorrectable", 2: "threshold", 4: "poison_list_overflow"}
_DPA_FLAGS = 0x3F


class ComponentEvent(StructuredSection):
    """Common part of CXL component events: the component, and the event record header without its UUID (UEFI 2.10 N.2.14)."""

    validation_bits: Annotated[Hex64 | None, LayoutField(4, 8)] = None
    """Validation bits; absent in a request: those of the fields present."""
    length: Annotated[U32 | None, LayoutField(0, 4)] = None
    """Bytes as stated; absent in a request: those of the payload."""
    vendor_id: Annotated[Hex16 | None, LayoutField(12, 2, valid=_DEVICE_ID_VALID)] = None
    """PCI vendor id."""
    device_id: Annotated[Hex16 | None, LayoutField(14, 2, valid=_DEVICE_ID_VALID)] = None
    """PCI device id."""
    function: Annotated[U8 | None, LayoutField(16, 1, valid=_DEVICE_ID_VALID)] = None
    """PCI function number."""
    device: Annotated[U8 | None, LayoutField(17, 1, valid=_DEVICE_ID_VALID)] = None
    """PCI device number."""
    bus: Annotated[Hex8 | None, LayoutField(18, 1, valid=_DEVICE_ID_VALID)] = None
    """PCI bus number."""
    segment: Annotated[Hex16 | None, LayoutField(19, 2, valid=_DEVICE_ID_VALID)] = None
    """PCI segment number."""
    slot: Annotated[U13 | None, LayoutField(21, 2, valid=_DEVICE_ID_VALID, shift=3, bits=13)] = None
    """Physical slot number."""
    serial_number: Annotated[Hex64 | None, LayoutField(24, 8, valid=1 << 1)] = None
    """Serial number of the device."""
    event_length: Annotated[U8 | None, _event(_RECORD, 1)] = None
    """Bytes."""
    event_flags: Annotated[Hex24 | None, _event(_RECORD + 1, 3)] = None
    """Event record flags (CXL 3.1 8.2.9.2.1): bits 1:0 severity, 2 permanent condition, 3 maintenance needed, 4 degraded performance, 5
    replacement needed."""
    event_handle: Annotated[Hex16 | None, _event(_RECORD + 4, 2)] = None
    """Handle of the event record."""
    event_related_handle: Annotated[Hex16 | None, _event(_RECORD + 6, 2)] = None
    """Handle of an earlier event that this one is related to; 0: none."""
    event_timestamp: Annotated[Hex64 | None, _event(_RECORD + 8, 8)] = None
    """Nanoseconds since 1970."""
    maintenance_operation_class: Annotated[U8 | None, _event(_RECORD + 16, 1)] = None
    """Class of the maintenance operation that the device asks for; 0: none."""
    maintenance_operation_subclass: Annotated[U8 | None, _event(_RECORD + 17, 1)] = None
    """Subclass of the maintenance operation."""
    ld_id: Annotated[Hex16 | None, _event(_RECORD + 18, 2)] = None
    """Logical device that the event comes from."""
    head_id: Annotated[U8 | None, _event(_RECORD + 20, 1)] = None
    """Head of a multi-headed device that the event comes from."""

    def encode_payload(self) -> bytes:
        length = self.LAYOUT.size + len(self.trailing or b"")
        return self.join(self.LAYOUT.encode(self.__dict__, defaults={"length": length}))

    def readings(self) -> dict[str, Any]:
        readings = super().readings()
        if self.bus is not None:
            readings["device"] = device_text(self.segment or 0, self.bus, self.device or 0, self.function or 0)
        return readings


class MediaEvent(ComponentEvent):
    """Common part of general media and DRAM events. A device physical address is not a host physical address."""

    device_physical_address: Annotated[Hex64 | None, _event(_BODY, 8)] = None
    """Bits 5:0 are flags: 0 volatile, 1 not repairable."""
    memory_event_descriptor: Annotated[Hex8 | None, _event(_BODY + 8, 1)] = None
    """0 uncorrectable, 1 threshold, 2 poison list overflow."""
    memory_event_type: Annotated[U8 | None, _event(_BODY + 9, 1)] = None
    """Number of the error type (CXL 3.1 8.2.9.2.1)."""
    transaction_type: Annotated[U8 | None, _event(_BODY + 10, 1)] = None
    """Number of the transaction type: 1 host read, 2 host write, 3 host scan media, 4 host inject poison, 5 internal scrub, 6 internal
    management."""
    validity_flags: Annotated[Hex16 | None, _event(_BODY + 11, 2)] = None
    """Validity of the fields after it, defined by CXL; independent of `validation_bits`."""
    channel: Annotated[U8 | None, _event(_BODY + 13, 1)] = None
    """Channel of the memory event."""
    rank: Annotated[U8 | None, _event(_BODY + 14, 1)] = None
    """Rank of the memory event."""

    def readings(self) -> dict[str, Any]:
        readings = super().readings()
        if self.device_physical_address is not None:
            readings["device_physical_address"] = hex(self.device_physical_address & ~_DPA_FLAGS)
        if self.memory_event_descriptor is not None:
            readings["memory_event_descriptor"] = [name for bit, name in _DESCRIPTOR_BITS.items() if self.memory_event_descriptor & bit]
        return readings


@with_layout(COMPONENT_EVENT_LENGTH)
class CxlGeneralMedia(MediaEvent):
    """CXL general media event (CXL 3.1 8.2.9.2.1.1)."""

    type: Literal["cxl_general_media"] = "cxl_general_media"
    memory_device: Annotated[Hex24 | None, _event(_BODY + 15, 3)] = None
    """Bit mask of the devices on the rank."""
    component_id: Annotated[EncodedBytes | None, _event(_BODY + 18, 16, kind="bytes")] = None
    """16 bytes."""


@with_layout(COMPONENT_EVENT_LENGTH)
class CxlDram(MediaEvent):
    """CXL DRAM event (CXL 3.1 8.2.9.2.1.2)."""

    type: Literal["cxl_dram"] = "cxl_dram"
    nibble_mask: Annotated[Hex24 | None, _event(_BODY + 15, 3)] = None
    """Bit mask of the failed nibbles on the data bus."""
    bank_group: Annotated[U8 | None, _event(_BODY + 18, 1)] = None
    """Bank group of the memory event."""
    bank: Annotated[U8 | None, _event(_BODY + 19, 1)] = None
    """Bank of the memory event."""
    row: Annotated[Annotated[int, Field(ge=0, lt=1 << 24)] | None, _event(_BODY + 20, 3)] = None
    """Row of the memory event."""
    column: Annotated[U16 | None, _event(_BODY + 23, 2)] = None
    """Column of the memory event."""
    correction_mask: Annotated[EncodedBytes | None, _event(_BODY + 25, 32, kind="bytes")] = None
    """32 bytes."""


@with_layout(COMPONENT_EVENT_LENGTH)
class CxlMemoryModule(ComponentEvent):
    """CXL memory module event: health of a device (CXL 3.1 8.2.9.2.1.3)."""

    type: Literal["cxl_memory_module"] = "cxl_memory_module"
    device_event_type: Annotated[U8 | None, _event(_BODY, 1)] = None
    """0 health status change, 1 media status change, 2 life used change, 3 temperature change, 4 data path error, 5 LSA error."""
    health_status: Annotated[Hex8 | None, _event(_BODY + 1, 1)] = None
    """Bits: 0 maintenance needed, 1 performance degraded, 2 replacement needed."""
    media_status: Annotated[U8 | None, _event(_BODY + 2, 1)] = None
    """Number of the media status: 0 normal, 1 not ready, 2 write persistency lost, 3 all data lost; above that, loss to come."""
    additional_status: Annotated[Hex8 | None, _event(_BODY + 3, 1)] = None
    """Bits 1:0 life used, 3:2 temperature, 4 corrected volatile errors, 5 corrected persistent errors: normal, warning or critical."""
    life_used: Annotated[U8 | None, _event(_BODY + 4, 1)] = None
    """Percent."""
    device_temperature: Annotated[Hex16 | None, _event(_BODY + 5, 2)] = None
    """Degrees Celsius, two's complement."""
    dirty_shutdown_count: Annotated[U32 | None, _event(_BODY + 7, 4)] = None
    """Number of dirty shutdowns."""
    corrected_volatile_error_count: Annotated[U32 | None, _event(_BODY + 11, 4)] = None
    """Number of corrected errors of volatile memory."""
    corrected_persistent_error_count: Annotated[U32 | None, _event(_BODY + 15, 4)] = None
    """Number of corrected errors of persistent memory."""
