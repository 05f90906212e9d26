"""Structured form of the status block, for JSON.

`encode_structured(decode_structured(data)) == data` for every well-formed block.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from ras_triage.models.records.guid import NULL, SECTION_TYPES, Guid, guid, section_name
from ras_triage.models.records.status_block import (
    ENTRY_LENGTH,
    HEADER_LENGTH,
    DataEntry,
    StatusBlock,
    begins_block,
    decode_block,
    encode_block_header,
    encode_entry,
    entry_header_length,
)
from ras_triage.models.scalars import BASE64_JSON, U32, EncodedBytes, FailFastTuple, Hex32, HexadecimalBytes, WireModel, decode_text
from ras_triage.models.sections.arm_processor import ArmProcessor
from ras_triage.models.sections.cxl import CxlDram, CxlGeneralMedia, CxlMemoryModule, CxlProtocol
from ras_triage.models.sections.fields import NO_TIMESTAMP, GuidValue, SeverityCode, join_timestamp, split_timestamp
from ras_triage.models.sections.firmware_record_reference import FirmwareRecordReference
from ras_triage.models.sections.generic_processor import GenericProcessor
from ras_triage.models.sections.memory import Memory, Memory2
from ras_triage.models.sections.pcie import Pcie
from ras_triage.models.sections.registry import SECTIONS_BY_GUID
from ras_triage.models.sections.section import Section, StructuredSection
from ras_triage.models.severity import Severity

FRU_TEXT_LENGTH = 20
"""Bytes."""
_NO_FRU_TEXT = bytes(FRU_TEXT_LENGTH)

UNCORRECTABLE_VALID = 1 << 0
CORRECTABLE_VALID = 1 << 1
_ENTRY_COUNT_SHIFT = 4
_ENTRY_COUNT_MAX = (1 << 10) - 1

_FRU_ID_VALID, _FRU_TEXT_VALID, _TIMESTAMP_VALID = 1 << 0, 1 << 1, 1 << 2


def decode_block_text(value: Any) -> Any:
    """Decode the base64 or hexadecimal of a status block; return bytes unchanged. Raises ValueError."""
    return decode_text(value, is_plausible_block, "a status block") if isinstance(value, str) else value


def is_plausible_block(data: bytes) -> bool:
    """Return whether decoded text can be a status block. Hexadecimal needs a whole header: a few digits are too often base64."""
    return begins_block(data) and (len(data) >= HEADER_LENGTH or not isinstance(data, HexadecimalBytes))


EncodedBlock = Annotated[bytes, BeforeValidator(decode_block_text), *BASE64_JSON]
"""Bytes of a status block; base64 in JSON, and in requests also hexadecimal."""


class OpaqueSection(Section):
    """A section of any type, with its body as bytes."""

    type: GuidValue
    """Section type GUID."""
    payload: EncodedBytes = b""
    """The body."""

    def encode_payload(self) -> bytes:
        """Return the bytes of the body."""
        return self.payload

    def readings(self) -> dict[str, Any]:
        """Return no derived values: the body is not decoded."""
        return {}


_OPAQUE = "guid"


def _tag(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if not isinstance(kind, str):
        return _OPAQUE if isinstance(kind, bytes) else None
    if kind in SECTION_TYPES:
        return kind
    try:
        guid(kind)
    except ValueError:
        return None
    return _OPAQUE


SectionInput = Annotated[
    Annotated[Memory, Tag("memory")]
    | Annotated[Memory2, Tag("memory2")]
    | Annotated[ArmProcessor, Tag("arm_processor")]
    | Annotated[Pcie, Tag("pcie")]
    | Annotated[GenericProcessor, Tag("generic_processor")]
    | Annotated[FirmwareRecordReference, Tag("firmware_record_reference")]
    | Annotated[CxlProtocol, Tag("cxl_protocol")]
    | Annotated[CxlGeneralMedia, Tag("cxl_general_media")]
    | Annotated[CxlDram, Tag("cxl_dram")]
    | Annotated[CxlMemoryModule, Tag("cxl_memory_module")]
    | Annotated[OpaqueSection, Tag(_OPAQUE)],
    Discriminator(
        _tag,
        custom_error_type="section_type",
        custom_error_message="a section requires a `type`: " + ", ".join(SECTION_TYPES) + ", or a GUID with a `payload`",
    ),
]
"""A section; its `type` is a name, or a GUID with the body as bytes."""


class StructuredBlock(WireModel):
    """A Generic Error Status Block (ACPI 6.5 18.3.2.7.1)."""

    severity: SeverityCode
    """32 bits."""
    sections: FailFastTuple[SectionInput] = ()
    """Sections with their data entries, in order."""
    block_status: Hex32 | None = None
    """Absent in a request: bit 0 for an uncorrectable severity, else bit 1; the section count in bits 13:4."""
    raw_data_offset: U32 | None = None
    """Bytes from the start of the block; absent in a request: after the sections and `gap` if there are raw data, else 0."""
    raw_data_length: U32 | None = None
    """Bytes as stated; absent in a request: those of `raw_data`."""
    gap: EncodedBytes | None = None
    """Bytes between the sections and the raw data."""
    raw_data: EncodedBytes | None = None
    """Raw data, if they are after the sections as specified."""
    trailing: EncodedBytes | None = None
    """Bytes after everything else."""


def encode_structured(value: dict[str, Any] | StructuredBlock) -> bytes:
    """Encode a block. Raises pydantic's ValidationError, a ValueError, with the path of the invalid field."""
    payloads: dict[int, bytes] = {}
    block = value if isinstance(value, StructuredBlock) else StructuredBlock.model_validate(value, context=payloads)
    entries = b"".join([_encode_entry(section, block.severity, payloads.get(id(section))) for section in block.sections])
    end = HEADER_LENGTH + len(entries)
    gap, raw, trailing = block.gap or b"", block.raw_data or b"", block.trailing or b""
    header = encode_block_header(
        _default(block.block_status, default_block_status(block.severity, len(block.sections))),
        _default(block.raw_data_offset, end + len(gap) if raw else 0),
        _default(block.raw_data_length, len(raw)),
        len(entries),
        block.severity,
    )
    return b"".join((header, entries, gap, raw, trailing))


def default_block_status(severity: int, sections: int) -> int:
    """Return the 32-bit block status for `sections` errors of a severity."""
    correctable = severity in (Severity.CORRECTED, Severity.INFORMATIONAL)
    count = min(sections, _ENTRY_COUNT_MAX)
    return (CORRECTABLE_VALID if correctable else UNCORRECTABLE_VALID) | count << _ENTRY_COUNT_SHIFT


def _default(value: int | None, default: int) -> int:
    return default if value is None else value


def _section_guid(section: Section) -> Guid:
    return section.type if isinstance(section.type, bytes) else SECTION_TYPES[section.type]


def _encode_entry(section: StructuredSection | OpaqueSection, block_severity: int, payload: bytes | None) -> bytes:
    """Return data entry and body of a section; `payload`: its body, if it is encoded already."""
    if payload is None:
        payload = section.encode_payload()
    # In the order of the fields, as in `parse_block`.
    entry = DataEntry(
        0,
        _section_guid(section),
        _default(section.severity, block_severity),
        section.revision,
        _default(section.entry_validation_bits, _entry_validation(section)),
        section.flags,
        len(payload),
        section.fru_id or NULL,
        _fru_text_bytes(section),
        _timestamp_bytes(section),
    )
    return encode_entry(entry) + payload


def _entry_validation(section: Section) -> int:
    fru_id = _FRU_ID_VALID if section.fru_id is not None else 0
    fru_text = _FRU_TEXT_VALID if section.fru_text is not None else 0
    return fru_id | fru_text | (_TIMESTAMP_VALID if section.timestamp is not None else 0)


def _fru_text_bytes(section: Section) -> bytes:
    return _NO_FRU_TEXT if section.fru_text is None else section.fru_text.encode("latin-1").ljust(FRU_TEXT_LENGTH, b"\0")


def _timestamp_bytes(section: Section) -> bytes | None:
    if entry_header_length(section.revision) == ENTRY_LENGTH:
        return None
    return join_timestamp(section.timestamp or NO_TIMESTAMP, is_precise=section.timestamp_precise)


def decode_structured(data: bytes) -> StructuredBlock:
    """Decode a complete, well-formed block. Raises MalformedBytes with offset, section and field."""
    block = decode_block(data)
    fields: dict[str, Any] = {
        "severity": block.error_severity,
        "sections": tuple(_decode_entry(block, entry) for entry in block.entries),
        "block_status": block.block_status,
        "raw_data_offset": block.raw_data_offset,
        "raw_data_length": block.raw_data_length,
    }
    return StructuredBlock.model_construct(**fields, **_split_rest(block))


def _split_rest(block: StatusBlock) -> dict[str, Any]:
    """Return the bytes after the sections: gap, raw data and trailing bytes if the raw data are there, else all as trailing."""
    start, end = block.raw_data_offset, block.raw_data_offset + block.raw_data_length
    if start < block.end or end > len(block.data) or not block.raw_data_length:
        start = end = block.end
    parts = {"gap": block.data[block.end : start], "raw_data": block.data[start:end], "trailing": block.data[end:]}
    return {name: part for name, part in parts.items() if part}


def _decode_entry(block: StatusBlock, entry: DataEntry) -> StructuredSection | OpaqueSection:
    payload = block.data[entry.payload_offset : entry.payload_offset + entry.error_data_length]
    header = _decode_header(entry)
    section = SECTIONS_BY_GUID.get(entry.section_type)
    if section is None:
        return OpaqueSection.model_construct(type=entry.section_type, payload=payload, **header)
    return section.model_construct(**header, **section.decode_payload(payload))


def _decode_header(entry: DataEntry) -> dict[str, Any]:
    header: dict[str, Any] = {
        "severity": entry.error_severity,
        "flags": entry.flags,
        "revision": entry.revision,
        "entry_validation_bits": entry.validation_bits,
    }
    if entry.validation_bits & _FRU_ID_VALID or entry.fru_id != NULL:
        header["fru_id"] = entry.fru_id
    if entry.validation_bits & _FRU_TEXT_VALID or any(entry.fru_text):
        header["fru_text"] = entry.fru_text.decode("latin-1").rstrip("\0")
    if entry.timestamp is not None and (entry.validation_bits & _TIMESTAMP_VALID or any(entry.timestamp)):
        header["timestamp"], header["timestamp_precise"] = split_timestamp(entry.timestamp)
    return header


def describe_block(data: bytes) -> dict[str, Any]:
    """Decode a well-formed block for display: `status_block`, which is valid in a request, and `readings`, one for each section.

    Raises MalformedBytes with offset, section and field.
    """
    block = decode_structured(data)
    return {
        "status_block": block.model_dump(mode="json", exclude_none=True),
        "readings": [_reading(section) for section in block.sections],
    }


def _reading(section: StructuredSection | OpaqueSection) -> dict[str, Any]:
    return {"name": section_name(_section_guid(section)), **section.readings()}
