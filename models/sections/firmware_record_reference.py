"""Firmware error record reference section (UEFI 2.10 N.2.10)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from ras_triage.models.scalars import U8, Hex64
from ras_triage.models.sections.fields import GuidValue
from ras_triage.models.sections.layout import Layout, LayoutField, layout_of, with_layout
from ras_triage.models.sections.section import StructuredSection

LENGTH = 16
"""Bytes of revision 0."""
GUID_LENGTH = 32
"""Bytes of revision 1 and later: the record is identified by a GUID."""

_RECORD_TYPES = ("Itanium SAL error record", "SoC firmware error record type 1", "SoC firmware error record type 2")


@with_layout(LENGTH)
class FirmwareRecordReference(StructuredSection):
    """Firmware error record reference: 16 bytes, 32 from revision 1 on (UEFI 2.10 N.2.10).

    The vendor's record follows as `trailing`.
    """

    GUID_LAYOUT: ClassVar[Layout]
    """Layout of revision 1 and later."""

    type: Literal["firmware_record_reference"] = "firmware_record_reference"
    record_type: Annotated[U8 | None, LayoutField(0, 1)] = None
    """0 Itanium SAL, 1 and 2 SoC firmware error record of that type."""
    record_revision: Annotated[U8 | None, LayoutField(1, 1)] = None
    """Absent in a request: 2 with a `record_guid`, else 0."""
    record_id: Annotated[Hex64 | None, LayoutField(8, 8)] = None
    """Revision 0; zero in later ones."""
    record_guid: Annotated[GuidValue | None, LayoutField(16, 16, kind="bytes")] = None
    """Revision 1 and later."""

    @classmethod
    def decode_payload(cls, payload: bytes) -> dict[str, Any]:
        layout = cls.GUID_LAYOUT if len(payload) > 1 and payload[1] else cls.LAYOUT
        fields = layout.decode(payload)
        if len(payload) > layout.size:
            fields["trailing"] = payload[layout.size :]
        return fields

    def encode_payload(self) -> bytes:
        revision = self.record_revision
        if revision is None:
            revision = 0 if self.record_guid is None else 2
        if self.record_guid is not None and revision == 0:
            raise ValueError("`record_guid` needs a `record_revision` of 1 or more")
        layout = self.GUID_LAYOUT if revision else self.LAYOUT
        return self.join(layout.encode(self.__dict__, defaults={"record_revision": revision}))

    def readings(self) -> dict[str, Any]:
        number = self.record_type or 0
        return super().readings() | {"record_type": _RECORD_TYPES[number] if number < len(_RECORD_TYPES) else f"unknown ({number})"}


FirmwareRecordReference.GUID_LAYOUT = layout_of(FirmwareRecordReference, GUID_LENGTH)
