"""Positions of the fields of a status block in its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ras_triage.models.frozen import frozen
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.models.records.status_block import DataEntry, decode_block
from ras_triage.models.sections.arm_processor import ERROR_INFO_LENGTH, HEADER_LENGTH, ArmErrorInfo, ArmProcessor
from ras_triage.models.sections.layout import Layout
from ras_triage.models.sections.section import StructuredSection

MAX_FIELDS: Final = 4096
"""Most fields in a map."""

_BLOCK: Final = (("block_status", 0, 4), ("raw_data_offset", 4, 4), ("raw_data_length", 8, 4), ("data_length", 12, 4), ("severity", 16, 4))
_ENTRY: Final = (
    ("type", 0, 16),
    ("severity", 16, 4),
    ("revision", 20, 2),
    ("entry_validation_bits", 22, 1),
    ("flags", 23, 1),
    ("error_data_length", 24, 4),
    ("fru_id", 28, 16),
    ("fru_text", 44, 20),
    ("timestamp", 64, 8),
)


@frozen
class FieldPosition:
    """Bytes of a field. Bit fields may share bytes."""

    pointer: str
    """JSON pointer of the field in the decoded status block; lengths, which it does not have, by their names in the specification."""
    offset: int
    """Bytes from the start of the block."""
    length: int
    """Bytes."""


def field_positions(data: bytes) -> tuple[FieldPosition, ...]:
    """Return the positions of the fields that a block has, in order of their structures, at most MAX_FIELDS. Raises MalformedBytes."""
    fields = [FieldPosition(f"/{name}", offset, length) for name, offset, length in _BLOCK]
    for index, (entry, section) in enumerate(zip(decode_block(data).entries, decode_structured(data).sections, strict=True)):
        if len(fields) > MAX_FIELDS:
            break
        fields += _entry_positions(f"/sections/{index}", entry, section)
    return tuple(fields[:MAX_FIELDS])


def _entry_positions(pointer: str, entry: DataEntry, section: object) -> Iterator[FieldPosition]:
    for name, offset, length in _ENTRY:
        if offset + length <= entry.header_length:
            yield FieldPosition(f"{pointer}/{name}", entry.offset + offset, length)
    if not isinstance(section, StructuredSection):
        yield FieldPosition(f"{pointer}/payload", entry.payload_offset, entry.error_data_length)
        return
    yield from _layout_positions(pointer, section.LAYOUT, section, entry.payload_offset)
    if isinstance(section, ArmProcessor):
        for number, info in enumerate(section.error_infos):
            start = entry.payload_offset + HEADER_LENGTH + ERROR_INFO_LENGTH * number
            yield from _layout_positions(f"{pointer}/error_infos/{number}", ArmErrorInfo.LAYOUT, info, start)


def _layout_positions(pointer: str, layout: Layout, values: object, start: int) -> Iterator[FieldPosition]:
    for field, _, _ in layout.table:
        if getattr(values, field.name) is not None:
            yield FieldPosition(f"{pointer}/{field.name}", start + field.offset, field.size)
