"""Section bodies of libcper's JSON (openbmc/libcper 7c410e29, `sections/cper-section-*.c`), turned into the bytes they were read from.

A field that the JSON leaves out has its validation bit clear. Older versions of libcper write every field and a `validationBits` object
beside them: then the bits are the object's, and a field whose bit is clear keeps its bytes. Every function raises ValueError for a value
of the wrong kind or width, pydantic's ValidationError among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ras_triage.models.formats.json_text import Object, find, find_bytes, find_number, find_text
from ras_triage.models.frozen import frozen
from ras_triage.models.records.guid import guid
from ras_triage.models.sections.cxl import COMPONENT_EVENT_LOG_VALID, CxlGeneralMedia
from ras_triage.models.sections.pcie import AER_INFO_VALID, Pcie
from ras_triage.models.sections.registry import SECTIONS

Table = Mapping[str, str]
"""Our name of a field to its dotted path in libcper's JSON."""


@frozen
class AssumedValue:
    """A field for whose value or validity libcper's word is not enough."""

    field: str
    """Name of the field in the section."""
    assumed: str
    because: str


@frozen
class SectionBody:
    """A section's bytes, what had to be taken for them, and what libcper has dropped, a phrase each."""

    payload: bytes
    doubts: tuple[AssumedValue, ...] = ()
    lost: tuple[str, ...] = ()


def encode(name: str, fields: Mapping[str, Any]) -> bytes:
    """The body of the section type `name` with these fields. Raises pydantic's ValidationError, a ValueError."""
    return SECTIONS[name].model_validate(dict(fields)).encode_payload()


def select_fields(body: Object, table: Table) -> dict[str, Any]:
    """The fields of a table that the JSON has."""
    found = {name: find(body, path) for name, path in table.items()}
    return {name: taken for name, taken in found.items() if taken is not None}


def validation(body: Object, names: str) -> dict[str, int]:
    """The validation bits of older libcper, where it writes them: the names of bits 0 and up, without the `Valid` behind each."""
    bits = body.get("validationBits")
    if not isinstance(bits, dict):
        return {}
    return {"validation_bits": sum(1 << bit for bit, name in enumerate(names.split()) if bits.get(f"{name}Valid") is True)}


def flags(body: Object, path: str, names: str) -> int | None:
    """The bits of an object of truth values; None where it is absent."""
    found = find(body, path)
    if not isinstance(found, dict):
        return None
    return sum(1 << bit for bit, name in enumerate(names.split()) if found.get(name) is True)


_STATUS_SIGNALS = "addressSignal controlSignal dataSignal detectedByResponder detectedByRequester firstError overflowDroppedLogs"
_STATUS_SIGNALS_SHIFT = 16


def _error_status(body: Object) -> dict[str, int]:
    signals = flags(body, "errorStatus", _STATUS_SIGNALS)
    if signals is None:
        return {}
    kind = find_number(body, "errorStatus.errorType.value", 8) or 0
    return {"error_status": kind << 8 | signals << _STATUS_SIGNALS_SHIFT}


_BANK_DOUBT = "libcper writes a bank as address and group wherever the bank's own validation bit is clear"


def _bank(body: Object, fields: dict[str, Any]) -> tuple[tuple[AssumedValue, ...], tuple[str, ...]]:
    """Fill in the bank as a whole, or its address and group.

    The halves are written whether their validation bits are set or not: nothing is made of two zeroes.
    """
    if (whole := find(body, "bank.value")) is not None:
        fields["bank"] = whole
        return (), ()
    halves = select_fields(body, {"bank_address": "bank.address", "bank_group": "bank.group"})
    if any(halves.values()):
        fields |= halves
        return tuple(AssumedValue(name, str(half), _BANK_DOUBT) for name, half in halves.items()), ()
    return (), ("whether bank address and bank group 0 mean anything",) if halves else ()


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


def memory(body: Object) -> SectionBody:
    """`Memory`: UEFI 2.10 N.2.5."""
    fields = select_fields(body, _MEMORY) | _error_status(body) | validation(body, _MEMORY_BITS)
    if (row := flags(body, "extended", "rowBit16 rowBit17")) is not None:
        fields["extended_row_bits"] = row
    doubts, lost = _bank(body, fields)
    return SectionBody(encode("memory", fields), doubts, lost)


_MEMORY_2: Table = {
    **{name: path for name, path in _MEMORY.items() if name not in ("module", "rank", "chip_identification")},
    "module": "module",
    "rank": "rank",
    "chip_identification": "chipID",
    "status": "status.value",
}
_MEMORY_2_BITS = """errorStatus physicalAddress physicalAddressMask node card module bank device row column rank bitPosition chipID
    memoryErrorType status requestorID responderID targetID cardHandle moduleHandle bankGroup bankAddress"""
_ADDRESS_DOUBT = "libcper writes the address of a Platform Memory 2 section under the validation bit of the error status"


def memory2(body: Object) -> SectionBody:
    """`Memory2`: UEFI 2.10 N.2.6."""
    fields = select_fields(body, _MEMORY_2) | _error_status(body) | validation(body, _MEMORY_2_BITS)
    doubts, lost = _bank(body, fields)
    if "validation_bits" not in fields and "error_status" in fields and "physical_address" in fields:
        doubts += (AssumedValue("physical_address", "valid", _ADDRESS_DOUBT),)
    return SectionBody(encode("memory2", fields), doubts, lost)


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


def generic_processor(body: Object) -> SectionBody:
    """`GenericProcessor`: UEFI 2.10 N.2.4.1. Its error types have one numbering only, so their number counts."""
    fields = select_fields(body, _GENERIC) | validation(body, _GENERIC_BITS)
    if (own := flags(body, "flags", "restartable preciseIP overflow corrected")) is not None:
        fields["processor_flags"] = own
    return SectionBody(encode("generic_processor", fields))


_PCIE: Table = {
    "port_type": "portType.value",
    "command": "commandStatus.commandRegister",
    "status": "commandStatus.statusRegister",
    "vendor_id": "deviceID.vendorID",
    "device_id": "deviceID.deviceID",
    "function": "deviceID.functionNumber",
    "device": "deviceID.deviceNumber",
    "segment": "deviceID.segmentNumber",
    "bus": "deviceID.primaryOrDeviceBusNumber",
    "secondary_bus": "deviceID.secondaryBusNumber",
    "slot": "deviceID.slotNumber",
    "serial_number": "deviceSerialNumber",
    "bridge_secondary_status": "bridgeControlStatus.secondaryStatusRegister",
    "bridge_control": "bridgeControlStatus.controlRegister",
}
_PCIE_BITS = """portType version commandStatus deviceID deviceSerialNumber bridgeControlStatus capabilityStructureStatus aerInfo"""
_AER_OFFSET, _AER_LENGTH = 112, 96


def pcie(body: Object) -> SectionBody:
    """`Pcie`: UEFI 2.10 N.2.7. Capability and AER structures are taken from their bytes, not from what libcper reads out of them."""
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
        lost = ("the AER structure, of which only some bits are named",) if find(body, "aerInfo") else ()
        return SectionBody(encode("pcie", fields), lost=lost)
    if len(aer) != _AER_LENGTH:
        raise ValueError(f"`aerInfo.data` has {len(aer)} bytes, not {_AER_LENGTH}")
    whole = Pcie.LAYOUT.encode(Pcie.model_validate(fields).__dict__, validation=AER_INFO_VALID)
    return SectionBody(whole[:_AER_OFFSET] + aer)


def _bcd(number: int, path: str) -> int:
    if number > 99:
        raise ValueError(f"`{path}` is no number of two decimal digits")
    return number // 10 << 4 | number % 10


def firmware_record_reference(body: Object) -> SectionBody:
    """`Firmware`: UEFI 2.10 N.2.10. libcper takes every revision for 32 bytes; in revision 0 the last 16 are the vendor's."""
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


def cxl_protocol(body: Object) -> SectionBody:
    """`CxlProtocol`: UEFI 2.10 N.2.13."""
    fields = select_fields(body, _CXL_PROTOCOL) | validation(body, _CXL_PROTOCOL_BITS)
    parts = {"capability_structure": "capabilityStructure", "dvsec": "cxlDVSEC", "error_log": "cxlErrorLog"}
    read = {name: find_bytes(body, path) for name, path in parts.items()}
    fields |= {name: data for name, data in read.items() if data is not None}
    if (address := _agent_address(body)) is not None:
        fields["agent_address"] = address
    lost: tuple[str, ...] = ()
    if "vendor_id" in fields and "device_id" not in fields:
        # libcper writes the vendor id whether the validation bit of the device id is set or not.
        del fields["vendor_id"]
        lost = ("a vendor id that nothing vouches for",)
    return SectionBody(encode("cxl_protocol", fields), lost=lost)


def _agent_address(body: Object) -> int | None:
    if (base := find_number(body, "cxlAgentAddress.value", 64)) is not None:
        return base
    if find(body, "cxlAgentAddress") is None:
        return None
    parts = _AGENT_ADDRESS.items()
    return sum((find_number(body, f"cxlAgentAddress.{name}", width) or 0) << shift for name, (shift, width) in parts)


_CXL_COMPONENT: Table = {
    "length": "length",
    "vendor_id": "deviceID.vendorID",
    "device_id": "deviceID.deviceID",
    "function": "deviceID.functionNumber",
    "device": "deviceID.deviceNumber",
    "bus": "deviceID.busNumber",
    "segment": "deviceID.segmentNumber",
    "slot": "deviceID.slotNumber",
    "serial_number": "deviceSerial",
}
_CXL_COMPONENT_BITS = "deviceID deviceSerial cxlComponentEventLog"
_CXL_COMPONENT_HEADER = 32


def cxl_component(body: Object) -> SectionBody:
    """`CxlComponent`: UEFI 2.10 N.2.14. The header is the same for every kind of event; the event record is there as bytes."""
    fields = select_fields(body, _CXL_COMPONENT)
    log = find_bytes(body, "cxlComponentEventLog.data")
    stated = validation(body, _CXL_COMPONENT_BITS)
    header = CxlGeneralMedia.model_validate({"length": 0, **fields, **stated, "payload_length": _CXL_COMPONENT_HEADER}).encode_payload()
    if log is None:
        return SectionBody(header)
    valid = int.from_bytes(header[4:12], "little") | (0 if stated else COMPONENT_EVENT_LOG_VALID)
    return SectionBody(header[:4] + valid.to_bytes(8, "little") + header[12:] + log)


def unknown(body: Object) -> SectionBody:
    """`Unknown`: a section that libcper could not read either, as it stands."""
    data = find_bytes(body, "data")
    if data is None:
        raise ValueError("`data` is missing")
    return SectionBody(data)


READERS: dict[str, Callable[[Object], SectionBody]] = {
    "Memory": memory,
    "Memory2": memory2,
    "GenericProcessor": generic_processor,
    "Pcie": pcie,
    "Firmware": firmware_record_reference,
    "CxlProtocol": cxl_protocol,
    "CxlComponent": cxl_component,
    "Unknown": unknown,
}
"""Readers of section bodies by libcper's name of the section; `ArmProcessor` has a module of its own."""
