"""The Generic Error Status Block and its data entries (ACPI 6.5 18.3.2.7.1), as bytes.

`parse` reads whatever it is given, in one pass and in time linear in what it was given: firmware's buffer goes on behind the bytes
that a sender has, so what is missing reads as zero. `decode` insists on a block that is whole and well formed.
"""

from __future__ import annotations

import struct

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.frozen import frozen
from ras_triage.models.records.guid import Guid

HEADER = struct.Struct("<5I")
HEADER_LENGTH = 20
ENTRY = struct.Struct("<16sIHBBI16s20s")
ENTRY_LENGTH = 64
ENTRY_V3_LENGTH = 72
TIMESTAMP_LENGTH = 8

_HEADER_FIELDS = ("block_status", "raw_data_offset", "raw_data_length", "data_length", "error_severity")


@frozen
class DataEntry:
    """A Generic Error Data Entry's header, 64 bytes, or 72 from revision 3 on (ACPI 6.5 table 18.12)."""

    offset: int
    """Bytes from the start of the block."""
    section_type: Guid
    error_severity: int
    """u32"""
    revision: int
    """u16, major in the upper byte."""
    validation_bits: int
    """u8: 0 FRU id, 1 FRU text, 2 timestamp."""
    flags: int
    """u8, see `EntryFlag`."""
    error_data_length: int
    """u32, bytes of payload."""
    fru_id: Guid
    fru_text: bytes
    """20 bytes, NUL padded, not always terminated."""
    timestamp: bytes | None
    """8 bytes of BCD; revision 3 only."""
    payload_offset: int = 0
    """Bytes from the start of the block to the section's body; an entry that is still to be encoded has no place yet."""

    @property
    def header_length(self) -> int:
        return entry_header_length(self.revision)


@frozen
class StatusBlock:
    """A Generic Error Status Block: its header, its entries, and the bytes themselves."""

    block_status: int
    """u32: 0 uncorrectable, 1 correctable, 2 and 3 several of each, 4 to 13 entry count; 0 as a whole: nothing is pending."""
    raw_data_offset: int
    """u32, bytes from the start of the block."""
    raw_data_length: int
    """u32, bytes."""
    data_length: int
    """u32, bytes of all entries with their headers."""
    error_severity: int
    """u32"""
    entries: tuple[DataEntry, ...]
    """The entries that begin within the given bytes, as far as they are well formed."""
    empty_entries: int
    """How many all-zero 64-byte entries follow in the part of the block that was not given and reads as zero."""
    fault: MalformedBytes | None
    """Why the entries do not fill `data_length` exactly; None where they do."""
    data: bytes
    """The bytes as given."""
    end: int
    """Bytes that header and entries claim."""
    is_whole: bool
    """Whether every byte that the header and entries claim was given."""

    def window(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; what was not given reads as zero."""
        return self.data[offset : offset + length].ljust(length, b"\0")


def entry_header_length(revision: int) -> int:
    """72 bytes when the entry carries a timestamp (major revision 3 and up), else 64."""
    return ENTRY_V3_LENGTH if revision >> 8 >= 3 else ENTRY_LENGTH


def parse(data: bytes) -> StatusBlock:
    """Read a block of any length and any content; never raises."""
    block_status, raw_offset, raw_length, data_length, severity = HEADER.unpack(data[:HEADER_LENGTH].ljust(HEADER_LENGTH, b"\0"))
    entries: list[DataEntry] = []
    empty = 0
    fault = None
    offset, end = HEADER_LENGTH, HEADER_LENGTH + data_length
    while offset < end:
        if offset >= len(data):
            empty, left = divmod(end - offset, ENTRY_LENGTH)
            if left:
                fault = _leftover(end - left, left, len(entries) + empty)
            break
        if end - offset < ENTRY_LENGTH:
            fault = _leftover(offset, end - offset, len(entries))
            break
        entry = _parse_entry(data, offset)
        following = entry.payload_offset + entry.error_data_length
        if following > end:
            fault = MalformedBytes(
                f"a header of {entry.header_length} bytes and {entry.error_data_length} of data do not fit into the {end - offset} left",
                offset=offset + 24,
                field="error_data_length",
                section=len(entries),
            )
            break
        entries.append(entry)
        offset = following
    return StatusBlock(
        block_status, raw_offset, raw_length, data_length, severity, tuple(entries), empty, fault, data, end, len(data) >= end
    )


def _parse_entry(data: bytes, offset: int) -> DataEntry:
    head = data[offset : offset + ENTRY_V3_LENGTH].ljust(ENTRY_V3_LENGTH, b"\0")
    section_type, severity, revision, validation, flags, length, fru_id, fru_text = ENTRY.unpack_from(head)
    header = entry_header_length(revision)
    timestamp = head[ENTRY_LENGTH:] if header == ENTRY_V3_LENGTH else None
    return DataEntry(offset, section_type, severity, revision, validation, flags, length, fru_id, fru_text, timestamp, offset + header)


def _leftover(offset: int, left: int, section: int) -> MalformedBytes:
    return MalformedBytes(
        f"{left} bytes are left over, too few for the 64 byte header of an entry", offset=offset, field="data_length", section=section
    )


def decode(data: bytes) -> StatusBlock:
    """Read a whole, well-formed block; bytes behind it, such as raw data, stay in `data`.

    Raises MalformedBytes with offset, section and field.
    """
    if len(data) < HEADER_LENGTH:
        field = _HEADER_FIELDS[len(data) // 4]
        detail = f"the block ends after {len(data)} bytes, within its {HEADER_LENGTH} byte header"
        raise MalformedBytes(detail, offset=len(data), field=field)
    block = parse(data)
    if block.fault is not None:
        raise block.fault
    if not block.is_whole:
        raise MalformedBytes(
            f"the block claims {block.end} bytes and {len(data)} are there",
            offset=len(data),
            field="data_length",
            section=len(block.entries) - 1 if block.entries else None,
        )
    return block


def encode_header(block_status: int, raw_data_offset: int, raw_data_length: int, data_length: int, error_severity: int) -> bytes:
    """The 20 bytes of a status block's header."""
    return HEADER.pack(block_status, raw_data_offset, raw_data_length, data_length, error_severity)


def encode_entry(entry: DataEntry) -> bytes:
    """The 64 or 72 bytes of a data entry's header."""
    head = ENTRY.pack(
        entry.section_type,
        entry.error_severity,
        entry.revision,
        entry.validation_bits,
        entry.flags,
        entry.error_data_length,
        entry.fru_id,
        entry.fru_text,
    )
    return head + (entry.timestamp or b"")
