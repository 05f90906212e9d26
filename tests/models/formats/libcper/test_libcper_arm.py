"""Tests of the ARM processor section of libcper JSON."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ras_triage.models.formats.libcper.arm_processor import _REGISTERS, ERROR_TYPE_NUMBERS, arm_processor
from ras_triage.models.formats.libcper.sections import SectionBody
from ras_triage.models.sections.arm_processor import ArmProcessor, describe_error_information


def info(kind: str = "Cache Error", number: int = 1, **more: Any) -> dict[str, Any]:
    return {"version": 0, "length": 32, "errorType": {"value": number, "name": kind}, **more}


def body(*infos: dict[str, Any], **more: Any) -> dict[str, Any]:
    length = 40 + 32 * len(infos)
    counts = {"errorInfoNum": len(infos), "contextInfoNum": 0, "sectionLength": length, "midrEl1": 0x410FD490}
    return {**counts, "errorInfo": list(infos), "contextInfo": [], **more}


def section(found: SectionBody) -> ArmProcessor:
    return ArmProcessor.model_construct(**ArmProcessor.decode_payload(found.payload))


def test_the_header_has_the_fields_that_are_named():
    found = section(arm_processor(body(errorAffinity={"value": 1, "type": "x"}, mpidrEl1=2**64 - 1, affinity3=255, running=True), "legacy"))
    assert (found.validation_bits, found.mpidr_el1, found.error_affinity_level, found.running_state) == (0b111, 2**64 - 1, 1, 1)
    assert (found.midr_el1, found.err_info_num, found.section_length) == (0x410FD490, 0, 40)


def test_a_psci_state_without_a_running_state_vouches_for_nothing():
    found = section(arm_processor(body(psciState=7), "legacy"))
    assert (found.validation_bits, found.psci_state) == (0, 7)
    assert section(arm_processor(body(psciState=7, running=False), "legacy")).validation_bits == 0b100


@pytest.mark.parametrize(
    ("name", "number", "numbering", "expected"),
    [
        ("Cache Error", 1, "uefi-2.10", 2),
        ("Cache Error", 0, "uefi-2.10", 2),
        ("TLB Error", 1, "uefi-2.10", 4),
        ("TLB Error", 2, "uefi-2.10", 4),
        ("Bus Error", 4, "uefi-2.10", 8),
        ("Micro-Architectural Error", 8, "uefi-2.10", 16),
        ("TLB Error", 2, "legacy", 1),
        ("TLB Error", 1, "uefi-2.11", 2),
    ],
)
def test_error_types_go_by_their_name_not_their_number(name, number, numbering, expected):
    found = arm_processor(body(info(name, number)), numbering)
    assert section(found).error_infos[0].error_type == expected
    (doubt,) = found.assumptions
    assert (doubt.field, doubt.assumed.split(",")[0]) == ("error_infos/0/error_type", hex(expected))


def test_an_error_type_without_a_name_keeps_its_number_and_says_so():
    found = arm_processor(body(info("Unknown (Reserved)", 26)), "uefi-2.10")
    assert section(found).error_infos[0].error_type == 26
    assert found.assumptions[0].because == "libcper has no name for the type; its number is used unchanged"


def test_every_numbering_names_the_same_types():
    assert {frozenset(numbers) for numbers in ERROR_TYPE_NUMBERS.values()} == {frozenset(("cache", "tlb", "bus", "micro_architectural"))}


def test_an_error_information_structure_has_the_fields_that_are_named():
    flags = {"firstErrorCaptured": True, "lastErrorCaptured": False, "propagated": True, "overflow": False}
    one = info(multipleError={"value": 3, "type": "x"}, flags=flags, virtualFaultAddress=2**63, physicalFaultAddress=2**64 - 1)
    found = section(arm_processor(body(one, info()), "uefi-2.10"))
    first, second = found.error_infos
    assert (first.validation_bits, first.multiple_error, first.flags) == (0b11011, 3, 0b101)
    assert (first.virtual_fault_address, first.physical_fault_address) == (2**63, 2**64 - 1)
    assert (second.validation_bits, second.physical_fault_address) == (0, None)


def test_error_information_is_put_together_from_its_parts():
    bus = {
        "transactionType": {"value": 1, "name": "Data Access"},
        "operation": {"value": 4, "name": "Data Write"},
        "level": 2,
        "corrected": False,
        "participationType": {"value": 3, "name": "Generic"},
        "timedOut": True,
        "addressSpace": {"value": 3, "name": "Device Memory Access"},
        "memoryAttributes": 0x1FF,
    }
    found = section(arm_processor(body(info("Bus Error", 4, errorInformation={"busError": bus})), "uefi-2.10"))
    assert found.error_infos[0].validation_bits == 0b100
    assert describe_error_information(found.error_infos[0].error_information or 0) == {
        "transaction": "data",
        "operation": {"cache": "data_write", "tlb": "data_write", "bus": "data_write"},
        "level": 2,
        "corrected": False,
        "participation": "generic",
        "timed_out": True,
        "address_space": "device_memory",
        "memory_attributes": 0x1FF,
    }


def test_an_access_mode_is_doubted_because_libcper_asks_another_bit_for_it():
    bus = {"timedOut": False, "accessMode": {"value": 1, "name": "Normal"}}
    found = arm_processor(body(info("Bus Error", 4, errorInformation={"busError": bus})), "uefi-2.10")
    assert section(found).error_infos[0].error_information == 1 << 8 | 1 << 11 | 1 << 43
    assert [doubt.assumed for doubt in found.assumptions][1:] == ["a valid access mode"]


def test_the_error_information_of_a_micro_architectural_error_is_lost():
    found = arm_processor(body(info("Micro-Architectural Error", 8)), "uefi-2.10")
    assert found.lost == ("the error information of structure 0: libcper omits it for this type",)


def context(kind: int, size: int, **registers: Any) -> dict[str, Any]:
    return {"version": 0, "registerContextType": {"value": kind, "name": "x"}, "registerArraySize": size, "registerArray": registers}


@pytest.mark.parametrize(
    ("one", "registers"),
    [
        (context(3, 8, sctlr_s=1, spsr_mon=2**32 - 1), b"\1\0\0\0\xff\xff\xff\xff"),
        (context(8, 10, mrsEncoding={"op2": 1, "crm": 2, "crn": 3, "op1": 4, "o0": 1}, value=5), b"\x91\x61\5" + bytes(7)),
        (context(9, 3, data=base64.b64encode(b"xyz").decode()), b"xyz"),
    ],
)
def test_registers_stand_in_the_order_of_their_context(one, registers):
    found = section(arm_processor(body(contextInfo=[one], contextInfoNum=1, sectionLength=48 + len(registers)), "uefi-2.10"))
    assert (found.contexts[0].type, found.contexts[0].registers) == (one["registerContextType"]["value"], registers)


CONTEXTS = [
    (0, "r0", "r15_pc", 16, 4),
    (1, "dfar", "dacr", 24, 4),
    (2, "elr_hyp", "dacr32_el2", 16, 4),
    (4, "x0", "sp", 32, 8),
    (5, "elr_el1", "ttbr1_el1", 17, 8),
    (6, "elr_el2", "vttbr_el2", 15, 8),
    (7, "elr_el3", "ttbr0_el3", 10, 8),
]


@pytest.mark.parametrize(("kind", "first", "last", "count", "width"), CONTEXTS)
def test_a_context_has_as_many_registers_as_uefi_gives_it(kind, first, last, count, width):
    with pytest.raises(ValueError, match=f"`registerArray.{first}` is missing"):
        arm_processor(body(contextInfo=[context(kind, 0)]), "uefi-2.10")
    registers = dict.fromkeys(_REGISTERS[kind][1].split(), 0) | {first: 1, last: 2}
    payload = arm_processor(body(contextInfo=[context(kind, count * width, **registers)], contextInfoNum=1), "uefi-2.10").payload
    assert payload[48:] == (1).to_bytes(width, "little") + bytes((count - 2) * width) + (2).to_bytes(width, "little")


def test_registers_that_libcper_does_not_show_are_named():
    found = arm_processor(body(contextInfo=[context(3, 12, sctlr_s=1, spsr_mon=2)]), "uefi-2.10")
    assert found.lost == ("the last 4 bytes of context 0: omitted by libcper, read as zero",)


def test_vendor_bytes_lie_behind_everything_else():
    vendor = {"data": base64.b64encode(b"vendor").decode()}
    found = section(arm_processor(body(info(), vendorSpecificInfo=vendor, sectionLength=78), "uefi-2.10"))
    assert (found.validation_bits, found.vendor_info) == (0b1000, b"vendor")


def test_counts_stay_as_they_are_stated():
    found = section(arm_processor(body(info()) | {"errorInfoNum": 65535, "sectionLength": 2**32 - 1}, "uefi-2.10"))
    assert (found.err_info_num, found.section_length, len(found.error_infos)) == (65535, 2**32 - 1, 1)


def test_an_older_libcpers_validation_bits_count_and_the_rest_keeps_its_bytes():
    cache = {"level": 3, "corrected": True, "validationBits": {"levelValid": True, "correctedValid": False}}
    bits = {"multipleErrorValid": False, "errorInformationValid": True}
    one = info("TLB Error", 1, multipleError={"value": 3}, errorInformation={"tlbError": cache}, validationBits=bits)
    valid = {"mpidrValid": False, "errorAffinityLevelValid": True}
    found = section(arm_processor(body(one, mpidrEl1=7, errorAffinity={"value": 2}, validationBits=valid), "uefi-2.10"))
    assert (found.validation_bits, found.mpidr_el1, found.error_affinity_level) == (0b10, 7, 2)
    first = found.error_infos[0]
    assert (first.validation_bits, first.multiple_error, first.error_information) == (0b100, 3, 1 << 2 | 3 << 22 | 1 << 26)


@pytest.mark.parametrize(
    "bad",
    [
        body(errorInfo=5),
        body(errorInfo=[None]),
        body(info(errorInformation={"cacheError": 5})),
        body(info(errorInformation={"cacheError": {}, "tlbError": {}})),
        body(info(errorInformation=[1])),
        body(info(errorInformation={"cacheError": {"level": 8}})),
        body(info(number=256)),
        body(info(physicalFaultAddress=2**64)),
        body(contextInfo=[context(9, 2**32 - 1)]),
        body(contextInfo=[context(9, 1 << 19)] * 3),
        body(contextInfo=[{"registerArraySize": 8}]),
        body(contextInfo=[context(3, 8, sctlr_s=2**32)]),
        body(vendorSpecificInfo={"data": "?"}),
        body(midrEl1="x"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(bad):
    with pytest.raises(ValueError, match=r".+"):
        arm_processor(bad, "uefi-2.10")
