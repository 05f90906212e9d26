"""Tests of CPER records: round trips, and conversion of status blocks."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.cper_record import (
    NOTIFICATION_TYPES,
    CperRecord,
    decode_record,
    describe_record,
    encode_record,
    from_status_block,
    notification_name,
    to_status_block,
)
from ras_triage.models.records.guid import MEMORY
from ras_triage.models.records.status_block import decode_block

BLOCK = encode_structured(
    {
        "severity": "corrected",
        "sections": [
            {"type": "memory", "flags": ["threshold_exceeded"], "physical_address": "0x1000", "timestamp": "2025-01-16T19:04:48Z"},
            {"type": "pcie", "severity": "informational", "fru_text": "slot 3", "timestamp": "2025-01-16T19:04:48Z"},
        ],
    }
)
RECORD = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["pei"], record_id=7))


def patched(at: int, data: bytes) -> bytes:
    return RECORD[:at] + data + RECORD[at + len(data) :]


@st.composite
def records(draw) -> bytes:
    count = draw(st.integers(0, 4))
    body = draw(st.binary(max_size=120))
    headers = 128 + 72 * count
    length = headers + draw(st.integers(0, len(body)))
    descriptors = b""
    for _ in range(count):
        offset = draw(st.integers(headers, length))
        descriptors += struct.pack("<II", offset, draw(st.integers(0, length - offset))) + draw(st.binary(min_size=64, max_size=64))
    header = struct.pack("<4sHIH", b"CPER", draw(st.integers(0, 65535)), 0xFFFFFFFF, count)
    header += draw(st.binary(min_size=8, max_size=8)) + struct.pack("<I", length) + draw(st.binary(min_size=104, max_size=104))
    return header + descriptors + body


@given(data=records())
def test_any_well_formed_record_survives_decoding_and_encoding(data):
    assert encode_record(decode_record(data)) == data


@given(data=records())
def test_any_well_formed_record_survives_the_way_through_json(data):
    record = decode_record(data)
    assert CperRecord.model_validate(json.loads(record.model_dump_json())) == record


@given(data=records(), edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6), cut=st.integers(0, 2**16))
def test_a_mutated_record_is_read_or_malformed_and_nothing_else(data, edits, cut):
    mutated = bytearray(data)
    for at, byte in edits:
        mutated[at % len(mutated)] = byte
    mutated = mutated[: cut % (len(mutated) + 1)]
    with suppress(MalformedBytes):
        record = decode_record(bytes(mutated))
        assert encode_record(record) == bytes(mutated)
        block = to_status_block(record)
        assert len(block) <= 20 + 72 * len(record.sections) + len(record.body)
        assert decode_block(block).is_complete


def test_a_status_block_comes_back_from_its_record():
    record = decode_record(RECORD)
    assert to_status_block(record) == BLOCK
    assert (record.record_id, notification_name(record.notification_type), record.record_length) == (7, "pei", len(RECORD))
    assert record.sections[0].section_type == MEMORY
    assert record.validation_bits == 0b10


def test_a_record_without_a_time_makes_entries_without_one():
    block = encode_structured({"severity": 1, "sections": [{"type": "memory"}]})
    assert to_status_block(from_status_block(block, NOTIFICATION_TYPES["cpe"])) == block


def test_a_malformed_status_block_makes_no_record():
    with pytest.raises(MalformedBytes):
        from_status_block(BLOCK[:-1], NOTIFICATION_TYPES["pei"])


def test_bytes_behind_the_record_are_kept():
    record = decode_record(RECORD + b"xyz")
    assert record.record_length == len(RECORD)
    assert encode_record(record) == RECORD + b"xyz"
    assert to_status_block(record) == BLOCK


def test_a_record_may_claim_more_than_its_sections_need():
    assert to_status_block(decode_record(patched(20, struct.pack("<I", 5000)))) == BLOCK


@pytest.mark.parametrize(
    ("data", "field", "offset", "section"),
    [
        (b"", "record_header", 0, None),
        (RECORD[:127], "record_header", 127, None),
        (patched(0, b"CPEX"), "signature_start", 0, None),
        (patched(6, b"\0"), "signature_end", 6, None),
        (patched(10, b"\xff\xff"), "record_length", 20, None),
        (patched(20, struct.pack("<I", 271)), "record_length", 20, None),
        (patched(10, b"\xff\xff" + RECORD[12:20] + b"\xff\xff\xff\xff"), "section_count", 10, None),
        (patched(128, struct.pack("<I", 271)), "section_offset", 128, 0),
        (patched(200, struct.pack("<I", 2**32 - 1)), "section_offset", 200, 1),
        (patched(204, struct.pack("<I", 209)), "section_length", 204, 1),
        (RECORD[:-1], "section_length", 204, 1),
    ],
)
def test_a_bad_record_names_the_field_and_its_offset(data, field, offset, section):
    with pytest.raises(MalformedBytes) as caught:
        decode_record(data)
    assert (caught.value.field, caught.value.offset, caught.value.section) == (field, offset, section)


def test_sections_that_share_bytes_are_read_but_make_no_status_block():
    shared = patched(128, struct.pack("<II", 272, 288) + RECORD[136:200] + struct.pack("<II", 272, 288))
    record = decode_record(shared)
    assert encode_record(record) == shared
    with pytest.raises(MalformedBytes, match="longer than the record"):
        to_status_block(record)


def test_a_description_of_a_record_holds_a_block_that_can_be_posted():
    description = describe_record(RECORD)
    assert description["notification"] == "pei"
    assert description["record"]["sections"][1]["fru_text"] == "slot 3"
    assert encode_structured(description["status_block"]) == BLOCK
    assert [reading["name"] for reading in description["readings"]] == ["memory", "pcie"]
