"""Sections and status blocks from fields that a reader has checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ras_triage.models.records.block_fields import OpaqueSection, StructuredBlock, encode_structured
from ras_triage.models.sections.arm_processor import ArmContext, ArmErrorInfo
from ras_triage.models.sections.registry import SECTIONS
from ras_triage.models.sections.section import StructuredSection

_EMPTY: Final[dict[str, StructuredSection]] = {name: section.model_construct(type=name) for name, section in SECTIONS.items()}
_EMPTY_OPAQUE: Final = OpaqueSection.model_construct(type=b"")
_EMPTY_INFO: Final = ArmErrorInfo.model_construct()
_EMPTY_BLOCK: Final = StructuredBlock.model_construct(severity=0)
"""Copies are made of these: validation takes longer than all else that a reader does with a section."""


def make_section(fields: Mapping[str, Any]) -> StructuredSection | OpaqueSection:
    """Return the section with these fields, unchecked but for its `type`: a name, or the bytes of a GUID."""
    if isinstance(fields["type"], bytes):
        return _EMPTY_OPAQUE.model_copy(update=fields)
    if "error_infos" in fields:
        infos = tuple(_EMPTY_INFO.model_copy(update=info) for info in fields["error_infos"])
        contexts = tuple(ArmContext.model_construct(**context) for context in fields["contexts"])
        fields = {**fields, "error_infos": infos, "contexts": contexts}
    return _EMPTY[fields["type"]].model_copy(update=fields)


def encode_sections(severity: int, sections: Iterable[StructuredSection | OpaqueSection]) -> bytes:
    """Encode the block with these sections. Raises ValueError for a value that does not fit, or fields that contradict each other."""
    return encode_structured(_EMPTY_BLOCK.model_copy(update={"severity": severity, "sections": tuple(sections)}))
