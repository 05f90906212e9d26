"""Generic processor error section (UEFI 2.10 N.2.4.1)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import StringConstraints

from ras_triage.models.scalars import U8, Hex8, Hex64
from ras_triage.models.sections.fields import Latin1
from ras_triage.models.sections.layout import LayoutField, with_layout
from ras_triage.models.sections.section import StructuredSection

LENGTH = 192
"""Bytes of the section."""

_PROCESSOR_TYPES = ("IA32/X64", "IA64", "ARM")
_ISAS = ("IA32", "IA64", "X64", "ARM A32/T32", "ARM A64")
_ERROR_TYPES = {1: "cache", 2: "tlb", 4: "bus", 8: "micro_architectural"}
_OPERATIONS = ("unknown or generic", "data read", "data write", "instruction execution")
_FLAGS = {1: "restartable", 2: "precise_ip", 4: "overflow", 8: "corrected"}


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if number < len(names) else f"unknown ({number})"


CpuBrand = Annotated[Latin1, StringConstraints(max_length=128)]
"""128 bytes of text."""


@with_layout(LENGTH)
class GenericProcessor(StructuredSection):
    """Generic processor error section: 192 bytes (UEFI 2.10 N.2.4.1)."""

    type: Literal["generic_processor"] = "generic_processor"
    validation_bits: Annotated[Hex64 | None, LayoutField(0, 8)] = None
    """Validation bits; absent in a request: those of the fields present."""
    processor_type: Annotated[U8 | None, LayoutField(8, 1, valid=1 << 0)] = None
    """0 x86, 1 Itanium, 2 Arm."""
    processor_isa: Annotated[U8 | None, LayoutField(9, 1, valid=1 << 1)] = None
    """0 IA-32, 1 Itanium, 2 x64, 3 A32 or T32, 4 A64."""
    processor_error_type: Annotated[Hex8 | None, LayoutField(10, 1, valid=1 << 2)] = None
    """Bits: 0 cache, 1 TLB, 2 bus, 3 micro-architectural."""
    operation: Annotated[U8 | None, LayoutField(11, 1, valid=1 << 3)] = None
    """0 unknown, 1 data read, 2 data write, 3 instruction execution."""
    processor_flags: Annotated[Hex8 | None, LayoutField(12, 1, valid=1 << 4)] = None
    """Flags of the section, not of the data entry: 0 restartable, 1 precise, 2 overflow, 3 corrected."""
    level: Annotated[U8 | None, LayoutField(13, 1, valid=1 << 5)] = None
    """Level of the structure, such as a cache, at which the error occurred."""
    cpu_version: Annotated[Hex64 | None, LayoutField(16, 8, valid=1 << 6)] = None
    """Version of the processor; on Arm, MIDR_EL1."""
    cpu_brand: Annotated[CpuBrand | None, LayoutField(24, 128, valid=1 << 7, kind="text")] = None
    """Brand of the processor."""
    processor_id: Annotated[Hex64 | None, LayoutField(152, 8, valid=1 << 8)] = None
    """Id of the processor; on Arm, MPIDR_EL1."""
    target_address: Annotated[Hex64 | None, LayoutField(160, 8, valid=1 << 9)] = None
    """Target address of the access, bytes."""
    requestor_id: Annotated[Hex64 | None, LayoutField(168, 8, valid=1 << 10)] = None
    """Hardware address of the device that requested the transaction."""
    responder_id: Annotated[Hex64 | None, LayoutField(176, 8, valid=1 << 11)] = None
    """Hardware address of the device that responded."""
    instruction_pointer: Annotated[Hex64 | None, LayoutField(184, 8, valid=1 << 12)] = None
    """Address of the instruction, bytes."""

    def readings(self) -> dict[str, Any]:
        readings = super().readings()
        if self.processor_type is not None:
            readings["processor_type"] = _name(_PROCESSOR_TYPES, self.processor_type)
        if self.processor_isa is not None:
            readings["processor_isa"] = _name(_ISAS, self.processor_isa)
        if self.processor_error_type is not None:
            readings["processor_error_type"] = [name for bit, name in _ERROR_TYPES.items() if self.processor_error_type & bit]
        if self.operation is not None:
            readings["operation"] = _name(_OPERATIONS, self.operation)
        if self.processor_flags is not None:
            readings["processor_flags"] = [name for bit, name in _FLAGS.items() if self.processor_flags & bit]
        return readings
