"""Tests of the structured status block: round trips."""

from __future__ import annotations

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.records.block_fields import StructuredBlock, decode_structured, describe_block, encode_structured
from ras_triage.models.records.guid import MEMORY, NULL, SECTION_TYPES, guid
from ras_triage.models.records.status_block import DataEntry, decode_block, encode_block_header, encode_entry
from ras_triage.models.sections.memory import Memory

VENDOR = guid("e8ed898d-df16-43cc-8ecc-54f060ef157f")

guids = st.sampled_from([*SECTION_TYPES.values(), VENDOR]) | st.binary(min_size=16, max_size=16)
severities = st.integers(0, 3) | st.integers(0, 2**32 - 1)


@st.composite
def entries(draw) -> bytes:
    payload = draw(st.binary(max_size=230))
    revision = draw(st.sampled_from([0x0201, 0x0300, 0x0301, 0, 0xFFFF]))
    entry = DataEntry(
        offset=0,
        section_type=draw(guids),
        error_severity=draw(severities),
        revision=revision,
        validation_bits=draw(st.integers(0, 255)),
        flags=draw(st.integers(0, 255)),
        error_data_length=len(payload),
        fru_id=draw(st.just(NULL) | st.binary(min_size=16, max_size=16)),
        fru_text=draw(st.binary(max_size=20)).ljust(20, b"\0"),
        timestamp=draw(st.just(bytes(8)) | st.binary(min_size=8, max_size=8)) if revision >> 8 >= 3 else None,
    )
    return encode_entry(entry) + payload


@st.composite
def blocks(draw) -> bytes:
    body = b"".join(draw(st.lists(entries(), max_size=3)))
    behind = draw(st.binary(max_size=20))
    raw_offset = draw(st.just(0) | st.integers(0, len(body) + 60) | st.integers(0, 2**32 - 1))
    raw_length = draw(st.just(0) | st.integers(0, 20) | st.integers(0, 2**32 - 1))
    status = draw(st.integers(0, 2**32 - 1))
    return encode_block_header(status, raw_offset, raw_length, len(body), draw(severities)) + body + behind


@given(data=blocks())
def test_any_well_formed_block_survives_decoding_and_encoding(data):
    assert encode_structured(decode_structured(data)) == data


@given(data=blocks())
def test_any_well_formed_block_survives_the_way_through_json(data):
    block = decode_structured(data)
    assert encode_structured(json.loads(block.model_dump_json())) == data
    assert StructuredBlock.model_validate_json(block.model_dump_json()) == block


@given(data=blocks())
def test_the_block_in_a_description_can_be_posted_unchanged(data):
    description = describe_block(data)
    assert encode_structured(json.loads(json.dumps(description["status_block"]))) == data
    assert len(description["readings"]) == len(decode_block(data).entries)


@given(data=blocks(), edits=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6), cut=st.integers(0, 2**16))
def test_a_mutated_block_is_read_or_malformed_and_nothing_else(data, edits, cut):
    mutated = bytearray(data)
    for at, byte in edits:
        mutated[at % len(mutated)] = byte
    mutated = mutated[: cut % (len(mutated) + 1)]
    with suppress(MalformedBytes):
        assert encode_structured(decode_structured(bytes(mutated))) == bytes(mutated)


def test_the_smallest_structured_block_takes_its_defaults():
    data = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}]})
    block = decode_block(data)
    assert (block.block_status, block.raw_data_offset, block.raw_data_length, block.error_severity) == (0x11, 0, 0, 0)
    (entry,) = block.entries
    assert (entry.section_type, entry.error_severity, entry.revision, entry.validation_bits, entry.flags) == (MEMORY, 0, 0x300, 0, 0)
    assert (entry.error_data_length, entry.timestamp) == (80, bytes(8))
    assert data[92:116] == struct.pack("<QQQ", 2, 0, 0x56EDD040)


@pytest.mark.parametrize(
    ("severity", "status"),
    [("recoverable", 1), ("fatal", 1), ("corrected", 2), ("informational", 2), (4, 1), (2**32 - 1, 1)],
)
def test_the_block_status_follows_the_severity(severity, status):
    assert decode_block(encode_structured({"severity": severity})).block_status == status


def test_a_section_takes_the_blocks_severity_unless_it_has_its_own():
    data = encode_structured({"severity": "fatal", "sections": [{"type": "pcie"}, {"type": "pcie", "severity": "corrected"}]})
    assert [entry.error_severity for entry in decode_block(data).entries] == [1, 2]


def test_the_entry_header_is_written_as_asked():
    section = {
        "type": "memory",
        "flags": ["containment_warning", "overflow"],
        "fru_id": "cc4f334a-c563-11eb-8f88-9f7ac76c6f0c",
        "fru_text": "DIMM 3",
        "timestamp": "2025-01-16T20:04:48+01:00",
        "timestamp_precise": True,
    }
    (entry,) = decode_block(encode_structured({"severity": 2, "sections": [section]})).entries
    assert (entry.flags, entry.validation_bits) == (0x82, 0b111)
    assert entry.fru_id == guid("cc4f334a-c563-11eb-8f88-9f7ac76c6f0c")
    assert entry.fru_text == b"DIMM 3".ljust(20, b"\0")
    assert entry.timestamp == bytes.fromhex("4804190116012520")


def test_sections_that_are_models_already_are_encoded_like_their_fields():
    memory, opaque = (
        {"type": "memory", "physical_address": "0x56edd040"},
        {"type": "e8ed898d-df16-43cc-8ecc-54f060ef157f", "payload": "AQID"},
    )
    mixed = [Memory(physical_address=0x56EDD040), opaque, memory]
    assert encode_structured({"severity": 2, "sections": mixed}) == encode_structured({"severity": 2, "sections": [memory, opaque, memory]})


def test_an_old_entry_has_no_timestamp():
    (entry,) = decode_block(encode_structured({"severity": 2, "sections": [{"type": "memory", "revision": "0x201"}]})).entries
    assert (entry.header_length, entry.timestamp) == (64, None)
    with pytest.raises(ValidationError, match="requires a `revision`"):
        encode_structured({"severity": 2, "sections": [{"type": "memory", "revision": "0x201", "timestamp": "2025-01-16T19:04:48Z"}]})


@pytest.mark.parametrize("stamp", ["4804190016012520", "ffffffffffffffff", "6001010001012000", "0000000000000001", "d2029649"])
def test_a_timestamp_that_is_no_date_survives_as_bytes(stamp):
    payload = bytes.fromhex(stamp).ljust(8, b"\0")
    entry = DataEntry(0, VENDOR, 0, 0x300, 4, 0, 0, NULL, bytes(20), payload)
    data = encode_block_header(1, 0, 0, 72, 0) + encode_entry(entry)
    text = describe_block(data)["status_block"]["sections"][0]["timestamp"]
    assert (text == "2025-01-16T19:04:48Z") == (stamp == "4804190016012520")
    assert encode_structured(describe_block(data)["status_block"]) == data


def test_a_section_of_any_type_can_be_given_as_bytes():
    data = encode_structured({"severity": 0, "sections": [{"type": "e8ed898d-df16-43cc-8ecc-54f060ef157f", "payload": "AQID"}]})
    block = decode_block(data)
    assert block.entries[0].section_type == VENDOR
    assert data[-3:] == b"\1\2\3"
    assert describe_block(data)["readings"] == [{"name": "e8ed898d-df16-43cc-8ecc-54f060ef157f"}]


def test_raw_data_lie_behind_the_sections():
    data = encode_structured({"severity": 0, "sections": [{"type": "memory"}], "raw_data": "AQID"})
    block = decode_block(data)
    assert (block.raw_data_offset, block.raw_data_length) == (172, 3)
    assert decode_structured(data).raw_data == b"\1\2\3"


def test_raw_data_that_lie_elsewhere_are_not_taken_apart():
    data = encode_block_header(1, 4, 8, 0, 0) + b"behind"
    block = decode_structured(data)
    assert (block.raw_data_offset, block.raw_data_length, block.raw_data, block.trailing) == (4, 8, None, b"behind")


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({}, ()),
        ({"type": "memroy"}, ()),
        ({"type": 3}, ()),
        ({"type": "memory", "adress": 1}, ("memory", "adress")),
        ({"type": "memory", "node": 65536}, ("memory", "node")),
        ({"type": "memory", "flags": ["urgent"]}, ("memory", "flags")),
        ({"type": "memory", "severity": "bad"}, ("memory", "severity")),
        ({"type": "memory", "fru_text": "x" * 21}, ("memory", "fru_text")),
        ({"type": "arm_processor", "error_infos": [{"error_type": 256}]}, ("arm_processor", "error_infos", 0, "error_type")),
        ({"type": "e8ed898d-df16-43cc-8ecc-54f060ef157f", "payload": "?"}, ("guid", "payload")),
    ],
)
def test_a_bad_field_is_named_with_its_path(section, path):
    with pytest.raises(ValidationError) as caught:
        encode_structured({"severity": 0, "sections": [{"type": "pcie"}, section]})
    assert [error["loc"] for error in caught.value.errors()] == [("sections", 1, *path)]


def test_a_description_lists_what_the_bytes_mean():
    section = {"type": "arm_processor", "error_infos": [{"error_type": 2, "flags": 1}]}
    (reading,) = describe_block(encode_structured({"severity": 0, "sections": [section]}))["readings"]
    assert reading["name"] == "arm_processor"
    assert reading["error_infos"] == [
        {"error_type_readings": {"legacy": "bus", "uefi-2.10": ["cache"], "uefi-2.11": ["tlb"]}, "flags": ["first_error"]}
    ]


def test_a_block_that_ends_early_names_the_field_where_it_ends():
    data = encode_structured({"severity": 0, "sections": [{"type": "memory"}]})
    with pytest.raises(MalformedBytes) as caught:
        decode_structured(data[:-1])
    assert (caught.value.field, caught.value.section, caught.value.offset) == ("data_length", 0, len(data) - 1)
