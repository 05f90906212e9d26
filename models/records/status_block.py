"""Generic Error Status Block and data entries (ACPI 6.5 18.3.2.7.1) as bytes.

`parse_block` accepts any bytes, in one pass and in linear time: firmware's buffer is longer than the bytes that a sender has, so missing
bytes read as zero. `decode_block` requires a complete and well-formed block.
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

BLOCK_STATUS_MAX = 0x3FFF
"""The highest block status with no reserved bit set."""

_HEADER_FIELDS = ("block_status", "raw_data_offset", "raw_data_length", "data_length", "error_severity")


@frozen
class DataEntry:
    """Header of a Generic Error Data Entry: 64 bytes, or 72 from revision 3 on (ACPI 6.5 table 18.12)."""

    offset: int
    """Bytes from the start of the block."""
    section_type: Guid
    error_severity: int
    """u32"""
    revision: int
    """u16, major revision in the upper byte."""
    validation_bits: int
    """u8: 0 FRU id, 1 FRU text, 2 timestamp."""
    flags: int
    """u8, see `EntryFlag`."""
    error_data_length: int
    """u32, bytes of payload."""
    fru_id: Guid
    fru_text: bytes
    """20 bytes, NUL padded, not always NUL terminated."""
    timestamp: bytes | None
    """8 bytes of BCD; revision 3 only."""
    payload_offset: int = 0
    """Bytes from the start of the block to the section body; unused for encoding."""

    @property
    def header_length(self) -> int:
        return entry_header_length(self.revision)


@frozen
class StatusBlock:
    """A Generic Error Status Block: its header, its entries, and the bytes themselves."""

    block_status: int
    """u32. Bit 0 uncorrectable, 1 correctable, 2 and 3 several of each, 4 to 13 entry count. 0: no error is pending."""
    raw_data_offset: int
    """u32, bytes from the start of the block."""
    raw_data_length: int
    """u32, bytes."""
    data_length: int
    """u32, bytes of all entries with their headers."""
    error_severity: int
    """u32"""
    entries: tuple[DataEntry, ...]
    """The entries that begin within the sender's bytes, up to the first malformed one."""
    empty_entries: int
    """Number of all-zero entries of 64 bytes in the missing part of the block, which reads as zero."""
    format_error: MalformedBytes | None
    """The reason why the entries do not fill `data_length` exactly; None if they do."""
    data: bytes
    """The sender's bytes."""
    end: int
    """Length of header and entries as stated, bytes."""
    is_complete: bool
    """Whether the sender's bytes contain all of header and entries."""

    def window(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset`; missing bytes read as zero."""
        return self.data[offset : offset + length].ljust(length, b"\0")


def begins_block(data: bytes) -> bool:
    """Return whether the bytes can begin a status block, complete or truncated: no reserved bit is set in the block status."""
    return int.from_bytes(data[:4], "little") <= BLOCK_STATUS_MAX


def entry_header_length(revision: int) -> int:
    """Return 72 for an entry with a timestamp (major revision 3 and later), else 64."""
    return ENTRY_V3_LENGTH if revision >> 8 >= 3 else ENTRY_LENGTH


def parse_block(data: bytes) -> StatusBlock:
    """Parse a block of any length and any content; never raises."""
    block_status, raw_offset, raw_length, data_length, severity = HEADER.unpack(data[:HEADER_LENGTH].ljust(HEADER_LENGTH, b"\0"))
    entries: list[DataEntry] = []
    empty = 0
    format_error = None
    offset, end = HEADER_LENGTH, HEADER_LENGTH + data_length
    while offset < end:
        if offset >= len(data):
            empty, left = divmod(end - offset, ENTRY_LENGTH)
            if left:
                format_error = _leftover(end - left, left, len(entries) + empty)
            break
        if end - offset < ENTRY_LENGTH:
            format_error = _leftover(offset, end - offset, len(entries))
            break
        entry = _parse_entry(data, offset)
        following = entry.payload_offset + entry.error_data_length
        if following > end:
            format_error = MalformedBytes(
                f"a header of {entry.header_length} bytes and {entry.error_data_length} of data exceed the {end - offset} bytes left",
                offset=offset + 24,
                field="error_data_length",
                section=len(entries),
            )
            break
        entries.append(entry)
        offset = following
    # In the order of the fields: keywords here and for the entries take 2% of the time of a decision.
    return StatusBlock(
        block_status,
        raw_offset,
        raw_length,
        data_length,
        severity,
        tuple(entries),
        empty,
        format_error,
        data,
        end,
        len(data) >= end,
    )


def _parse_entry(data: bytes, offset: int) -> DataEntry:
    head = data[offset : offset + ENTRY_V3_LENGTH].ljust(ENTRY_V3_LENGTH, b"\0")
    section_type, severity, revision, validation, flags, length, fru_id, fru_text = ENTRY.unpack_from(head)
    header = entry_header_length(revision)
    timestamp = head[ENTRY_LENGTH:] if header == ENTRY_V3_LENGTH else None
    return DataEntry(
        offset,
        section_type,
        severity,
        revision,
        validation,
        flags,
        length,
        fru_id,
        fru_text,
        timestamp,
        offset + header,
    )


def _leftover(offset: int, left: int, section: int) -> MalformedBytes:
    return MalformedBytes(f"{left} bytes are left, too few for an entry header of 64", offset=offset, field="data_length", section=section)


def decode_block(data: bytes) -> StatusBlock:
    """Decode a complete, well-formed block; bytes after it, such as raw data, are preserved in `data`.

    Raises MalformedBytes with offset, section and field.
    """
    if len(data) < HEADER_LENGTH:
        field = _HEADER_FIELDS[len(data) // 4]
        detail = f"the block ends after {len(data)} bytes, within its header of {HEADER_LENGTH}"
        raise MalformedBytes(detail, offset=len(data), field=field)
    block = parse_block(data)
    if block.format_error is not None:
        raise block.format_error
    if not block.is_complete:
        raise MalformedBytes(
            f"the stated length is {block.end} bytes, the input has {len(data)}",
            offset=len(data),
            field="data_length",
            section=len(block.entries) - 1 if block.entries else None,
        )
    return block


def encode_block_header(block_status: int, raw_data_offset: int, raw_data_length: int, data_length: int, error_severity: int) -> bytes:
    """Return the 20 bytes of a status block header."""
    return HEADER.pack(block_status, raw_data_offset, raw_data_length, data_length, error_severity)


def encode_entry(entry: DataEntry) -> bytes:
    """Return the 64 or 72 bytes of a data entry header."""
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
