"""Section models by section type."""

from __future__ import annotations

from ras_triage.models.records.guid import SECTION_TYPES, Guid
from ras_triage.models.sections.arm_processor import ArmProcessor
from ras_triage.models.sections.cxl import CxlDram, CxlGeneralMedia, CxlMemoryModule, CxlProtocol
from ras_triage.models.sections.firmware_record_reference import FirmwareRecordReference
from ras_triage.models.sections.generic_processor import GenericProcessor
from ras_triage.models.sections.memory import Memory, Memory2
from ras_triage.models.sections.pcie import Pcie
from ras_triage.models.sections.section import StructuredSection

SECTIONS: dict[str, type[StructuredSection]] = {
    "memory": Memory,
    "memory2": Memory2,
    "arm_processor": ArmProcessor,
    "pcie": Pcie,
    "generic_processor": GenericProcessor,
    "firmware_record_reference": FirmwareRecordReference,
    "cxl_protocol": CxlProtocol,
    "cxl_general_media": CxlGeneralMedia,
    "cxl_dram": CxlDram,
    "cxl_memory_module": CxlMemoryModule,
}
"""Section models by their name on the wire."""

SECTIONS_BY_GUID: dict[Guid, type[StructuredSection]] = {SECTION_TYPES[name]: section for name, section in SECTIONS.items()}
"""Section models by section type GUID."""
