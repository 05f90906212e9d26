"""Status block for a guest's own error source, as QEMU writes it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from ras_triage.models.decision import Translate
from ras_triage.models.records import guid
from ras_triage.models.records.status_block import DataEntry, encode_block_header, encode_entry
from ras_triage.models.sections import memory
from ras_triage.models.severity import Severity

_UNCORRECTABLE: Final = 1
"""Block status bit 0; the entry count (bits 13:4) stays 0."""
_ERROR_TYPE_VALID: Final = 1 << 14
_SECTION: Final = struct.Struct("<QQQ56x")
"""Validation bits, error status, physical address; all following bytes are zero."""
_ENTRY: Final = encode_entry(
    DataEntry(
        offset=0,
        section_type=guid.MEMORY,
        error_severity=Severity.RECOVERABLE,
        revision=0x300,
        validation_bits=0,
        flags=0,
        error_data_length=memory.LENGTH,
        fru_id=bytes(16),
        fru_text=bytes(20),
        timestamp=bytes(8),
        payload_offset=72,
    )
)
_HEADER: Final = encode_block_header(_UNCORRECTABLE, 0, 0, len(_ENTRY) + memory.LENGTH, Severity.RECOVERABLE)


def encode_guest_record(ipa: int) -> bytes:
    """Return the 172 bytes of a status block that reports one guest page as lost. Mirrors QEMU's `acpi_ghes_memory_errors`.

    `ipa` is the guest physical address, bytes; it keeps its offset within the page. The address mask is not valid, so that a Linux
    guest poisons exactly one page.
    """
    return _HEADER + _ENTRY + _SECTION.pack(memory.PHYSICAL_ADDRESS_VALID | _ERROR_TYPE_VALID, 0, ipa)


def guest_pages(translation: Translate, page_size: int) -> Iterator[int]:
    """Yield one address in each lost guest page: first the primary address, then the others in the order of the ranges."""
    mask = -page_size
    done = set()
    if translation.primary is not None:
        done.add(translation.primary & mask)
        yield translation.primary
    for part in translation.ranges:
        for page in range(part.ipa & mask, part.ipa + part.length, page_size):
            if page not in done:
                done.add(page)
                yield max(page, part.ipa)


def count_guest_pages(translation: Translate, page_size: int) -> int:
    """Return the number of lost guest pages; a page in two ranges counts once."""
    count, last = 0, -1
    for low, high in sorted((part.ipa // page_size, (part.ipa + part.length - 1) // page_size) for part in translation.ranges):
        count += max(0, high - max(low, last + 1) + 1)
        last = max(last, high)
    return count
