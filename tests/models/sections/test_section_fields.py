"""Tests of the fields and validation of single sections."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ras_triage.models.sections import arm_processor, cxl, memory, pcie
from ras_triage.models.sections.arm_processor import ArmContext, ArmErrorInfo, ArmProcessor
from ras_triage.models.sections.cxl import CxlGeneralMedia, CxlProtocol
from ras_triage.models.sections.firmware_record_reference import FirmwareRecordReference
from ras_triage.models.sections.generic_processor import GenericProcessor
from ras_triage.models.sections.memory import Memory, Memory2
from ras_triage.models.sections.pcie import Pcie


def memory_section(payload: bytes) -> Memory:
    return Memory.model_construct(**Memory.decode_payload(payload))


def arm_section(payload: bytes) -> ArmProcessor:
    return ArmProcessor.model_construct(**ArmProcessor.decode_payload(payload))


# memory


def test_a_field_whose_validation_bit_is_clear_is_there_if_its_bytes_are_not_zero():
    section = memory_section(Memory(validation_bits=0, physical_address=0x1000).encode_payload())
    assert section.physical_address == 0x1000
    assert section.validation_bits == 0
    assert section.readings()["not_valid"] == ["physical_address"]


def test_a_field_whose_validation_bit_is_set_is_there_though_it_is_zero():
    section = memory_section(Memory(node=0).encode_payload())
    assert (section.validation_bits, section.node, section.card) == (1 << 3, 0, None)


def test_the_first_memory_section_ends_with_the_error_type():
    section = memory_section(Memory(memory_error_type=3).encode_payload()[:73])
    assert (section.payload_length, section.memory_error_type, section.rank) == (73, 3, None)
    assert Memory(memory_error_type=3, payload_length=73).encode_payload() == section.encode_payload()


def test_a_rank_does_not_fit_into_the_first_memory_section():
    with pytest.raises(ValidationError, match="after the 73 bytes of `payload_length`"):
        Memory(rank=1, payload_length=73)


def test_bank_group_and_address_are_views_of_the_bank():
    section = memory_section(Memory(bank_group=2, bank_address=3).encode_payload())
    assert (section.bank, section.bank_group, section.bank_address) == (None, 2, 3)
    assert section.validation_bits == 1 << 19 | 1 << 20
    assert struct.unpack_from("<H", section.encode_payload(), 38) == (0x0203,)


def test_a_bank_that_contradicts_its_group_is_refused():
    assert Memory(bank=0x0203, bank_group=2).encode_payload()[38:40] == b"\x03\x02"
    with pytest.raises(ValidationError, match="`bank_group` contradicts"):
        Memory(bank=0x0203, bank_group=1)


def test_the_extended_byte_holds_row_bits_and_the_chip():
    payload = Memory(row=0x8001, extended_row_bits=2, chip_identification=5).encode_payload()
    assert payload[73] == 5 << 5 | 2
    assert memory_section(payload).full_row == 0x28001
    assert memory_section(payload).validation_bits == 1 << 8 | 1 << 18 | 1 << 21


def test_reserved_bits_are_kept_apart():
    payload = bytearray(80)
    payload[73] = 0b00011100
    assert [(run.offset, run.data) for run in memory_section(bytes(payload)).reserved] == [(73, b"\x1c")]


def test_reserved_bytes_cannot_hide_in_a_field():
    with pytest.raises(ValidationError, match="overlap a field"):
        Memory(node=1, reserved=[{"offset": 32, "data": "AQ=="}])
    with pytest.raises(ValidationError, match="outside the 80 bytes"):
        Memory(reserved=[{"offset": 80, "data": "AQ=="}])


def test_memory_readings_name_the_error():
    readings = Memory(memory_error_type=3, error_status=4 << 8 | 1 << 18).readings()
    assert readings == {"memory_error_type": "multi-bit ECC", "error_status": {"error": "storage error in DRAM", "signals": ["data"]}}
    assert Memory(memory_error_type=200).readings() == {"memory_error_type": "unknown (200)"}
    assert Memory2(status=1).readings() == {"status": "uncorrected"}


@given(validation=st.integers(0, 2**64 - 1), address=st.integers(0, 2**64 - 1))
def test_the_address_reader_agrees_with_the_codecs(validation, address):
    for section in (Memory, Memory2):
        payload = section(validation_bits=validation, physical_address=address).encode_payload()
        assert memory.read_address(b"\xff" * 9 + payload[:24], 9) == (validation, address)


@pytest.mark.parametrize(
    ("field", "value"),
    [("node", 1 << 16), ("node", -1), ("physical_address", "0x10000000000000000"), ("extended_row_bits", 4), ("memory_error_type", 256)],
)
def test_a_value_wider_than_its_field_is_refused(field, value):
    with pytest.raises(ValidationError) as caught:
        Memory.model_validate({field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


# arm_processor


def test_an_arm_section_counts_what_it_holds():
    section = ArmProcessor(
        mpidr_el1=0x80000000,
        error_infos=(ArmErrorInfo(error_type=2, physical_fault_address=0x1000), ArmErrorInfo(error_type=4)),
        contexts=(ArmContext(type=4, registers=bytes(16)),),
        vendor_info=b"abc",
    )
    payload = section.encode_payload()
    assert len(payload) == 40 + 2 * 32 + 24 + 3
    assert arm_processor.read_counts(payload) == (0b1001, 2, 1, len(payload))
    again = arm_section(payload)
    assert (again.error_infos[0].length, again.error_infos[0].validation_bits) == (32, 1 << 4)
    assert again.contexts == section.contexts
    assert again.vendor_info == b"abc"


@pytest.mark.parametrize(
    ("error_type", "legacy", "bits_2_10", "bits_2_11"),
    [
        (0, "cache", [], []),
        (1, "tlb", [], ["cache"]),
        (2, "bus", ["cache"], ["tlb"]),
        (3, "micro_architectural", ["cache"], ["cache", "tlb"]),
        (4, None, ["tlb"], ["bus"]),
        (0x1A, None, ["cache", "bus", "micro_architectural"], ["tlb", "micro_architectural"]),
    ],
)
def test_an_error_type_is_read_under_each_numbering(error_type, legacy, bits_2_10, bits_2_11):
    assert arm_processor.describe_error_type(error_type) == {"legacy": legacy, "uefi-2.10": bits_2_10, "uefi-2.11": bits_2_11}


def test_the_error_type_readings_are_no_input():
    with pytest.raises(ValidationError, match="Extra inputs"):
        ArmErrorInfo.model_validate({"error_type": 2, "error_type_readings": {}})


def test_error_information_names_only_what_is_valid():
    value = 0b1_0001 | 1 << 16 | 1 << 26
    assert arm_processor.describe_error_information(value) == {"transaction": "data", "corrected": True}


def test_huge_counts_yield_no_more_than_the_payload_holds():
    payload = ArmProcessor(err_info_num=65535, context_info_num=65535, section_length=2**32 - 1).encode_payload() + bytes(100)
    section = arm_section(payload)
    assert len(section.error_infos) == 3
    assert section.contexts == ()
    assert section.trailing == bytes(4)


def test_contexts_of_no_length_still_take_eight_bytes_each():
    section = arm_section(ArmProcessor(context_info_num=65535).encode_payload() + bytes(8 * 50 + 3))
    assert len(section.contexts) == 50
    assert section.trailing == bytes(3)


def test_a_context_longer_than_the_payload_stays_raw():
    tail = struct.pack("<HHI", 0, 4, 2**32 - 1) + b"xyz"
    section = arm_section(ArmProcessor(context_info_num=1).encode_payload() + tail)
    assert section.contexts == ()
    assert section.trailing == tail


@pytest.mark.parametrize("length", [0, 104, 255])
def test_the_length_byte_of_an_error_info_does_not_move_the_next(length):
    payload = ArmProcessor(error_infos=(ArmErrorInfo(length=length, error_type=1), ArmErrorInfo(error_type=2))).encode_payload()
    assert [(info.length, info.error_type) for info in arm_section(payload).error_infos] == [(length, 1), (32, 2)]


def test_vendor_information_ends_with_the_section():
    section = arm_section(ArmProcessor(vendor_info=b"vendor", trailing=b"more").encode_payload())
    assert (section.vendor_info, section.trailing) == (b"vendor", b"more")


@given(data=st.binary(max_size=120), offset=st.integers(0, 200))
def test_the_error_info_reader_reads_zero_beyond_the_end(data, offset):
    window = data[offset : offset + 32].ljust(32, b"\0")
    assert arm_processor.read_error_info(data, offset) == struct.unpack("<BBHBHBQQQ", window)


@given(payload=st.binary(min_size=72, max_size=72))
def test_the_error_info_reader_agrees_with_the_codec(payload):
    payload = payload[:4] + b"\1\0" + payload[6:]
    info = arm_section(payload).error_infos[0]
    read = arm_processor.read_error_info(payload, arm_processor.HEADER_LENGTH)
    assert read == (
        info.version,
        info.length,
        info.validation_bits,
        info.error_type,
        info.multiple_error or 0,
        info.flags or 0,
        info.error_information or 0,
        info.virtual_fault_address or 0,
        info.physical_fault_address or 0,
    )


# pcie


@given(payload=st.binary(min_size=208, max_size=208))
def test_the_device_reader_agrees_with_the_codec(payload):
    section = Pcie.model_construct(**Pcie.decode_payload(payload))
    read = pcie.read_device(payload[: pcie.DEVICE_WINDOW])
    assert read.validation_bits == section.validation_bits
    assert read.device == pcie.device_text(section.segment or 0, section.bus or 0, section.device or 0, section.function or 0)
    assert (read.uncorrectable_status, read.uncorrectable_mask) == (
        section.aer_uncorrectable_status or 0,
        section.aer_uncorrectable_mask or 0,
    )


def test_a_device_is_written_as_linux_writes_it():
    payload = Pcie(segment=5, bus=1, device=0x1F, function=7).encode_payload()
    assert payload[31:36] == bytes([7, 0x1F, 5, 0, 1])
    read = pcie.read_device(payload)
    assert (read.validation_bits, read.device) == (pcie.DEVICE_ID_VALID, "0005:01:1f.7")


@pytest.mark.parametrize(
    ("port_type", "bus", "lacks"),
    [(None, 0, False), (0, 0, True), (0, 1, False), (4, 0, False), (5, 0, True), (6, 0, False), (9, 0, True), (10, 0, True)],
)
def test_a_device_on_bus_0_that_is_no_port_has_no_bridge_above_it(port_type, bus, lacks):
    assert pcie.read_device(Pcie(port_type=port_type, bus=bus).encode_payload()).lacks_upstream_bridge is lacks


@pytest.mark.parametrize(
    ("port_type", "integrated", "port"),
    [(None, False, False), (0, False, False), (4, False, True), (5, False, True), (6, False, True), (9, True, False), (10, True, False)],
)
def test_ports_and_devices_of_the_root_complex_are_told_apart(port_type, integrated, port):
    read = pcie.read_device(Pcie(port_type=port_type, bus=3).encode_payload())
    assert (read.is_integrated, read.is_port) == (integrated, port)


def test_a_slot_is_the_upper_13_bits():
    assert Pcie(slot=1).encode_payload()[37:39] == b"\x08\0"


def test_bytes_of_the_wrong_length_are_refused():
    with pytest.raises(ValidationError, match="`aer_header_log`: expected 16 bytes, got 1"):
        Pcie(aer_header_log=b"x")


# generic_processor, firmware_record_reference, cxl


def test_a_brand_of_any_bytes_is_text():
    payload = GenericProcessor(cpu_brand="caf\u00e9").encode_payload()
    assert payload[24:28] == b"caf\xe9"
    with pytest.raises(ValidationError, match="one byte"):
        GenericProcessor(cpu_brand="\u20ac")


def test_a_record_reference_is_longer_from_revision_1_on():
    assert len(FirmwareRecordReference(record_id=7).encode_payload()) == 16
    by_guid = FirmwareRecordReference.model_validate({"record_guid": "ed782c67-8094-48bd-bfca-5dc5a0619384"})
    assert len(by_guid.encode_payload()) == 32
    assert by_guid.encode_payload()[1] == 2
    with pytest.raises(ValidationError, match="needs a `record_revision`"):
        FirmwareRecordReference.model_validate({"record_revision": 0, "record_guid": "ed782c67-8094-48bd-bfca-5dc5a0619384"})


def test_a_protocol_error_carries_a_dvsec_and_an_error_log():
    payload = CxlProtocol(agent_type=2, dvsec=b"dv", error_log=bytes(88), trailing=b"t").encode_payload()
    assert cxl.read_protocol_error(payload) == (1 << 0 | 1 << 5 | 1 << 6, 2, 2, 88)
    section = CxlProtocol.model_construct(**CxlProtocol.decode_payload(payload))
    assert (section.dvsec, section.error_log, section.trailing) == (b"dv", bytes(88), b"t")


def test_a_dvsec_longer_than_the_payload_stays_raw():
    payload = CxlProtocol(dvsec_length=65535).encode_payload() + b"abc"
    section = CxlProtocol.model_construct(**CxlProtocol.decode_payload(payload))
    assert (section.dvsec, section.error_log, section.trailing) == (None, None, b"abc")


def test_a_component_event_states_its_length():
    payload = CxlGeneralMedia(device_physical_address=0x1003, trailing=b"xy").encode_payload()
    assert cxl.read_component_event(payload) == (146, cxl.COMPONENT_EVENT_LOG_VALID)
    assert CxlGeneralMedia(device_physical_address=0x1003).readings() == {"device_physical_address": "0x1000"}


def test_nothing_follows_a_structure_that_is_cut():
    with pytest.raises(ValidationError, match="no bytes can follow"):
        Memory(payload_length=10, trailing=b"x")
    with pytest.raises(ValidationError, match="less than the 80 bytes"):
        Memory(payload_length=80)
