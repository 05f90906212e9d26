"""Positions of fields in the bytes of a status block."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.records.block_fields import decode_structured, encode_structured
from ras_triage.models.records.field_map import MAX_FIELDS, field_positions
from tests.paths import VECTORS

ADDRESS = "0x56edd040"


def test_a_field_is_where_its_bytes_are() -> None:
    block = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": ADDRESS}]})
    places = {field.pointer: block[field.offset : field.offset + field.length] for field in field_positions(block)}

    assert int.from_bytes(places["/sections/0/physical_address"], "little") == int(ADDRESS, 16)
    assert places["/severity"] == bytes(4)
    assert int.from_bytes(places["/sections/0/error_data_length"], "little") == 80


def test_error_infos_of_an_arm_processor_section_have_their_own_positions() -> None:
    section = {"type": "arm_processor", "error_infos": [{"error_type": 1}, {"error_type": 2, "physical_fault_address": ADDRESS}]}
    block = encode_structured({"severity": "recoverable", "sections": [section]})
    places = {field.pointer: block[field.offset : field.offset + field.length] for field in field_positions(block)}

    assert places["/sections/0/error_infos/0/error_type"] == b"\x01"
    assert places["/sections/0/error_infos/1/error_type"] == b"\x02"
    assert int.from_bytes(places["/sections/0/error_infos/1/physical_fault_address"], "little") == int(ADDRESS, 16)


def test_positions_lie_within_every_recorded_block() -> None:
    for line in (VECTORS / "linux-7.3.4.jsonl").read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["event"].get("status_block")
        if not isinstance(text, str):
            continue
        block = base64.b64decode(text)
        try:
            decode_structured(block)
        except MalformedBytes:
            continue
        assert all(0 <= field.offset < field.offset + max(field.length, 1) <= len(block) for field in field_positions(block))


@given(st.binary(max_size=400))
def test_any_bytes_have_positions_or_the_same_error_as_decoding(data: bytes) -> None:
    try:
        decode_structured(data)
    except MalformedBytes:
        return
    assert len(field_positions(data)) <= MAX_FIELDS
