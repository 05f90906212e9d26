"""Section base classes: the data entry, and bytes that belong to no field."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ValidationInfo, model_validator

from ras_triage.models.records.status_block import ENTRY_LENGTH, entry_header_length
from ras_triage.models.scalars import U16, EncodedBytes, FailFastTuple, Hex8, Hex16, WireModel
from ras_triage.models.sections.fields import EntryFlags, FruText, GuidValue, SeverityCode, Timestamp
from ras_triage.models.sections.layout import Layout, ReservedBytes

ENTRY_REVISION = 0x0300
"""The data entry revision that carries a timestamp (ACPI 6.5 table 18.12)."""


class Section(WireModel):
    """A section and the Generic Error Data Entry around it (ACPI 6.5 table 18.12).

    A field that is None is absent: its validation bit is clear and its bytes are zero. If `validation_bits` or `entry_validation_bits` are
    absent, they follow from the fields present.
    """

    type: Any
    """Section type."""
    severity: SeverityCode | None = None
    """32 bits; absent in a request: that of the block."""
    flags: EntryFlags = 0
    """Flags of the data entry."""
    revision: Hex16 = ENTRY_REVISION
    """Major revision in the upper byte; below 0x0300 the entry has no timestamp."""
    entry_validation_bits: Hex8 | None = None
    """0 FRU id, 1 FRU text, 2 timestamp."""
    fru_id: GuidValue | None = None
    """GUID of the field replaceable unit."""
    fru_text: FruText | None = None
    """Text that identifies the field replaceable unit."""
    timestamp: Timestamp | None = None
    """When firmware saw the error; whole seconds."""
    timestamp_precise: bool = False
    """Bit 0 of the timestamp's flag byte."""

    @model_validator(mode="after")
    def _require_room_for_timestamp(self) -> Self:
        if self.timestamp is not None and entry_header_length(self.revision) == ENTRY_LENGTH:
            raise ValueError(f"a `timestamp` requires a `revision` of {ENTRY_REVISION:#x} or more")
        return self


class StructuredSection(Section):
    """A section type whose body has a layout.

    Validation encodes the section to see that it can be encoded. A dictionary as validation context gets the bytes, by `id` of the section.
    """

    LAYOUT: ClassVar[Layout]

    reserved: FailFastTuple[ReservedBytes] = ()
    """Nonzero reserved bytes of the structure."""
    trailing: EncodedBytes | None = None
    """Bytes after all structures."""
    payload_length: U16 | None = None
    """Bytes; only if the payload ends within its structure."""

    @classmethod
    def decode_payload(cls, payload: bytes) -> dict[str, Any]:
        """Return the fields of a payload of any length and content."""
        fields = cls.LAYOUT.decode(payload)
        if len(payload) > cls.LAYOUT.size:
            fields["trailing"] = payload[cls.LAYOUT.size :]
        return fields

    def encode_payload(self) -> bytes:
        """Return the section's bytes. Raises ValueError if fields contradict each other."""
        return self.join(self.LAYOUT.encode(self.__dict__))

    def join(self, structure: bytes, *parts: bytes | None) -> bytes:
        """Join the structure, the `parts` present and the trailing bytes. Raises ValueError if anything follows a truncated structure."""
        behind = b"".join([part for part in (*parts, self.trailing) if part])
        if behind and self.payload_length is not None:
            raise ValueError("`payload_length` truncates the structure, so no bytes can follow it")
        return structure + behind

    def readings(self) -> dict[str, Any]:
        """Return names and derived values for display; not part of the input."""
        not_valid = self.LAYOUT.invalid_fields(self.__dict__)
        return {"not_valid": not_valid} if not_valid else {}

    @model_validator(mode="after")
    def _require_encodable(self, info: ValidationInfo) -> Self:
        payload = self.encode_payload()
        if info.context is not None:
            info.context[id(self)] = payload
        return self
