"""Property tests of the section codecs: round trips of any bytes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.records.guid import SECTION_TYPES
from ras_triage.models.sections.registry import SECTIONS, SECTIONS_BY_GUID

NAMES = sorted(SECTIONS)


def decode(name: str, payload: bytes):
    section = SECTIONS[name]
    return section.model_construct(**section.decode_payload(payload))


def size(name: str) -> int:
    return SECTIONS[name].LAYOUT.size


def test_every_section_type_with_a_name_has_a_codec():
    assert set(SECTIONS) == set(SECTION_TYPES)
    assert {section.model_fields["type"].default for section in SECTIONS.values()} == set(SECTION_TYPES)
    assert {SECTION_TYPES[name]: section for name, section in SECTIONS.items()} == SECTIONS_BY_GUID


@pytest.mark.parametrize("name", NAMES)
@given(payload=st.binary(max_size=300))
def test_any_payload_survives_decoding_and_encoding(name, payload):
    assert decode(name, payload).encode_payload() == payload


@pytest.mark.parametrize("name", NAMES)
@given(length=st.integers(0, 300), at=st.integers(0, 299), byte=st.integers(1, 255))
def test_one_byte_in_a_payload_of_zeroes_survives(name, length, at, byte):
    payload = bytearray(length)
    if at < length:
        payload[at] = byte
    assert decode(name, bytes(payload)).encode_payload() == payload


@pytest.mark.parametrize("name", NAMES)
@given(payload=st.binary(max_size=300))
def test_any_payload_survives_the_way_through_json(name, payload):
    section = decode(name, payload)
    again = SECTIONS[name].model_validate_json(section.model_dump_json())
    assert again == section
    assert again.encode_payload() == payload


@pytest.mark.parametrize("name", NAMES)
@given(payload=st.binary(max_size=300))
def test_absent_fields_may_be_left_out_of_the_json(name, payload):
    section = decode(name, payload)
    assert SECTIONS[name].model_validate_json(section.model_dump_json(exclude_none=True)).encode_payload() == payload


@pytest.mark.parametrize("name", NAMES)
@given(payload=st.binary(max_size=300))
def test_readings_can_be_made_of_any_payload(name, payload):
    assert isinstance(decode(name, payload).readings(), dict)


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_of_zeroes_says_nothing(name):
    section = decode(name, bytes(size(name)))
    said = section.model_dump(exclude_none=True, exclude={"type", "flags", "revision", "timestamp_precise"})
    assert not any(said.values())


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_payload_is_a_payload_cut_at_byte_0(name):
    assert SECTIONS[name].decode_payload(b"") == {"payload_length": 0}


@pytest.mark.parametrize("name", NAMES)
def test_a_section_without_fields_has_the_length_of_its_structure(name):
    assert len(SECTIONS[name]().encode_payload()) == size(name)


@pytest.mark.parametrize("name", NAMES)
def test_no_field_of_a_layout_overlaps_another_by_accident(name):
    views = {"bank_address", "bank_group"} if name.startswith("memory") else set()
    seen = 0
    for item, _, mask in SECTIONS[name].LAYOUT.table:
        assert item.start + item.width <= size(name) * 8
        if item.name not in views:
            assert not seen & mask, item.name
            seen |= mask


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_share_bits_are_declared_as_overlays(name):
    for (one, _, mask), (other, _, other_mask) in combinations(SECTIONS[name].LAYOUT.table, 2):
        if mask & other_mask:
            assert all(field.is_overlay or field.overlay_bits for field in (one, other)), (one.name, other.name)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_layout_is_a_field_of_the_section(name):
    fields = SECTIONS[name].model_fields
    assert [item.name for item, _, _ in SECTIONS[name].LAYOUT.table if item.name not in fields] == []


@pytest.mark.parametrize("name", NAMES)
def test_validation_bits_follow_from_the_fields_that_are_there(name):
    section = SECTIONS[name]
    for item, _, _ in section.LAYOUT.table:
        if item.valid:
            value = {"int": 1, "bytes": bytes(item.size), "text": "x"}[item.kind]
            again = decode(name, section(**{item.name: value}).encode_payload())
            assert again.validation_bits == item.valid
            assert getattr(again, item.name) == value
