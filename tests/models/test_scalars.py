"""Tests of bytes in the JSON models: base64, hexadecimal, and text that could be both."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ras_triage.models.event import Event
from ras_triage.models.host import RecentRecord
from ras_triage.models.records.block_fields import OpaqueSection
from ras_triage.models.scalars import AmbiguousEncoding, HexadecimalBytes, decode_bytes, decode_text
from ras_triage.policies.catalog.policies import uniform_policy
from ras_triage.policies.decide import decide
from tests.policies.events import block, memory

BLOCK = block(memory())
VENDOR = "d7c86cf1-1b1c-4fc9-9a5e-0a0f3e8f0a01"


def event(status_block: str) -> Event:
    return Event.model_validate({"notification": "sea", "status_block": status_block})


@pytest.mark.parametrize("text", [BLOCK.hex(), BLOCK.hex().upper(), "0x" + BLOCK.hex(), "0X" + BLOCK.hex().upper(), bytes(24).hex()])
def test_a_status_block_may_be_hexadecimal(text: str) -> None:
    assert event(text).status_block == bytes.fromhex(text.lower().removeprefix("0x"))


@pytest.mark.parametrize("data", [BLOCK, bytes(24), b"", bytes(3), b"\x10\0\0", b"\xff" * 30])
def test_a_status_block_in_base64_is_read_as_before(data: bytes) -> None:
    decoded = event(base64.b64encode(data).decode()).status_block
    assert decoded == data
    assert not isinstance(decoded, HexadecimalBytes)


def test_the_decision_says_that_the_text_was_hexadecimal() -> None:
    hexadecimal, packed = (decide(event(text), uniform_policy()) for text in (BLOCK.hex(), base64.b64encode(BLOCK).decode()))
    (said,) = [one for one in hexadecimal.assumptions if one not in packed.assumptions]
    assert (said.fact, said.assumed) == ("status_block", "the text is hexadecimal, not base64")
    assert (hexadecimal.plan, hexadecimal.event_key, hexadecimal.rationale) == (packed.plan, packed.event_key, packed.rationale)


def test_a_recent_record_may_be_hexadecimal_and_the_decision_says_so() -> None:
    content = {"notification": "sea", "host": {"recent": [{"status_block": BLOCK.hex(), "age_ms": 5}]}}
    asked = Event.model_validate(content)
    assert asked.host.recent == (RecentRecord(status_block=BLOCK, age_ms=5),)
    assert "host.recent[0].status_block" in [one.fact for one in decide(asked, uniform_policy()).assumptions]


@pytest.mark.parametrize("text", ["deadbeef", "ff" * 40, "0xdeadbeefdeadbeefde", "abcd", "0000", "01000000"])
def test_what_could_be_either_and_looks_like_a_block_in_neither_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"could be \d+ bytes in hexadecimal or \d+ bytes in base64, and neither looks like a status"):
        event(text)


def test_what_is_only_hexadecimal_is_decided_even_if_it_is_no_block() -> None:
    decision = decide(event("0xdeadbeef"), uniform_policy())
    assert "status_block" in [one.fact for one in decision.assumptions]
    assert [one.outcome for one in decision.rationale if one.rule == "read.validate"] != []


@pytest.mark.parametrize("text", ["abc", "0xabc", "01 00 00 00", "01:00", "%%"])
def test_what_is_neither_is_not_valid_base64(text: str) -> None:
    with pytest.raises(ValidationError, match=r"not valid base64: .*; expected base64, or hexadecimal digits in pairs, without separators"):
        event(text)


def test_two_plausible_readings_are_refused() -> None:
    with pytest.raises(AmbiguousEncoding, match="and both look like a block"):
        decode_text("deadbeef", lambda _: True, "a block")


@given(st.binary(max_size=60))
def test_opaque_bytes_come_back_from_hexadecimal_with_a_prefix(data: bytes) -> None:
    assert decode_bytes("0x" + data.hex() if data else "") == data


@given(st.binary(max_size=60).filter(lambda data: not base64.b64encode(data).startswith((b"0x", b"0X"))))
def test_opaque_bytes_come_back_from_base64_or_are_refused(data: bytes) -> None:
    try:
        assert decode_bytes(base64.b64encode(data).decode()) == data
    except AmbiguousEncoding:
        assert len(data) > 5


@pytest.mark.parametrize("data", [bytes(12), bytes(11) + b"\1", b"\x10\0\0" * 4, b"\x69\xb7\x1d"])
def test_opaque_base64_that_has_only_hexadecimal_digits_is_base64_if_it_is_short_or_has_zero_bytes(data: bytes) -> None:
    assert OpaqueSection.model_validate({"type": VENDOR, "payload": base64.b64encode(data).decode()}).payload == data


@pytest.mark.parametrize("text", ["0102030405060708", "deadbeef", "0000002000000030", "DEADBEEF00AB00CD"])
def test_opaque_hexadecimal_without_a_prefix_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="expected base64, or hexadecimal with `0x`"):
        OpaqueSection.model_validate({"type": VENDOR, "payload": text})


def test_opaque_hexadecimal_of_a_length_that_base64_cannot_have_is_told_of_the_prefix() -> None:
    with pytest.raises(ValidationError, match="hexadecimal without `0x`; expected base64, or hexadecimal with `0x`"):
        OpaqueSection.model_validate({"type": VENDOR, "payload": "0102030405"})
