"""CXL protocol error (UEFI 2.10 N.2.13) and component event sections (N.2.14).

Event records of components are defined in CXL 3.1 8.2.9.2.1.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ras_triage.models.scalars import U8, U16, U32, Base64, Hex8, Hex16, Hex32, Hex64
from ras_triage.models.sections.layout import Layout, LayoutField
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


class CxlProtocol(StructuredSection):
    """CXL protocol error: 116 bytes, then the DVSEC, then the error log (UEFI 2.10 N.2.13)."""

    LAYOUT: ClassVar[Layout] = Layout(
        PROTOCOL_HEADER_LENGTH,
        validation=LayoutField("validation_bits", 0, 8),
        fields=(
            LayoutField("agent_type", 8, 1, valid=AGENT_TYPE_VALID),
            LayoutField("agent_address", 16, 8, valid=AGENT_ADDRESS_VALID),
            LayoutField("vendor_id", 24, 2, valid=1 << 2),
            LayoutField("device_id", 26, 2, valid=1 << 2),
            LayoutField("subsystem_vendor_id", 28, 2, valid=1 << 2),
            LayoutField("subsystem_id", 30, 2, valid=1 << 2),
            LayoutField("class_code", 32, 2, valid=1 << 2),
            LayoutField("slot", 34, 2, valid=1 << 2, shift=3, bits=13),
            LayoutField("serial_number", 40, 8, valid=SERIAL_NUMBER_VALID),
            LayoutField("capability_structure", 48, 60, valid=1 << 4, kind="bytes"),
            LayoutField("dvsec_length", 108, 2),
            LayoutField("error_log_length", 110, 2),
        ),
    )

    type: Literal["cxl_protocol"] = "cxl_protocol"
    validation_bits: Hex64 | None = None
    agent_type: U8 | None = None
    """0 restricted device, 1 restricted host's downstream port, 2 device, 3 logical device, 4 managed logical device,
    5 to 7 root, downstream switch and upstream switch port."""
    agent_address: Hex64 | None = None
    """Agent type 1: RCRB base address; else function, device, bus (one byte each), segment (two), lowest byte first."""
    vendor_id: Hex16 | None = None
    device_id: Hex16 | None = None
    subsystem_vendor_id: Hex16 | None = None
    subsystem_id: Hex16 | None = None
    class_code: Hex16 | None = None
    slot: U13 | None = None
    serial_number: Hex64 | None = None
    capability_structure: Base64 | None = None
    """60 bytes; the PCI Express capability structure fills the first 36."""
    dvsec_length: U16 | None = None
    """Bytes as stated; absent in a request: those of `dvsec`."""
    error_log_length: U16 | None = None
    """Bytes as stated; absent in a request: those of `error_log`."""
    dvsec: Base64 | None = None
    error_log: Base64 | None = None
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


def _event(name: str, offset: int, size: int, *, kind: Literal["int", "bytes"] = "int") -> LayoutField:
    return LayoutField(name, offset, size, valid=COMPONENT_EVENT_LOG_VALID, kind=kind)


_COMPONENT_FIELDS = (
    LayoutField("length", 0, 4),
    LayoutField("vendor_id", 12, 2, valid=_DEVICE_ID_VALID),
    LayoutField("device_id", 14, 2, valid=_DEVICE_ID_VALID),
    LayoutField("function", 16, 1, valid=_DEVICE_ID_VALID),
    LayoutField("device", 17, 1, valid=_DEVICE_ID_VALID),
    LayoutField("bus", 18, 1, valid=_DEVICE_ID_VALID),
    LayoutField("segment", 19, 2, valid=_DEVICE_ID_VALID),
    LayoutField("slot", 21, 2, valid=_DEVICE_ID_VALID, shift=3, bits=13),
    LayoutField("serial_number", 24, 8, valid=1 << 1),
    _event("event_length", _RECORD, 1),
    _event("event_flags", _RECORD + 1, 3),
    _event("event_handle", _RECORD + 4, 2),
    _event("event_related_handle", _RECORD + 6, 2),
    _event("event_timestamp", _RECORD + 8, 8),
    _event("maintenance_operation_class", _RECORD + 16, 1),
    _event("maintenance_operation_subclass", _RECORD + 17, 1),
    _event("ld_id", _RECORD + 18, 2),
    _event("head_id", _RECORD + 20, 1),
)
_MEDIA_FIELDS = (
    _event("device_physical_address", _BODY, 8),
    _event("memory_event_descriptor", _BODY + 8, 1),
    _event("memory_event_type", _BODY + 9, 1),
    _event("transaction_type", _BODY + 10, 1),
    _event("validity_flags", _BODY + 11, 2),
    _event("channel", _BODY + 13, 1),
    _event("rank", _BODY + 14, 1),
)
_COMPONENT_VALIDATION = LayoutField("validation_bits", 4, 8)

_DESCRIPTOR_BITS = {1: "uncorrectable", 2: "threshold", 4: "poison_list_overflow"}
_DPA_FLAGS = 0x3F


class ComponentEvent(StructuredSection):
    """Common part of CXL component events: the component, and the event record header without its UUID (UEFI 2.10 N.2.14)."""

    validation_bits: Hex64 | None = None
    length: U32 | None = None
    """Bytes as stated; absent in a request: those of the payload."""
    vendor_id: Hex16 | None = None
    device_id: Hex16 | None = None
    function: U8 | None = None
    device: U8 | None = None
    bus: Hex8 | None = None
    segment: Hex16 | None = None
    slot: U13 | None = None
    serial_number: Hex64 | None = None
    event_length: U8 | None = None
    """Bytes."""
    event_flags: Hex24 | None = None
    event_handle: Hex16 | None = None
    event_related_handle: Hex16 | None = None
    event_timestamp: Hex64 | None = None
    """Nanoseconds since 1970."""
    maintenance_operation_class: U8 | None = None
    maintenance_operation_subclass: U8 | None = None
    ld_id: Hex16 | None = None
    head_id: U8 | None = None

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

    device_physical_address: Hex64 | None = None
    """Bits 5:0 are flags: 0 volatile, 1 not repairable."""
    memory_event_descriptor: Hex8 | None = None
    """0 uncorrectable, 1 threshold, 2 poison list overflow."""
    memory_event_type: U8 | None = None
    transaction_type: U8 | None = None
    validity_flags: Hex16 | None = None
    """Validity of the fields after it, defined by CXL; independent of `validation_bits`."""
    channel: U8 | None = None
    rank: U8 | None = None

    def readings(self) -> dict[str, Any]:
        readings = super().readings()
        if self.device_physical_address is not None:
            readings["device_physical_address"] = hex(self.device_physical_address & ~_DPA_FLAGS)
        if self.memory_event_descriptor is not None:
            readings["memory_event_descriptor"] = [name for bit, name in _DESCRIPTOR_BITS.items() if self.memory_event_descriptor & bit]
        return readings


class CxlGeneralMedia(MediaEvent):
    """CXL general media event (CXL 3.1 8.2.9.2.1.1)."""

    LAYOUT: ClassVar[Layout] = Layout(
        COMPONENT_EVENT_LENGTH,
        validation=_COMPONENT_VALIDATION,
        fields=(
            *_COMPONENT_FIELDS,
            *_MEDIA_FIELDS,
            _event("memory_device", _BODY + 15, 3),
            _event("component_id", _BODY + 18, 16, kind="bytes"),
        ),
    )

    type: Literal["cxl_general_media"] = "cxl_general_media"
    memory_device: Hex24 | None = None
    component_id: Base64 | None = None
    """16 bytes."""


class CxlDram(MediaEvent):
    """CXL DRAM event (CXL 3.1 8.2.9.2.1.2)."""

    LAYOUT: ClassVar[Layout] = Layout(
        COMPONENT_EVENT_LENGTH,
        validation=_COMPONENT_VALIDATION,
        fields=(
            *_COMPONENT_FIELDS,
            *_MEDIA_FIELDS,
            _event("nibble_mask", _BODY + 15, 3),
            _event("bank_group", _BODY + 18, 1),
            _event("bank", _BODY + 19, 1),
            _event("row", _BODY + 20, 3),
            _event("column", _BODY + 23, 2),
            _event("correction_mask", _BODY + 25, 32, kind="bytes"),
        ),
    )

    type: Literal["cxl_dram"] = "cxl_dram"
    nibble_mask: Hex24 | None = None
    bank_group: U8 | None = None
    bank: U8 | None = None
    row: Annotated[int, Field(ge=0, lt=1 << 24)] | None = None
    column: U16 | None = None
    correction_mask: Base64 | None = None
    """32 bytes."""


class CxlMemoryModule(ComponentEvent):
    """CXL memory module event: health of a device (CXL 3.1 8.2.9.2.1.3)."""

    LAYOUT: ClassVar[Layout] = Layout(
        COMPONENT_EVENT_LENGTH,
        validation=_COMPONENT_VALIDATION,
        fields=(
            *_COMPONENT_FIELDS,
            _event("device_event_type", _BODY, 1),
            _event("health_status", _BODY + 1, 1),
            _event("media_status", _BODY + 2, 1),
            _event("additional_status", _BODY + 3, 1),
            _event("life_used", _BODY + 4, 1),
            _event("device_temperature", _BODY + 5, 2),
            _event("dirty_shutdown_count", _BODY + 7, 4),
            _event("corrected_volatile_error_count", _BODY + 11, 4),
            _event("corrected_persistent_error_count", _BODY + 15, 4),
        ),
    )

    type: Literal["cxl_memory_module"] = "cxl_memory_module"
    device_event_type: U8 | None = None
    health_status: Hex8 | None = None
    media_status: U8 | None = None
    additional_status: Hex8 | None = None
    life_used: U8 | None = None
    """Percent."""
    device_temperature: Hex16 | None = None
    """Degrees Celsius, two's complement."""
    dirty_shutdown_count: U32 | None = None
    corrected_volatile_error_count: U32 | None = None
    corrected_persistent_error_count: U32 | None = None
