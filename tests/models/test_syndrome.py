"""Tests of syndrome decoding and struct kvm_vcpu_events."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.kvm import VCPU_EVENTS, VcpuEvents, decode_vcpu_events, encode_vcpu_events, guest_serror_esr
from ras_triage.models.syndrome import AsynchronousErrorType, serror_iss, serror_syndrome
from ras_triage.models.syndrome_fields import (
    Syndrome,
    SyndromeField,
    decode_syndrome,
    encode_syndrome,
    exception_class_name,
    fault_status,
    guess_kind,
    syndrome_summary,
)

u64 = st.integers(0, (1 << 64) - 1)
abort_classes = st.sampled_from([0x20, 0x21, 0x24, 0x25, 0x2F])
likely = st.builds(lambda exception_class, rest: exception_class << 26 | rest, abort_classes, st.integers(0, (1 << 26) - 1))
kinds = st.sampled_from(["esr", "vsesr", None])


def named(syndrome: Syndrome) -> dict[str, SyndromeField]:
    return {field.name: field for field in syndrome.fields}


def values(syndrome: Syndrome) -> dict[str, int]:
    return {field.name: field.value for field in syndrome.fields}


# Every value


@given(u64 | likely | st.integers(0, (1 << 25) - 1), kinds)
@example(0, None)
@example((1 << 64) - 1, "vsesr")
def test_encoding_what_was_decoded_gives_the_value_back(value: int, kind: str | None) -> None:
    assert encode_syndrome(decode_syndrome(value, kind)) == value  # type: ignore[arg-type]


@given(u64 | likely, kinds)
def test_fields_lie_beside_each_other_highest_first_and_say_what_they_mean_and_where(value: int, kind: str | None) -> None:
    fields = decode_syndrome(value, kind).fields  # type: ignore[arg-type]
    for above, below in pairwise(fields):
        assert above.low > below.high
    for field in fields:
        assert 63 >= field.high >= field.low >= 0
        assert field.meaning
        assert field.section.startswith("DDI 0487, D24.2 ")
        assert re.fullmatch(r"\d+(:\d+)?", field.bits)
        assert not field.reserved or field.value
        assert field.name != "RES0" or field.reserved


@given(u64 | likely)
def test_every_syndrome_has_one_line_of_words(value: int) -> None:
    assert "\n" not in syndrome_summary(decode_syndrome(value))


def test_a_value_too_wide_for_its_field_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="`AET`: 0x8 does not fit into bits 12:10"):
        encode_syndrome(Syndrome("vsesr", (SyndromeField("AET", 12, 10, 8, "", ""),)))


# SErrors


def test_every_field_of_an_serror_is_named() -> None:
    fields = named(decode_syndrome(0xBE00_0411))
    assert {name: field.bits for name, field in fields.items()} == {
        "ISS2": "55:32",
        "EC": "31:26",
        "IL": "25",
        "IDS": "24",
        "ELS": "18",
        "WU": "17:16",
        "VFV": "15",
        "PFV": "14",
        "IESB": "13",
        "AET": "12:10",
        "EA": "9",
        "WnRV": "7",
        "WnR": "6",
        "DFSC": "5:0",
    }
    assert fields["EC"].meaning == "SError exception"
    assert fields["AET"].meaning.startswith("UEU, unrecoverable")
    assert "SError" in fields["AET"].section


@pytest.mark.parametrize(
    ("aet", "words"), [(0, "UC"), (1, "UEU"), (2, "UEO"), (3, "UER"), (4, "reserved"), (5, "reserved"), (6, "CE"), (7, "reserved")]
)
def test_the_error_type_has_its_name(aet: int, words: str) -> None:
    syndrome = decode_syndrome(aet << 10 | 0x11)
    assert named(syndrome)["AET"].meaning.startswith(words)
    assert words in syndrome_summary(syndrome)


def test_the_error_type_means_nothing_beside_another_status_code() -> None:
    for value, reserved in ((0x1800, True), (0x0, False)):
        field = named(decode_syndrome(value))["AET"]
        assert (field.meaning, field.reserved) == ("not meaningful: DFSC is not 0x11", reserved)


def test_an_implementation_defined_syndrome_is_not_taken_further_apart() -> None:
    syndrome = decode_syndrome(0xBF00_1811)
    assert list(values(syndrome)) == ["ISS2", "EC", "IL", "IDS", "IMPLEMENTATION DEFINED"]
    assert values(syndrome)["IMPLEMENTATION DEFINED"] == 0x1811
    assert syndrome_summary(syndrome) == "SError: implementation-defined syndrome"


@pytest.mark.parametrize(("bit", "gap"), [(8, "8"), (19, "23:19"), (23, "23:19"), (56, "63:56"), (63, "63:56")])
def test_reserved_bits_that_are_set_are_named(bit: int, gap: str) -> None:
    fields = [field for field in decode_syndrome(0xBE00_0411 | 1 << bit).fields if field.reserved]
    assert [(field.name, field.bits) for field in fields] == [("RES0", gap)]
    assert not any(field.reserved for field in decode_syndrome(0xBE00_0411).fields)


# VSESR_EL2


def test_what_fits_vsesr_is_taken_for_it_unless_the_caller_says_otherwise() -> None:
    assert [guess_kind(value) for value in (0, 0x1FF_FFFF, 0x200_0000, 0xBE00_0011)] == ["vsesr", "vsesr", "esr", "esr"]
    assert "EC" not in values(decode_syndrome(0x811))
    assert values(decode_syndrome(0x811, "esr"))["EC"] == 0


def test_bits_above_vsesr_are_reserved_in_it() -> None:
    fields = [field for field in decode_syndrome(0xBE00_0811, "vsesr").fields if field.reserved]
    assert [(field.name, field.bits, field.value) for field in fields] == [("RES0", "63:25", 0x5F)]


def test_vsesr_and_the_guests_esr_have_their_iss_in_common() -> None:
    for iss in (0x11, 0x411, 0x811, 0xC11, 0x1811, 0x0, 0x100_0000, 0x1FF_FFFF):
        virtual, seen = values(decode_syndrome(iss, "vsesr")), values(decode_syndrome(guest_serror_esr(iss, ras_extension=True)))
        assert {name: seen[name] for name in virtual} == virtual


@pytest.mark.parametrize(
    ("error_type", "iss"),
    [("UC", 0x11), ("UEU", 0x411), ("UEO", 0x811), ("UER", 0xC11), ("CE", 0x1811)],
)
def test_an_error_type_is_stated_by_its_own_syndrome(error_type: str, iss: int) -> None:
    kind = AsynchronousErrorType[error_type]
    assert serror_iss(kind) == iss
    assert serror_syndrome(iss).error_type is kind
    assert syndrome_summary(decode_syndrome(iss)).startswith(f"virtual SError: {error_type}")


# Aborts


def test_the_data_abort_that_a_vmm_injects_is_taken_apart() -> None:
    syndrome = decode_syndrome(0x9200_0410)
    fields = named(syndrome)
    assert values(syndrome) == {
        "ISS2": 0,
        "EC": 0x24,
        "IL": 1,
        "ISV": 0,
        "WU": 0,
        "FnP": 0,
        "PFV": 0,
        "VNCR": 0,
        "SET": 0,
        "FnV": 1,
        "EA": 0,
        "CM": 0,
        "S1PTW": 0,
        "WnR": 0,
        "DFSC": 0x10,
    }
    assert fields["SET"].meaning == "synchronous error type: UER, recoverable"
    assert fields["FnV"].meaning == "FAR_ELx is not valid"
    assert syndrome_summary(syndrome) == (
        "data abort from a lower exception level: synchronous external abort, not on a table walk, the fault address is not valid"
    )


def test_a_described_access_has_its_size_and_register() -> None:
    syndrome = decode_syndrome(0x24 << 26 | 1 << 24 | 3 << 22 | 1 << 21 | 7 << 16 | 1 << 15 | 1 << 14 | 1 << 6 | 7)
    fields = named(syndrome)
    assert [fields[name].bits for name in ("SAS", "SSE", "SRT", "SF", "AR")] == ["23:22", "21", "20:16", "15", "14"]
    assert fields["SAS"].meaning == "access size: doubleword"
    assert fields["SRT"].meaning == "register 7"
    assert fields["WnR"].meaning == "a write"
    assert fields["DFSC"].meaning == "translation fault, level 3"
    assert "LST" in fields


def test_an_instruction_abort_has_a_status_code_of_its_own_name() -> None:
    syndrome = decode_syndrome(0x8200_0010 | 1 << 7 | 1 << 6)
    fields = named(syndrome)
    assert set(fields) == {"ISS2", "EC", "IL", "PFV", "SET", "FnV", "EA", "S1PTW", "IFSC", "RES0"}
    assert fields["RES0"].bits == "6"
    assert fields["S1PTW"].meaning == "a stage 2 fault on a stage 1 table walk"


@pytest.mark.parametrize("code", [code for code in range(64) if code != 0x10], ids=hex)
def test_whether_the_address_is_valid_is_said_only_of_an_external_abort_on_the_access(code: int) -> None:
    field = named(decode_syndrome(0x9200_0400 | code))["FnV"]
    assert field.reserved
    assert field.meaning.startswith("not meaningful")


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (0x10, "synchronous external abort, not on a table walk"),
        (0x13, "synchronous external abort on a table walk, level -1"),
        (0x14, "synchronous external abort on a table walk, level 0"),
        (0x17, "synchronous external abort on a table walk, level 3"),
        (0x18, "synchronous parity or ECC error, not on a table walk"),
        (0x1B, "synchronous parity or ECC error on a table walk, level -1"),
        (0x1F, "synchronous parity or ECC error on a table walk, level 3"),
        (0x28, "granule protection fault, not on a table walk"),
        (0x3F, "reserved value"),
    ],
)
def test_fault_status_codes_have_their_meaning(code: int, meaning: str) -> None:
    assert fault_status(code) == meaning
    assert meaning in syndrome_summary(decode_syndrome(0x9600_0000 | code))


def test_any_other_exception_class_has_a_generic_form() -> None:
    syndrome = decode_syndrome(0x5600_0042)
    assert values(syndrome) == {"ISS2": 0, "EC": 0x15, "IL": 1, "ISS": 0x42}
    assert syndrome_summary(syndrome) == "SVC, AArch64"
    assert exception_class_name(0x3F) == "reserved value"


# struct kvm_vcpu_events

u8 = st.integers(0, 255)


@given(st.builds(VcpuEvents, u8, u8, u8, u64, st.binary(min_size=5, max_size=5), st.binary(min_size=48, max_size=48)))
def test_the_structure_keeps_every_byte(events: VcpuEvents) -> None:
    data = encode_vcpu_events(events)
    assert len(data) == 64
    assert decode_vcpu_events(data) == events


@given(st.binary(min_size=64, max_size=64))
def test_any_64_bytes_are_the_structure(data: bytes) -> None:
    assert encode_vcpu_events(decode_vcpu_events(data)) == data


def test_the_structure_is_laid_out_as_the_kernel_lays_it_out() -> None:
    events = VcpuEvents(1, 2, 3, 0x1122_3344_5566_7788, b"\x0a" * 5, b"\x0b" * 48)
    assert encode_vcpu_events(events) == b"\1\2\3" + b"\x0a" * 5 + bytes.fromhex("8877665544332211") + b"\x0b" * 48


@pytest.mark.parametrize("length", [0, 16, 63, 65, 128])
def test_another_length_is_not_the_structure(length: int) -> None:
    with pytest.raises(MalformedBytes, match=f"got {length}") as caught:
        decode_vcpu_events(bytes(length))
    assert (caught.value.offset, caught.value.field) == (min(length, VCPU_EVENTS.size), "kvm_vcpu_events")
