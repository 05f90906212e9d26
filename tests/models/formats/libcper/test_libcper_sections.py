"""Tests of the section bodies of libcper JSON."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from ras_triage.models.formats.libcper.sections import READERS, SectionBody
from ras_triage.models.records.guid import guid
from ras_triage.models.sections.registry import SECTIONS

NAMES = {
    "Memory": "memory",
    "Memory2": "memory2",
    "GenericProcessor": "generic_processor",
    "Pcie": "pcie",
    "Firmware": "firmware_record_reference",
    "CxlProtocol": "cxl_protocol",
    "CxlComponent": "cxl_general_media",
}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(name: str, body: dict[str, Any]) -> SectionBody:
    return READERS[name](body)


def fields(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a converted section, without those that are absent or always present."""
    section = SECTIONS[NAMES[name]]
    made = section.model_construct(**section.decode_payload(read(name, body).payload))
    return made.model_dump(exclude_defaults=True)


STATUS = {
    "errorType": {"value": 4, "name": "ERR_MEM"},
    "addressSignal": True,
    "controlSignal": False,
    "dataSignal": True,
    "detectedByResponder": False,
    "detectedByRequester": False,
    "firstError": False,
    "overflowDroppedLogs": True,
}
STATUS_BITS = 4 << 8 | 1 << 16 | 1 << 18 | 1 << 22


def test_a_memory_section_has_the_fields_that_are_named():
    body = {
        "errorStatus": STATUS,
        "bank": {"value": 7},
        "memoryErrorType": {"value": 2, "name": "Single-bit ECC"},
        "extended": {"rowBit16": False, "rowBit17": True, "chipIdentification": 5},
        "physicalAddress": 2**64 - 64,
        "physicalAddressHex": "0xFFFFFFFFFFFFFFC0",
        "moduleRank": 3,
        "rankNumber": 1,
        "cardSmbiosHandle": 17,
    }
    assert fields("Memory", body) == {
        "validation_bits": 1 << 0 | 1 << 1 | 1 << 5 | 1 << 6 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | 1 << 21,
        "error_status": STATUS_BITS,
        "physical_address": 2**64 - 64,
        "module": 3,
        "bank": 7,
        "memory_error_type": 2,
        "extended_row_bits": 2,
        "chip_identification": 5,
        "rank": 1,
        "card_handle": 17,
    }
    assert (read("Memory", body).assumptions, read("Memory", body).lost) == ((), ())


def test_an_empty_section_says_nothing():
    for name in ("Memory", "Memory2", "GenericProcessor", "Pcie", "CxlProtocol"):
        assert not any(read(name, {}).payload)


def test_a_bank_in_two_halves_is_taken_with_a_doubt_for_nobody_says_that_it_is_valid():
    found = read("Memory", {"bank": {"address": 2, "group": 1}})
    assert fields("Memory", {"bank": {"address": 2, "group": 1}}) == {"validation_bits": 3 << 19, "bank_address": 2, "bank_group": 1}
    assert [doubt.field for doubt in found.assumptions] == ["bank_address", "bank_group"]


def test_two_zero_halves_of_a_bank_are_no_bank():
    found = read("Memory", {"bank": {"address": 0, "group": 0}})
    assert not any(found.payload)
    assert found.lost == ("whether bank address and bank group 0 are valid",)


def test_a_platform_memory_2_section_has_its_own_widths_and_validation_bits():
    body = {"bank": {"value": 1}, "device": 2**32 - 1, "rank": 9, "chipID": 8, "status": {"value": 1, "state": "Uncorrected"}, "module": 2}
    assert fields("Memory2", body) == {
        "validation_bits": 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 12 | 1 << 14,
        "module": 2,
        "bank": 1,
        "device": 2**32 - 1,
        "rank": 9,
        "chip_identification": 8,
        "status": 1,
    }


def test_the_address_of_platform_memory_2_is_doubted_because_libcper_asks_another_bit_for_it():
    found = read("Memory2", {"errorStatus": STATUS, "physicalAddress": 64})
    assert [(doubt.field, doubt.assumed) for doubt in found.assumptions] == [("physical_address", "valid")]


def test_a_generic_processor_section_keeps_its_numbers_even_where_they_have_no_name():
    body = {
        "processorType": {"value": 2, "name": "ARM"},
        "errorType": {"value": 5, "name": "Unknown (Reserved)"},
        "flags": {"restartable": False, "preciseIP": True, "overflow": False, "corrected": True},
        "cpuBrandString": "Model 7",
        "instructionIP": 2**64 - 1,
    }
    assert fields("GenericProcessor", body) == {
        "validation_bits": 1 << 0 | 1 << 2 | 1 << 4 | 1 << 7 | 1 << 12,
        "processor_type": 2,
        "processor_error_type": 5,
        "processor_flags": 10,
        "cpu_brand": "Model 7",
        "instruction_pointer": 2**64 - 1,
    }


AER = struct.pack("<24I", *range(100, 124))
CAPABILITY = bytes(range(60))


def test_a_pcie_section_takes_its_structures_from_their_bytes():
    body = {
        "portType": {"value": 4, "name": "Root Port"},
        "version": {"minor": 12, "major": 3},
        "commandStatus": {"commandRegister": 7, "statusRegister": 16},
        "deviceID": {
            "vendorID": 0x8086,
            "deviceID": 1,
            "deviceIDHex": "0x1",
            "classCode": 0x060400,
            "functionNumber": 2,
            "deviceNumber": 3,
            "segmentNumber": 4,
            "primaryOrDeviceBusNumber": 5,
            "secondaryBusNumber": 6,
            "slotNumber": 8191,
        },
        "capabilityStructure": {"data": b64(CAPABILITY), "pcie_cap_id": 99},
        "aerInfo": {"data": b64(AER), "capability_header": 99},
    }
    found = fields("Pcie", body)
    assert read("Pcie", body).payload[112:] == AER
    assert found["validation_bits"] == 0b11001111
    assert (found["version_minor"], found["version_major"], found["slot"], found["class_code"]) == (0x12, 0x03, 8191, 0x000406)
    assert (found["capability_structure"], found["aer_uncorrectable_status"], found["aer_uncorrectable_source"]) == (CAPABILITY, 101, 0)


def test_an_aer_structure_without_its_bytes_is_lost():
    found = read("Pcie", {"aerInfo": {"capability_header": 1}})
    assert not any(found.payload)
    assert found.lost == ("the AER structure: libcper prints only some of its bits",)


@pytest.mark.parametrize("revision", [1, 2])
def test_a_firmware_record_is_named_by_a_guid_from_revision_1_on(revision):
    name = "ed782c67-8094-48bd-bfca-5dc5a0619384"
    body = {"errorRecordType": {"value": 1, "name": "x"}, "revision": revision, "recordID": 0, "recordIDGUID": name}
    expected = {"record_type": 1, "record_revision": revision, "record_id": 0, "record_guid": guid(name)}
    assert fields("Firmware", body) == expected


def test_a_firmware_record_of_revision_0_ends_before_what_libcper_takes_for_a_guid():
    name = "ed782c67-8094-48bd-bfca-5dc5a0619384"
    body = {"errorRecordType": {"value": 0, "name": "x"}, "revision": 0, "recordID": 7, "recordIDGUID": name}
    assert fields("Firmware", body) == {"record_type": 0, "record_revision": 0, "record_id": 7, "trailing": guid(name)}


@pytest.mark.parametrize(
    ("address", "expected"),
    [({"value": 2**63}, 2**63), ({"functionNumber": 1, "deviceNumber": 2, "busNumber": 3, "segmentNumber": 0x504}, 0x0504_03_02_01)],
)
def test_a_cxl_protocol_error_has_an_address_of_either_kind(address, expected):
    body = {"agentType": {"value": 1, "name": "x"}, "cxlAgentAddress": address, "cxlErrorLog": b64(b"log"), "errorLogLength": 3}
    found = {"validation_bits": 0b1000011, "agent_type": 1, "agent_address": expected, "error_log": b"log", "error_log_length": 3}
    assert fields("CxlProtocol", body) == found | {"dvsec_length": 0}


def test_a_vendor_id_that_stands_alone_is_not_taken():
    found = read("CxlProtocol", {"deviceID": {"vendorID": 7}})
    assert not any(found.payload)
    assert found.lost == ("a vendor id whose validation bit is unknown",)


def test_a_cxl_component_event_is_its_header_and_the_record_behind_it():
    body = {"length": 35, "deviceID": {"vendorID": 1, "slotNumber": 9}, "cxlComponentEventLog": {"data": b64(b"\x80\1\2")}}
    found = {"validation_bits": 0b101, "length": 35, "vendor_id": 1, "slot": 9, "event_length": 0x80, "event_flags": 0x0201}
    assert fields("CxlComponent", body) == found | {"payload_length": 35, **dict.fromkeys(("device_id", "function", "device"), 0)} | {
        "bus": 0,
        "segment": 0,
    }


def test_a_section_that_libcper_does_not_know_is_its_bytes():
    assert read("Unknown", {"data": b64(b"xyz")}) == SectionBody(b"xyz")


OLD = {
    "Memory": (
        {"physicalAddress": 64, "node": 3, "validationBits": {"physicalAddressValid": True, "nodeValid": False}},
        1 << 1,
        {"node": 3},
    ),
    "Memory2": ({"rank": 3, "validationBits": {"rankValid": False, "statusValid": True}, "status": {"value": 0}}, 1 << 14, {"rank": 3}),
    "GenericProcessor": ({"level": 3, "validationBits": {"levelValid": False, "cpuIDValid": True}}, 1 << 8, {"level": 3}),
    "Pcie": ({"deviceSerialNumber": 3, "validationBits": {"deviceSerialNumberValid": False}}, 0, {"serial_number": 3}),
    "CxlProtocol": ({"deviceSerial": 3, "validationBits": {"cxlAgentTypeValid": True}}, 1, {"serial_number": 3}),
    "CxlComponent": ({"length": 32, "deviceSerial": 3, "validationBits": {"deviceIDValid": True}}, 1, {"serial_number": 3}),
}


@pytest.mark.parametrize(("name", "body", "valid", "kept"), [(name, *case) for name, case in OLD.items()], ids=OLD)
def test_an_older_libcpers_validation_bits_count_and_the_rest_keeps_its_bytes(name, body, valid, kept):
    found = fields(name, body)
    assert found.get("validation_bits", 0) == valid
    assert kept.items() <= found.items()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("Memory", {"physicalAddress": 2**64}),
        ("Memory", {"physicalAddress": -1}),
        ("Memory", {"node": True}),
        ("Memory", {"node": 1.0}),
        ("Memory", {"node": [1]}),
        ("Memory", {"errorStatus": {"errorType": {"value": 256}}}),
        ("Memory", {"bank": {"address": 256, "group": 0}}),
        ("GenericProcessor", {"cpuBrandString": "x" * 129}),
        ("GenericProcessor", {"cpuBrandString": "€"}),
        ("Pcie", {"version": {"minor": 100, "major": 1}}),
        ("Pcie", {"capabilityStructure": {"data": b64(b"x")}}),
        ("Pcie", {"aerInfo": {"data": b64(b"x" * 95)}}),
        ("Pcie", {"aerInfo": {"data": 5}}),
        ("Firmware", {"revision": 1, "recordIDGUID": "ed78"}),
        ("CxlProtocol", {"cxlAgentAddress": {"busNumber": 256}}),
        ("CxlProtocol", {"deviceID": {"vendorID": 70000, "deviceID": 1}}),
        ("CxlComponent", {"deviceID": {"slotNumber": 8192}}),
        ("CxlComponent", {"cxlComponentEventLog": {"data": "?"}}),
        ("Unknown", {}),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(name, body):
    with pytest.raises(ValueError, match=r".+"):
        read(name, body)
