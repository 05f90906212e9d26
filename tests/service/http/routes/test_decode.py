"""Decoding of records over HTTP."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, encode_record, from_status_block
from tests.service.support.application import BLOCK, Call, caller

CALL = caller()
RECORD = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["sea"]))
RAW = {"content-type": "application/octet-stream"}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_base64_and_raw_bytes_are_explained_alike(call: Call) -> None:
    in_json = call("POST", "/v1/decode", json={"status_block": text(BLOCK)})

    assert in_json.status_code == 200
    assert in_json.json()["status_block"]["sections"][0]["physical_address"] == "0x56edd040"
    assert call("POST", "/v1/decode", content=BLOCK, headers=RAW).content == in_json.content


def test_a_record_is_known_by_its_signature(call: Call) -> None:
    answer = call("POST", "/v1/decode", content=RECORD, headers=RAW)

    assert answer.json()["notification"] == "sea"
    assert answer.content == call("POST", "/v1/decode", json={"record": text(RECORD)}).content


def test_what_was_decoded_can_be_posted_as_it_is(call: Call, event: dict[str, Any]) -> None:
    structured = call("POST", "/v1/decode", content=BLOCK, headers=RAW).json()["status_block"]

    answer = call("POST", "/v1/decisions?dry_run=true", json={**event, "status_block": structured})
    assert answer.content == call("POST", "/v1/decisions?dry_run=true", json=event).content


def test_bytes_that_end_early_are_named_by_offset_section_and_field(call: Call) -> None:
    answer = call("POST", "/v1/decode", json={"status_block": text(BLOCK[:-3])})

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:ras-triage:problem:malformed-bytes"
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == "/status_block"
    assert (fault["offset"], fault["section"], fault["field"]) == (len(BLOCK) - 3, 0, "data_length")


def test_a_request_holds_one_of_the_two(call: Call) -> None:
    for request in ({}, {"status_block": text(BLOCK), "record": text(RECORD)}):
        answer = call("POST", "/v1/decode", json=request)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:ras-triage:problem:invalid-request"


@given(st.binary(max_size=600), st.sampled_from([b"", b"CPER", BLOCK[:40], RECORD[:200], b"{"]))
def test_any_bytes_are_explained_or_refused(data: bytes, start: bytes) -> None:
    for headers in (RAW, {}):
        assert CALL("POST", "/v1/decode", content=start + data, headers=headers).status_code in (200, 400, 422)


def test_a_record_in_hexadecimal_is_decoded_and_named(call: Call) -> None:
    plain = call("POST", "/v1/decode", json={"record": text(RECORD)}).json()

    assert "encoding" not in plain
    for written in (RECORD.hex(), "0X" + RECORD.hex().upper()):
        for request in ({"json": {"record": written}}, {"content": written, "headers": {"content-type": "text/plain"}}):
            assert call("POST", "/v1/decode", **request).json() == {**plain, "encoding": "hexadecimal"}


@pytest.mark.parametrize(("member", "noun"), [("record", "a CPER record"), ("status_block", "a status block"), ("hest", "a HEST")])
def test_what_could_be_either_is_refused(call: Call, member: str, noun: str) -> None:
    answer = call("POST", "/v1/decode", json={member: "deadbeef"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{member}")
    assert f"neither looks like {noun}" in answer.json()["detail"]


def test_a_text_that_could_be_either_is_refused(call: Call) -> None:
    answer = call("POST", "/v1/decode", content=b"dead beef", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["type"]) == (415, "urn:ras-triage:problem:unrecognised-input")
    assert "could be 4 bytes in hexadecimal or 6 bytes in base64" in answer.json()["detail"]


def test_a_block_is_laid_out_field_by_field(call: Call) -> None:
    block = {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}]}
    layout = call("POST", "/v1/decode", json={"status_block": block, "layout": True}).json()["layout"]
    data = base64.b64decode(layout["data"])
    (address,) = (field for field in layout["fields"] if field["pointer"] == "/sections/0/physical_address")

    assert int.from_bytes(data[address["offset"] : address["offset"] + address["length"]], "little") == 0x56EDD040
    assert "layout" not in call("POST", "/v1/decode", json={"status_block": layout["data"]}).json()


def test_a_layout_is_that_of_a_status_block(call: Call) -> None:
    answer = call("POST", "/v1/decode", json={"hest": "SEVTVA==", "layout": True})
    assert answer.status_code == 422
    assert "`layout` requires `status_block`" in answer.text
