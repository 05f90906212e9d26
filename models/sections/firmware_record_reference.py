"""Firmware error record reference section (UEFI 2.10 N.2.10)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from ras_triage.models.scalars import U8, Hex64
from ras_triage.models.sections.fields import GuidValue
from ras_triage.models.sections.layout import Layout, LayoutField
from ras_triage.models.sections.section import StructuredSection

LENGTH = 16
"""Bytes of revision 0."""
GUID_LENGTH = 32
"""Bytes of revision 1 and later: the record is identified by a GUID."""

_RECORD_TYPES = ("Itanium SAL error record", "SoC firmware error record type 1", "SoC firmware error record type 2")
_REVISION_0 = (
    LayoutField("record_type", 0, 1),
    LayoutField("record_revision", 1, 1),
    LayoutField("record_id", 8, 8),
)


class FirmwareRecordReference(StructuredSection):
    """Firmware error record reference: 16 bytes, 32 from revision 1 on (UEFI 2.10 N.2.10).

    The vendor's record follows as `trailing`.
    """

    LAYOUT: ClassVar[Layout] = Layout(LENGTH, _REVISION_0)
    GUID_LAYOUT: ClassVar[Layout] = Layout(GUID_LENGTH, (*_REVISION_0, LayoutField("record_guid", 16, 16, kind="bytes")))

    type: Literal["firmware_record_reference"] = "firmware_record_reference"
    record_type: U8 | None = None
    record_revision: U8 | None = None
    """Absent in a request: 2 with a `record_guid`, else 0."""
    record_id: Hex64 | None = None
    """Revision 0; zero in later ones."""
    record_guid: GuidValue | None = None
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
