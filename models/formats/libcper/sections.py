"""Section bodies of libcper JSON, converted back to bytes.

Source: openbmc/libcper 7c410e29, `sections/cper-section-*.c`. A field that the JSON omits has its validation bit clear. Older versions of
libcper write every field and a `validationBits` object: then the bits are those of the object, and a field whose bit is clear keeps its
bytes. Every function raises ValueError, or pydantic's ValidationError, for a value of the wrong type or width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ras_triage.models.formats.json_text import JsonObject, find, find_bytes, find_number, find_text
from ras_triage.models.frozen import frozen
from ras_triage.models.records.guid import guid
from ras_triage.models.sections.cxl import COMPONENT_EVENT_LOG_VALID, CxlGeneralMedia
from ras_triage.models.sections.pcie import AER_INFO_VALID, Pcie
from ras_triage.models.sections.registry import SECTIONS

Table = Mapping[str, str]
"""Field name of the section model to dotted path in libcper JSON."""


@frozen
class AssumedValue:
    """A field whose value or validity libcper's output does not determine."""

    field: str
    """Name of the field in the section."""
    assumed: str
    because: str


@frozen
class SectionBody:
    """A section's bytes, its assumptions, and a phrase for each loss."""

    payload: bytes
    assumptions: tuple[AssumedValue, ...] = ()
    lost: tuple[str, ...] = ()


def encode(name: str, fields: Mapping[str, Any]) -> bytes:
    """Encode the body of the section type `name` with these fields. Raises pydantic's ValidationError, a ValueError."""
    return SECTIONS[name].model_validate(dict(fields)).encode_payload()


def select_fields(body: JsonObject, table: Table) -> dict[str, Any]:
    """Return the fields of a table that are present in the JSON."""
    found = {name: find(body, path) for name, path in table.items()}
    return {name: taken for name, taken in found.items() if taken is not None}


def validation(body: JsonObject, names: str) -> dict[str, int]:
    """Return the validation bits that older libcper writes, if present; `names` of bits 0 and up, without their suffix `Valid`."""
    bits = body.get("validationBits")
    if not isinstance(bits, dict):
        return {}
    return {"validation_bits": sum(1 << bit for bit, name in enumerate(names.split()) if bits.get(f"{name}Valid") is True)}


def flags(body: JsonObject, path: str, names: str) -> int | None:
    """Return the bits of an object of booleans; None if it is absent."""
    found = find(body, path)
    if not isinstance(found, dict):
        return None
    return sum(1 << bit for bit, name in enumerate(names.split()) if found.get(name) is True)


_STATUS_SIGNALS = "addressSignal controlSignal dataSignal detectedByResponder detectedByRequester firstError overflowDroppedLogs"
_STATUS_SIGNALS_SHIFT = 16


def _error_status(body: JsonObject) -> dict[str, int]:
    signals = flags(body, "errorStatus", _STATUS_SIGNALS)
    if signals is None:
        return {}
    kind = find_number(body, "errorStatus.errorType.value", 8) or 0
    return {"error_status": kind << 8 | signals << _STATUS_SIGNALS_SHIFT}


_BANK_BECAUSE = "libcper writes a bank as address and group if the bank's own validation bit is clear"


def _bank(body: JsonObject, fields: dict[str, Any]) -> tuple[tuple[AssumedValue, ...], tuple[str, ...]]:
    """Add the bank, or its address and group, to the fields; return assumptions and losses.

    libcper writes address and group whether their validation bits are set or not: if both are zero, they are ignored.
    """
    if (whole := find(body, "bank.value")) is not None:
        fields["bank"] = whole
        return (), ()
    halves = select_fields(body, {"bank_address": "bank.address", "bank_group": "bank.group"})
    if any(halves.values()):
        fields |= halves
        return tuple(AssumedValue(name, str(half), _BANK_BECAUSE) for name, half in halves.items()), ()
    return (), ("whether bank address and bank group 0 are valid",) if halves else ()


_MEMORY: Table = {
    "physical_address": "physicalAddress",
    "physical_address_mask": "physicalAddressMask",
    "node": "node",
    "card": "card",
    "module": "moduleRank",
    "device": "device",
    "row": "row",
    "column": "column",
    "bit_position": "bitPosition",
    "requestor_id": "requestorID",
    "responder_id": "responderID",
    "target_id": "targetID",
    "memory_error_type": "memoryErrorType.value",
    "rank": "rankNumber",
    "card_handle": "cardSmbiosHandle",
    "module_handle": "moduleSmbiosHandle",
    "chip_identification": "extended.chipIdentification",
}
_MEMORY_BITS = """errorStatus physicalAddress physicalAddressMask node card module bank device row column bitPosition platformRequestorID
    platformResponderID memoryPlatformTarget memoryErrorType rankNumber cardHandle moduleHandle extendedRowBits bankGroup bankAddress
    chipIdentification"""


def memory(body: JsonObject) -> SectionBody:
    """Convert a `Memory` section (UEFI 2.10 N.2.5)."""
    fields = select_fields(body, _MEMORY) | _error_status(body) | validation(body, _MEMORY_BITS)
    if (row := flags(body, "extended", "rowBit16 rowBit17")) is not None:
        fields["extended_row_bits"] = row
    assumptions, lost = _bank(body, fields)
    return SectionBody(encode("memory", fields), assumptions, lost)


_MEMORY_2: Table = {
    **{name: path for name, path in _MEMORY.items() if name not in ("module", "rank", "chip_identification")},
    "module": "module",
    "rank": "rank",
    "chip_identification": "chipID",
    "status": "status.value",
}
_MEMORY_2_BITS = """errorStatus physicalAddress physicalAddressMask node card module bank device row column rank bitPosition chipID
    memoryErrorType status requestorID responderID targetID cardHandle moduleHandle bankGroup bankAddress"""
_ADDRESS_BECAUSE = "libcper writes the address of a Platform Memory 2 section under the validation bit of the error status"


def memory2(body: JsonObject) -> SectionBody:
    """Convert a `Memory2` section (UEFI 2.10 N.2.6)."""
    fields = select_fields(body, _MEMORY_2) | _error_status(body) | validation(body, _MEMORY_2_BITS)
    assumptions, lost = _bank(body, fields)
    if "validation_bits" not in fields and "error_status" in fields and "physical_address" in fields:
        assumptions += (AssumedValue("physical_address", "valid", _ADDRESS_BECAUSE),)
    return SectionBody(encode("memory2", fields), assumptions, lost)


_GENERIC: Table = {
    "processor_type": "processorType.value",
    "processor_isa": "processorISA.value",
    "processor_error_type": "errorType.value",
    "operation": "operation.value",
    "level": "level",
    "cpu_version": "cpuVersionInfo",
    "cpu_brand": "cpuBrandString",
    "processor_id": "processorID",
    "target_address": "targetAddress",
    "requestor_id": "requestorID",
    "responder_id": "responderID",
    "instruction_pointer": "instructionIP",
}
_GENERIC_BITS = """processorType processorISA processorErrorType operation flags level cpuVersion cpuBrandInfo cpuID targetAddress
    requestorID responderID instructionIP"""


def generic_processor(body: JsonObject) -> SectionBody:
    """Convert a `GenericProcessor` section (UEFI 2.10 N.2.4.1). Its error types have only one numbering, so the number is used."""
    fields = select_fields(body, _GENERIC) | validation(body, _GENERIC_BITS)
    if (own := flags(body, "flags", "restartable preciseIP overflow corrected")) is not None:
        fields["processor_flags"] = own
    return SectionBody(encode("generic_processor", fields))


_DEVICE: Table = {
    "vendor_id": "deviceID.vendorID",
    "device_id": "deviceID.deviceID",
    "function": "deviceID.functionNumber",
    "device": "deviceID.deviceNumber",
    "segment": "deviceID.segmentNumber",
    "slot": "deviceID.slotNumber",
}
"""What the device ids of PCIe sections and of CXL component events share."""

_PCIE: Table = {
    **_DEVICE,
    "port_type": "portType.value",
    "command": "commandStatus.commandRegister",
    "status": "commandStatus.statusRegister",
    "bus": "deviceID.primaryOrDeviceBusNumber",
    "secondary_bus": "deviceID.secondaryBusNumber",
    "serial_number": "deviceSerialNumber",
    "bridge_secondary_status": "bridgeControlStatus.secondaryStatusRegister",
    "bridge_control": "bridgeControlStatus.controlRegister",
}
_PCIE_BITS = """portType version commandStatus deviceID deviceSerialNumber bridgeControlStatus capabilityStructureStatus aerInfo"""
_AER_OFFSET, _AER_LENGTH = 112, 96


def pcie(body: JsonObject) -> SectionBody:
    """Convert a `Pcie` section (UEFI 2.10 N.2.7). Capability and AER structures are taken from their bytes, not from decoded fields."""
    fields = select_fields(body, _PCIE) | validation(body, _PCIE_BITS)
    for name, path in {"version_minor": "version.minor", "version_major": "version.major"}.items():
        if (number := find_number(body, path, 8)) is not None:
            fields[name] = _bcd(number, path)
    if (code := find_number(body, "deviceID.classCode", 24)) is not None:
        fields["class_code"] = int.from_bytes(code.to_bytes(3, "big"), "little")
    if (capability := find_bytes(body, "capabilityStructure.data")) is not None:
        fields["capability_structure"] = capability
    aer = find_bytes(body, "aerInfo.data")
    if aer is None:
        lost = ("the AER structure: libcper prints only some of its bits",) if find(body, "aerInfo") else ()
        return SectionBody(encode("pcie", fields), lost=lost)
    if len(aer) != _AER_LENGTH:
        raise ValueError(f"`aerInfo.data`: expected {_AER_LENGTH} bytes, got {len(aer)}")
    whole = Pcie.LAYOUT.encode(Pcie.model_validate(fields).__dict__, validation=AER_INFO_VALID)
    return SectionBody(whole[:_AER_OFFSET] + aer)


def _bcd(number: int, path: str) -> int:
    if number > 99:
        raise ValueError(f"`{path}`: expected a number of at most two decimal digits")
    return number // 10 << 4 | number % 10


def firmware_record_reference(body: JsonObject) -> SectionBody:
    """Convert a `Firmware` section (UEFI 2.10 N.2.10). libcper reads 32 bytes for every revision; in revision 0, 16 are vendor data."""
    fields = select_fields(body, {"record_type": "errorRecordType.value", "record_revision": "revision", "record_id": "recordID"})
    text = find_text(body, "recordIDGUID")
    if text is not None:
        fields |= {"record_guid" if fields.get("record_revision") else "trailing": guid(text)}
    return SectionBody(encode("firmware_record_reference", fields))


_CXL_PROTOCOL: Table = {
    "agent_type": "agentType.value",
    "vendor_id": "deviceID.vendorID",
    "device_id": "deviceID.deviceID",
    "subsystem_vendor_id": "deviceID.subsystemVendorID",
    "subsystem_id": "deviceID.subsystemDeviceID",
    "class_code": "deviceID.classCode",
    "slot": "deviceID.slotNumber",
    "serial_number": "deviceSerial",
    "dvsec_length": "dvsecLength",
    "error_log_length": "errorLogLength",
}
_CXL_PROTOCOL_BITS = "cxlAgentType cxlAgentAddress deviceID deviceSerial capabilityStructure cxlDVSEC cxlErrorLog"
_AGENT_ADDRESS = {"functionNumber": (0, 8), "deviceNumber": (8, 8), "busNumber": (16, 8), "segmentNumber": (24, 16)}
"""Shift and width of each part of a device's agent address."""


def cxl_protocol(body: JsonObject) -> SectionBody:
    """Convert a `CxlProtocol` section (UEFI 2.10 N.2.13)."""
    fields = select_fields(body, _CXL_PROTOCOL) | validation(body, _CXL_PROTOCOL_BITS)
    parts = {"capability_structure": "capabilityStructure", "dvsec": "cxlDVSEC", "error_log": "cxlErrorLog"}
    read = {name: find_bytes(body, path) for name, path in parts.items()}
    fields |= {name: data for name, data in read.items() if data is not None}
    if (address := _agent_address(body)) is not None:
        fields["agent_address"] = address
    lost: tuple[str, ...] = ()
    if "vendor_id" in fields and "device_id" not in fields:
        # libcper writes the vendor id even if the validation bit of the device id is clear.
        del fields["vendor_id"]
        lost = ("a vendor id whose validation bit is unknown",)
    return SectionBody(encode("cxl_protocol", fields), lost=lost)


def _agent_address(body: JsonObject) -> int | None:
    if (base := find_number(body, "cxlAgentAddress.value", 64)) is not None:
        return base
    if find(body, "cxlAgentAddress") is None:
        return None
    parts = _AGENT_ADDRESS.items()
    return sum((find_number(body, f"cxlAgentAddress.{name}", width) or 0) << shift for name, (shift, width) in parts)


_CXL_COMPONENT: Table = {
    **_DEVICE,
    "length": "length",
    "bus": "deviceID.busNumber",
    "serial_number": "deviceSerial",
}
_CXL_COMPONENT_BITS = "deviceID deviceSerial cxlComponentEventLog"
_CXL_COMPONENT_HEADER = 32


def cxl_component(body: JsonObject) -> SectionBody:
    """Convert a `CxlComponent` section (UEFI 2.10 N.2.14). All event types share the header; the event record is present as bytes."""
    fields = select_fields(body, _CXL_COMPONENT)
    log = find_bytes(body, "cxlComponentEventLog.data")
    stated = validation(body, _CXL_COMPONENT_BITS)
    header = CxlGeneralMedia.model_validate({"length": 0, **fields, **stated, "payload_length": _CXL_COMPONENT_HEADER}).encode_payload()
    if log is None:
        return SectionBody(header)
    valid = int.from_bytes(header[4:12], "little") | (0 if stated else COMPONENT_EVENT_LOG_VALID)
    return SectionBody(header[:4] + valid.to_bytes(8, "little") + header[12:] + log)


def unknown(body: JsonObject) -> SectionBody:
    """Convert an `Unknown` section: one that libcper does not decode, as raw bytes."""
    data = find_bytes(body, "data")
    if data is None:
        raise ValueError("`data` is missing")
    return SectionBody(data)


READERS: dict[str, Callable[[JsonObject], SectionBody]] = {
    "Memory": memory,
    "Memory2": memory2,
    "GenericProcessor": generic_processor,
    "Pcie": pcie,
    "Firmware": firmware_record_reference,
    "CxlProtocol": cxl_protocol,
    "CxlComponent": cxl_component,
    "Unknown": unknown,
}
"""Converters of section bodies by libcper's section name; `ArmProcessor` has its own module."""
