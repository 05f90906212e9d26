"""GUIDs of CPER section types (UEFI 2.10 N.2.2), as bytes in record order."""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

Guid = bytes
"""16 bytes in record order: the first three groups little-endian (UEFI 2.10 appendix A)."""


def guid(text: str) -> Guid:
    """Return the record bytes of a GUID's text. Raises ValueError if it is not a GUID."""
    return UUID(text).bytes_le


@lru_cache(maxsize=1024)
def guid_text(value: Guid) -> str:
    """Return the text of a GUID's 16 record bytes."""
    return str(UUID(bytes_le=value))


NULL = bytes(16)

MEMORY = guid("a5bc1114-6f64-4ede-b863-3e83ed7c83b1")
MEMORY2 = guid("61ec04fc-48e6-d813-25c9-8daa44750b12")
ARM_PROCESSOR = guid("e19e3d16-bc11-11e4-9caa-c2051d5d46b0")
PCIE = guid("d995e954-bbc1-430f-ad91-b44dcb3c6f35")
GENERIC_PROCESSOR = guid("9876ccad-47b4-4bdb-b65e-16f193c4f3db")
FIRMWARE_RECORD_REFERENCE = guid("81212a96-09ed-4996-9471-8d729c8e69ed")
CXL_PROTOCOL = guid("80b9efb4-52b5-4de3-a777-68784b771048")
CXL_GENERAL_MEDIA = guid("fbcd0a77-c260-417f-85a9-088b1621eba6")
CXL_DRAM = guid("601dcbb3-9c06-4eab-b8af-4e9bfb5c9624")
CXL_MEMORY_MODULE = guid("fe927475-dd59-4339-a586-79bab113b774")

SECTION_TYPES = {
    "memory": MEMORY,
    "memory2": MEMORY2,
    "arm_processor": ARM_PROCESSOR,
    "pcie": PCIE,
    "generic_processor": GENERIC_PROCESSOR,
    "firmware_record_reference": FIRMWARE_RECORD_REFERENCE,
    "cxl_protocol": CXL_PROTOCOL,
    "cxl_general_media": CXL_GENERAL_MEDIA,
    "cxl_dram": CXL_DRAM,
    "cxl_memory_module": CXL_MEMORY_MODULE,
}
"""Section types with a section model, by their name on the wire."""

SECTION_NAMES = {value: name for name, value in SECTION_TYPES.items()} | {
    guid("dc3ea0b0-a144-4797-b95b-53fa242b6e1d"): "ia32_x64_processor",
    guid("e429faf1-3cb7-11d4-bca7-0080c73c8881"): "ipf_processor",
    guid("c5753963-3b84-4095-bf78-eddad3f9c9dd"): "pci_bus",
    guid("eb5e4685-ca66-4769-b6a2-26068b001326"): "pci_device",
    guid("5b51fef7-c79d-4434-8f1b-aa62de3e2c64"): "dmar_generic",
    guid("71761d37-32b2-45cd-a7d0-b0fedd93e8cf"): "dmar_vtd",
    guid("036f84e1-7f37-428c-a79e-575fdfaa84ec"): "dmar_iommu",
    guid("91335ef6-ebfb-4478-a6a6-88b728cf75d7"): "ccix_per",
    guid("bf32d4d5-b427-4025-8495-8a9e5d4030e4"): "arm_ras_node",
}
"""Names of all known section types, with a section model or not."""


@lru_cache(maxsize=1024)
def section_name(value: Guid) -> str:
    """Return the name of the section type, or its GUID as text."""
    return SECTION_NAMES.get(value) or guid_text(value)
