"""Summary of a status block for lists and filters: section names and addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ras_triage.models.records.guid import SECTION_TYPES, section_name
from ras_triage.models.records.status_block import DataEntry, StatusBlock
from ras_triage.models.sections import arm_processor, memory

MAX_ADDRESSES: Final = 64
"""Most names, and most addresses, in a summary."""

_MEMORY: Final = frozenset({SECTION_TYPES["memory"], SECTION_TYPES["memory2"]})
_ARM: Final = SECTION_TYPES["arm_processor"]


def section_names(block: StatusBlock) -> tuple[str, ...]:
    """Return the section types of a block without repeats, in order: names, or GUIDs for unknown types."""
    return tuple(dict.fromkeys([section_name(entry.section_type) for entry in block.entries]))[:MAX_ADDRESSES]


def physical_addresses(block: StatusBlock) -> tuple[int, ...]:
    """Return the valid physical addresses of memory sections and ARM error infos without repeats, in order; bytes."""
    found: dict[int, None] = {}
    for entry in block.entries:
        for address in _addresses(block, entry):
            found[address] = None
            if len(found) == MAX_ADDRESSES:
                return tuple(found)
    return tuple(found)


def _addresses(block: StatusBlock, entry: DataEntry) -> Sequence[int]:
    if entry.section_type in _MEMORY:
        valid, address = memory.read_address(block.data, entry.payload_offset)
        return (address,) if valid & memory.PHYSICAL_ADDRESS_VALID else ()
    return _arm_addresses(block, entry) if entry.section_type == _ARM else ()


def _arm_addresses(block: StatusBlock, entry: DataEntry) -> list[int]:
    addresses: list[int] = []
    count = arm_processor.read_counts(block.window(entry.payload_offset, arm_processor.HEADER_LENGTH))[1]
    offset = entry.payload_offset + arm_processor.HEADER_LENGTH
    end = min(entry.payload_offset + entry.error_data_length, len(block.data))
    for _ in range(min(count, (end - offset) // arm_processor.ERROR_INFO_LENGTH)):
        info = arm_processor.read_error_info(block.data, offset)
        if info[2] & arm_processor.PHYSICAL_FAULT_ADDRESS_VALID:
            addresses.append(info[8])
        offset += arm_processor.ERROR_INFO_LENGTH
    return addresses
