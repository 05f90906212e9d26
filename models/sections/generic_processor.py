"""Generic processor error section (UEFI 2.10 N.2.4.1)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from ras_triage.models.scalars import U8, Hex8, Hex64
from ras_triage.models.sections.fields import Latin1
from ras_triage.models.sections.layout import Layout, LayoutField
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


class GenericProcessor(StructuredSection):
    """Generic processor error section: 192 bytes (UEFI 2.10 N.2.4.1)."""

    LAYOUT: ClassVar[Layout] = Layout(
        LENGTH,
        validation=LayoutField("validation_bits", 0, 8),
        fields=(
            LayoutField("processor_type", 8, 1, valid=1 << 0),
            LayoutField("processor_isa", 9, 1, valid=1 << 1),
            LayoutField("processor_error_type", 10, 1, valid=1 << 2),
            LayoutField("operation", 11, 1, valid=1 << 3),
            LayoutField("processor_flags", 12, 1, valid=1 << 4),
            LayoutField("level", 13, 1, valid=1 << 5),
            LayoutField("cpu_version", 16, 8, valid=1 << 6),
            LayoutField("cpu_brand", 24, 128, valid=1 << 7, kind="text"),
            LayoutField("processor_id", 152, 8, valid=1 << 8),
            LayoutField("target_address", 160, 8, valid=1 << 9),
            LayoutField("requestor_id", 168, 8, valid=1 << 10),
            LayoutField("responder_id", 176, 8, valid=1 << 11),
            LayoutField("instruction_pointer", 184, 8, valid=1 << 12),
        ),
    )

    type: Literal["generic_processor"] = "generic_processor"
    validation_bits: Hex64 | None = None
    processor_type: U8 | None = None
    processor_isa: U8 | None = None
    processor_error_type: Hex8 | None = None
    operation: U8 | None = None
    processor_flags: Hex8 | None = None
    """Flags of the section, not of the data entry: 0 restartable, 1 precise, 2 overflow, 3 corrected."""
    level: U8 | None = None
    cpu_version: Hex64 | None = None
    cpu_brand: Annotated[Latin1, StringConstraints(max_length=128)] | None = None
    processor_id: Hex64 | None = None
    target_address: Hex64 | None = None
    requestor_id: Hex64 | None = None
    responder_id: Hex64 | None = None
    instruction_pointer: Hex64 | None = None

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
