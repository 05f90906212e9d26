"""Tests of the QEMU injection formats."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.event import Event
from ras_triage.models.formats.qemu.ghes_inject import to_arguments
from ras_triage.models.formats.qemu.injection import MAX_BLOCK, NotInjectable, read_argument, read_qmp, to_argument, to_qmp
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import encode_structured
from tests.models.formats.qemu.ghes_inject_script import inject

BLOCK = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x40fa6000"}]})


def event(block: bytes | None = BLOCK) -> Event:
    return Event(notification=Notification(type="gpio", source_id=1, error_block_length=MAX_BLOCK), status_block=block)


def only(items):
    (item,) = items
    return item


def test_a_command_becomes_an_event_of_the_source_that_injects():
    reading = only(read_qmp(json.dumps({"execute": "inject-ghes-v2-error", "arguments": {"cper": base64.b64encode(BLOCK).decode()}})))
    assert reading.event == event()
    assert (reading.format, reading.place.line) == ("qemu_injection", 1)
    assert {assumed.field for assumed in reading.assumed} == {
        "/notification/type",
        "/notification/source_id",
        "/notification/ghes_version",
        "/notification/error_block_length",
    }
    assert all("10.2" in assumed.because for assumed in reading.assumed)


def test_what_the_caller_knows_of_the_notification_is_not_assumed():
    reading = read_argument(to_argument(event()), notification=Notification(type="sea"))
    assert reading.event.notification.type == "sea"
    assert reading.assumed == ()


def test_a_recorded_session_gives_its_injections_and_their_lines():
    session = '{"execute": "qmp_capabilities"}\n{"return": {}}\n\n' + to_qmp(event()) + "\n" + '{"return": {}}\n' + to_qmp(event())
    assert [reading.place.line for reading in read_qmp(session.encode())] == [4, 6]


def test_base64_may_be_wrapped():
    text = to_argument(event())
    assert read_argument("\n ".join([text[:40], text[40:]]).encode()).event == event()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "expected a JSON message"),
        ('{"execute": "inject-ghes-v2-error"}', "the command needs a string argument `cper`"),
        ('{"execute": "inject-ghes-v2-error", "arguments": [1]}', "the command needs a string argument `cper`"),
        ('{"execute": "inject-ghes-v2-error", "arguments": {"cper": 5}}', "the command needs a string argument `cper`"),
        ('{"execute": "inject-ghes-v2-error", "arguments": {"cper": "%%"}}', "the argument is not base64"),
        ('{"execute": "inject-ghes-v2-error", "arguments": {"cper": ""}}', "the argument is empty"),
        ("[" * 100_000, "expected a JSON message"),
    ],
)
def test_what_is_no_command_says_why(text, why):
    unread = only(read_qmp(text))
    assert isinstance(unread, UnreadableRecord)
    assert unread.reason == why


def test_a_block_that_qemu_refuses_is_read_and_says_so():
    reading = read_argument(base64.b64encode(bytes(MAX_BLOCK + 1)))
    assert any("QEMU rejects a block of 1025 bytes" in phrase for phrase in reading.lost)
    assert isinstance(read_argument(base64.b64encode(bytes(2 << 20))), UnreadableRecord)


@pytest.mark.parametrize(("block", "why"), [(None, "no status block"), (bytes(MAX_BLOCK + 1), "has 1025 bytes; QEMU accepts at most 1024")])
def test_what_qemu_cannot_be_given_is_refused(block, why):
    with pytest.raises(NotInjectable, match=why):
        to_qmp(event(block))


@given(block=st.binary(min_size=1, max_size=MAX_BLOCK))
def test_any_block_survives_the_way_through_the_command(block):
    assert only(read_qmp(to_qmp(event(block)))).event == event(block)


@given(text=st.text(max_size=200) | st.binary(max_size=200))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    assert all(isinstance(item, (FoundError, UnreadableRecord)) for item in read_qmp(text))
    assert isinstance(read_argument(text), (FoundError, UnreadableRecord))


def arm_block(**fields: object) -> bytes:
    """Return a status block as the script sends it, with other fields of its section."""
    entry = {name: fields.pop(name) for name in ("severity", "block_status") if name in fields}
    info = {"error_type": 2, "error_information": 0x91000F, "validation_bits": 4, "flags": 3, "multiple_error": 1}
    section = {"type": "arm_processor", "validation_bits": 4, "running_state": 0, "error_infos": [info], **fields}
    return encode_structured({"severity": 0, "block_status": 1, **entry, "sections": [section]})


def test_the_arguments_of_one_cache_error():
    arguments = to_arguments(event(arm_block()))
    assert arguments[:8] == ("arm", "--arm", "running", "--block-status", "uncorrectable", "--error-severity", "recoverable", "--type")
    assert arguments[8:] == (
        "cache", "--pei-valid", "error-info", "--flags", "first,last", "--multiple-error", "1", "--error-info", "0x91000f",
        "--virtual-address", "0x0", "--physical-address", "0x0",
    )  # fmt: skip
    assert inject(arguments) == arm_block()


WRITABLE = {
    "a FRU text of 20 characters": {"fru_text": "twenty characters 20", "entry_validation_bits": 2},
    "a FRU text that looks like an option": {"fru_text": "--twenty-characters-", "entry_validation_bits": 2},
    "FRU id and timestamp": {
        "fru_id": "5b51fef7-c79d-4434-8f1b-aa62de3e2c64", "timestamp": "2025-01-16T19:04:48Z", "timestamp_precise": True
    },
    "contexts": {"contexts": [{"type": 4, "registers": base64.b64encode(bytes([1, *bytes(15)])).decode()}]},
    "valid vendor bytes": {"vendor_info": "AQL/", "validation_bits": 12},
    "vendor bytes that are not valid": {"trailing": "AQL/", "section_length": 75},
    "a fatal block": {"severity": 1, "block_status": 4},
}  # fmt: skip


@pytest.mark.parametrize("fields", WRITABLE.values(), ids=WRITABLE)
def test_the_script_builds_the_block_from_its_arguments(fields):
    block = arm_block(**fields)
    assert inject(to_arguments(event(block))) == block


NOT_WRITABLE = {
    "a short FRU text": {"fru_text": "DIMM 3"},
    "MPIDR": {"mpidr_el1": 5},
    "MIDR": {"midr_el1": 5},
    "affinity level": {"error_affinity_level": 1},
    "section flags": {"flags": ["primary"]},
    "a section severity of its own": {"severity": 0, "block_status": 2, "entry_validation_bits": 8},
    "several block status bits": {"block_status": 17},
    "no error information structure": {"error_infos": []},
    "a context that does not end in a zero": {"contexts": [{"type": 4, "registers": base64.b64encode(bytes(15) + b"x").decode()}]},
    "a context of one register": {"contexts": [{"type": 4, "registers": base64.b64encode(bytes(8)).decode()}]},
    "a precise timestamp that is not a date": {"timestamp_precise": True},
}


@pytest.mark.parametrize("fields", NOT_WRITABLE.values(), ids=NOT_WRITABLE)
def test_a_block_that_the_script_cannot_build_is_rejected(fields):
    with pytest.raises(NotInjectable, match="no options for some of the section's fields"):
        to_arguments(event(arm_block(**fields)))


@pytest.mark.parametrize(("block", "why"), [(None, "no status block"), (bytes(MAX_BLOCK + 1), "QEMU accepts at most 1024")])
def test_a_missing_or_long_block_has_no_arguments(block, why):
    with pytest.raises(NotInjectable, match=why):
        to_arguments(event(block))


def test_the_script_knows_one_arm_section_and_nothing_else():
    with pytest.raises(NotInjectable, match="a single ARM processor section"):
        to_arguments(event())
    with pytest.raises(NotInjectable, match="malformed"):
        to_arguments(event(b"x"))
    arm = {"type": "arm_processor", "mpidr_el1": 5, "error_infos": [{"error_type": 2}]}
    with pytest.raises(NotInjectable, match="no options for some of the section's fields"):
        to_arguments(event(encode_structured({"severity": 0, "sections": [arm], "block_status": 1})))


@st.composite
def arguments(draw) -> list[str]:
    count = draw(st.integers(1, 4))
    names = ["cache", "tlb", "bus", "micro-arch"]
    many = lambda values: draw(st.lists(values, min_size=count, max_size=count))  # noqa: E731
    words = ["arm", "--type", *many(st.lists(st.sampled_from(names), min_size=1, max_size=4).map(",".join))]
    if draw(st.booleans()):
        words += ["--error-info", *many(st.integers(0, 2**64 - 1).map(hex))]
    if draw(st.booleans()):
        words += ["--physical-address", *many(st.integers(0, 2**64 - 1).map(hex))]
    if draw(st.booleans()):
        words += ["--multiple-error", *many(st.integers(0, 65535).map(str))]
    if draw(st.booleans()):
        words += ["--pei-valid", *many(st.sampled_from(["flags", "phy-addr,virt-addr", "error-info,multiple-error"]))]
    words += draw(st.sampled_from([[], ["--running"], ["--arm", "running,vendor"], ["--arm", "mpidr"]]))
    words += draw(st.sampled_from([[], ["--error-severity", "fatal"], ["--error-severity", "none", "--block-status", "correctable"]]))
    words += draw(st.sampled_from([[], ["--vendor", "1,2,3"], ["--ctx-array", "1,2", "3"], ["--ctx-type", "4", "--ctx-array", "0"]]))
    words += draw(st.sampled_from([[], ["--timestamp", "2025-01-16 19:04:48"], ["--timestamp", "1999-12-31 23:59:59", "--precise"]]))
    return words


@given(words=arguments())
def test_any_injection_survives_the_way_through_the_arguments(words):
    block = inject(words)
    assert inject(to_arguments(event(block))) == block
