"""CPER records (UEFI 2.10 N.2): header, section descriptors and bodies."""

from __future__ import annotations

import struct
from typing import Any

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.records.block_fields import FRU_TEXT_LENGTH, default_block_status, describe_block
from ras_triage.models.records.guid import NULL, Guid, guid, guid_text
from ras_triage.models.records.status_block import DataEntry, StatusBlock, decode_block, encode_block_header, encode_entry
from ras_triage.models.scalars import U32, EncodedBytes, Hex8, Hex16, Hex32, Hex64, WireModel
from ras_triage.models.sections.fields import NO_TIMESTAMP, FruText, GuidValue, SeverityCode, Timestamp, join_timestamp, split_timestamp
from ras_triage.models.sections.section import ENTRY_REVISION

HEADER = struct.Struct("<4sHIHIII8s16s16s16s16sQIQ12s")
HEADER_LENGTH = 128
DESCRIPTOR = struct.Struct("<IIHBBI16s16sI20s")
DESCRIPTOR_LENGTH = 72

SIGNATURE = b"CPER"
SIGNATURE_END = 0xFFFFFFFF
RECORD_REVISION = 0x0101
"""Revision of a record header (UEFI 2.10 N.2.1)."""
SECTION_REVISION = 0x0100

PLATFORM_ID_VALID = 1 << 0
TIMESTAMP_VALID = 1 << 1
PARTITION_ID_VALID = 1 << 2
_ENTRY_TIMESTAMP_VALID = 1 << 2
_ENTRY_FRU_VALID = 0b11

NOTIFICATION_TYPES = {
    "cmc": guid("2dce8bb1-bdd7-450e-b9ad-9cf4ebd4f890"),
    "cpe": guid("4e292f96-d843-4a55-a8c2-d481f27ebeee"),
    "mce": guid("e8f56ffe-919c-4cc5-ba88-65abe14913bb"),
    "pcie": guid("cf93c01f-1a16-4dfc-b8bc-9c4daf67c104"),
    "init": guid("cc5263e8-9308-454a-89d0-340bd39bc98e"),
    "nmi": guid("5bad89ff-b7e6-42c9-814a-cf2485d6e98a"),
    "boot": guid("3d61a466-ab40-409a-a698-f362d464b38f"),
    "dmar": guid("667dd791-c6b3-4c27-8a6b-0f8e722deb41"),
    "sea": guid("9a78788a-bbe8-11e4-809e-67611e5d46b0"),
    "sei": guid("5c284c81-b0ae-4e87-a322-b04c85624323"),
    "pei": guid("09a9d5ac-5204-4214-96e5-94992e752bcd"),
    "cxl": guid("69293bc9-41df-49a3-b4bd-4fb0db3041f6"),
}
"""CPER notification types (UEFI 2.10 N.2.1.1). They differ from HEST notification types: polled, GPIO, GSIV and SDEI have none."""

_NOTIFICATION_NAMES = {value: name for name, value in NOTIFICATION_TYPES.items()}


def notification_name(value: Guid) -> str:
    """Return the name of the notification type, or its GUID as text."""
    return _NOTIFICATION_NAMES.get(value) or guid_text(value)


class SectionDescriptor(WireModel):
    """Section descriptor: position and type of a section; 72 bytes (UEFI 2.10 N.2.2)."""

    section_offset: U32
    """Bytes from the start of the record."""
    section_length: U32
    """Bytes."""
    revision: Hex16 = SECTION_REVISION
    validation_bits: Hex8 = 0
    """0 FRU id, 1 FRU text."""
    reserved: Hex8 = 0
    flags: Hex32 = 0
    """The low 8 bits are `EntryFlag`."""
    section_type: GuidValue
    fru_id: GuidValue = NULL
    severity: SeverityCode
    """32 bits."""
    fru_text: FruText = ""

    def encode(self) -> bytes:
        """Return the 72 bytes of the descriptor."""
        return DESCRIPTOR.pack(
            self.section_offset,
            self.section_length,
            self.revision,
            self.validation_bits,
            self.reserved,
            self.flags,
            self.section_type,
            self.fru_id,
            self.severity,
            self.fru_text.encode("latin-1"),
        )


class CperRecord(WireModel):
    """A CPER record: 128 bytes of header (UEFI 2.10 N.2.1), the section descriptors, and all bytes after them.

    The bodies of the sections are in `body`, at the positions in their descriptors; bytes between and after them are preserved.
    """

    revision: Hex16 = RECORD_REVISION
    severity: SeverityCode
    """32 bits."""
    validation_bits: Hex32 = 0
    """0 platform id, 1 timestamp, 2 partition id."""
    record_length: U32
    """Bytes as stated, including headers. Bytes after it belong to no section."""
    timestamp: Timestamp = NO_TIMESTAMP
    """BCD by the specification; Linux writes Unix seconds in pstore records."""
    timestamp_precise: bool = False
    """Bit 0 of the timestamp's flag byte."""
    platform_id: GuidValue = NULL
    partition_id: GuidValue = NULL
    creator_id: GuidValue = NULL
    notification_type: GuidValue = NULL
    record_id: Hex64 = 0
    flags: Hex32 = 0
    """1 recovered, 2 previous error, 4 simulated."""
    persistence_information: Hex64 = 0
    reserved: EncodedBytes = bytes(12)
    """12 bytes."""
    sections: tuple[SectionDescriptor, ...] = ()
    body: EncodedBytes = b""
    """Bytes after the last descriptor, to the end of the input."""

    @property
    def headers_length(self) -> int:
        """Return the length of the header and the descriptors, bytes."""
        return HEADER_LENGTH + DESCRIPTOR_LENGTH * len(self.sections)

    def payload(self, section: SectionDescriptor) -> bytes:
        """Return the bytes of one section body."""
        start = section.section_offset - self.headers_length
        return self.body[start : start + section.section_length]


def decode_record(data: bytes) -> CperRecord:
    """Decode a record; bytes after it are preserved.

    The stated length may exceed the input if every section is complete. Raises MalformedBytes with offset, section and field.
    """
    if len(data) < HEADER_LENGTH:
        raise MalformedBytes(
            f"the record ends after {len(data)} bytes, within its header of {HEADER_LENGTH}", offset=len(data), field="record_header"
        )
    fields = HEADER.unpack_from(data)
    signature, revision, signature_end, count, severity, validation, length, timestamp = fields[:8]
    if signature != SIGNATURE:
        raise MalformedBytes("unknown signature; expected `CPER`", offset=0, field="signature_start")
    if signature_end != SIGNATURE_END:
        raise MalformedBytes(f"signature end {signature_end:#010x}; expected {SIGNATURE_END:#x}", offset=6, field="signature_end")
    _require_headers(count, length, len(data))
    stamp, precise = split_timestamp(timestamp)
    return CperRecord.model_construct(
        revision=revision,
        severity=severity,
        validation_bits=validation,
        record_length=length,
        timestamp=stamp,
        timestamp_precise=precise,
        **dict(zip(_ID_FIELDS, fields[8:], strict=True)),
        sections=tuple(_decode_descriptor(data, index, count, length) for index in range(count)),
        body=data[HEADER_LENGTH + DESCRIPTOR_LENGTH * count :],
    )


_ID_FIELDS = (
    "platform_id",
    "partition_id",
    "creator_id",
    "notification_type",
    "record_id",
    "flags",
    "persistence_information",
    "reserved",
)


def _require_headers(count: int, length: int, there: int) -> None:
    headers = HEADER_LENGTH + DESCRIPTOR_LENGTH * count
    if length < headers:
        raise MalformedBytes(
            f"the stated length is {length} bytes; header and {count} section descriptors need {headers}", offset=20, field="record_length"
        )
    if there < headers:
        raise MalformedBytes(
            f"{count} section descriptors end at byte {headers}; the input has {there} bytes", offset=10, field="section_count"
        )


def unpack_descriptor(data: bytes, at: int = 0) -> SectionDescriptor:
    """Return the section descriptor at byte `at` (UEFI 2.10 N.2.2). Its offset and length are not checked."""
    offset, length, revision, validation, reserved, flags, section_type, fru_id, severity, fru_text = DESCRIPTOR.unpack_from(data, at)
    return SectionDescriptor.model_construct(
        section_offset=offset,
        section_length=length,
        revision=revision,
        validation_bits=validation,
        reserved=reserved,
        flags=flags,
        section_type=section_type,
        fru_id=fru_id,
        severity=severity,
        fru_text=fru_text.decode("latin-1").rstrip("\0"),
    )


def _decode_descriptor(data: bytes, index: int, count: int, record_length: int) -> SectionDescriptor:
    at = HEADER_LENGTH + DESCRIPTOR_LENGTH * index
    descriptor = unpack_descriptor(data, at)
    offset, length = descriptor.section_offset, descriptor.section_length
    headers, end = HEADER_LENGTH + DESCRIPTOR_LENGTH * count, min(record_length, len(data))
    if not headers <= offset <= end:
        raise MalformedBytes(
            f"the section begins at byte {offset}; expected {headers} to {end}, after the descriptors",
            offset=at,
            field="section_offset",
            section=index,
        )
    if offset + length > end:
        raise MalformedBytes(
            f"the section's {length} bytes from byte {offset} do not fit into the {end} bytes of the record",
            offset=at + 4,
            field="section_length",
            section=index,
        )
    return descriptor


def encode_record(record: CperRecord) -> bytes:
    """Return the bytes of the record."""
    header = HEADER.pack(
        SIGNATURE,
        record.revision,
        SIGNATURE_END,
        len(record.sections),
        record.severity,
        record.validation_bits,
        record.record_length,
        join_timestamp(record.timestamp, is_precise=record.timestamp_precise),
        *(getattr(record, name) for name in _ID_FIELDS),
    )
    return header + b"".join(section.encode() for section in record.sections) + record.body


def to_status_block(record: CperRecord) -> bytes:
    """Convert a record to the status block that firmware would write for the same sections.

    Data entries have headers of 72 bytes; each gets the record's timestamp if that is valid. Raises MalformedBytes if sections overlap, so
    that together they are longer than the record.
    """
    if sum(section.section_length for section in record.sections) > len(record.body):
        raise MalformedBytes("the sections together are longer than the record", offset=HEADER_LENGTH, field="section_length")
    stamped = bool(record.validation_bits & TIMESTAMP_VALID)
    stamp = join_timestamp(record.timestamp, is_precise=record.timestamp_precise) if stamped else NO_TIMESTAMP
    entries = b"".join(_to_entry(record, section, stamp, stamped) for section in record.sections)
    status = default_block_status(record.severity, len(record.sections))
    return encode_block_header(status, 0, 0, len(entries), record.severity) + entries


def _to_entry(record: CperRecord, section: SectionDescriptor, stamp: bytes, stamped: bool) -> bytes:
    entry = DataEntry(
        offset=0,
        section_type=section.section_type,
        error_severity=section.severity,
        revision=ENTRY_REVISION,
        validation_bits=section.validation_bits & _ENTRY_FRU_VALID | (_ENTRY_TIMESTAMP_VALID if stamped else 0),
        flags=section.flags & 0xFF,
        error_data_length=section.section_length,
        fru_id=section.fru_id,
        fru_text=section.fru_text.encode("latin-1").ljust(FRU_TEXT_LENGTH, b"\0"),
        timestamp=stamp,
    )
    return encode_entry(entry) + record.payload(section)


def from_status_block(data: bytes, notification_type: Guid, *, record_id: int = 0, creator_id: Guid = NULL) -> CperRecord:
    """Convert a complete, well-formed status block to a record; its timestamp is that of the first data entry with one.

    Block status, raw data and timestamps of single entries are not converted. Raises MalformedBytes with offset, section and field.
    """
    block = decode_block(data)
    offset = HEADER_LENGTH + DESCRIPTOR_LENGTH * len(block.entries)
    descriptors: list[SectionDescriptor] = []
    for entry in block.entries:
        descriptors.append(_to_descriptor(entry, offset))
        offset += entry.error_data_length
    stamp = _first_timestamp(block)
    timestamp, precise = split_timestamp(stamp or NO_TIMESTAMP)
    return CperRecord(
        severity=block.error_severity,
        validation_bits=0 if stamp is None else TIMESTAMP_VALID,
        record_length=offset,
        timestamp=timestamp,
        timestamp_precise=precise,
        creator_id=creator_id,
        notification_type=notification_type,
        record_id=record_id,
        sections=tuple(descriptors),
        body=b"".join(data[entry.payload_offset : entry.payload_offset + entry.error_data_length] for entry in block.entries),
    )


def _first_timestamp(block: StatusBlock) -> bytes | None:
    stamps = (entry.timestamp for entry in block.entries if entry.validation_bits & _ENTRY_TIMESTAMP_VALID)
    return next((stamp for stamp in stamps if stamp is not None), None)


def _to_descriptor(entry: DataEntry, offset: int) -> SectionDescriptor:
    return SectionDescriptor(
        section_offset=offset,
        section_length=entry.error_data_length,
        validation_bits=entry.validation_bits & _ENTRY_FRU_VALID,
        flags=entry.flags,
        section_type=entry.section_type,
        fru_id=entry.fru_id,
        severity=entry.error_severity,
        fru_text=entry.fru_text.decode("latin-1").rstrip("\0"),
    )


def describe_record(data: bytes) -> dict[str, Any]:
    """Decode a well-formed record for display: `record`, its header and descriptors, and `describe_block` of its status block.

    Raises MalformedBytes with offset, section and field.
    """
    record = decode_record(data)
    return {
        "record": record.model_dump(mode="json", exclude={"body"}),
        "notification": notification_name(record.notification_type),
        **describe_block(to_status_block(record)),
    }
