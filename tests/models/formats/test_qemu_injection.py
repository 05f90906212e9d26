"""Tests of the QEMU injection formats."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.event import Event
from ras_triage.models.formats.items import FoundError, UnreadableRecord
from ras_triage.models.formats.qemu.ghes_inject import read_arguments, to_arguments
from ras_triage.models.formats.qemu.injection import MAX_BLOCK, NotInjectable, read_argument, read_qmp, to_argument, to_qmp
from ras_triage.models.notification import Notification
from ras_triage.models.records.block_fields import decode_structured, encode_structured

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
    if isinstance(text, str):
        assert isinstance(read_arguments(text), (FoundError, UnreadableRecord))


def section(arguments: str):
    reading = read_arguments(arguments)
    return decode_structured(reading.event.status_block).sections[0]


def test_the_script_without_options_injects_one_cache_error():
    arm = section("./scripts/ghes_inject.py -d -H localhost -P 4445 arm")
    assert (arm.validation_bits, arm.running_state, arm.mpidr_el1, arm.midr_el1) == (4, 0, None, 0)
    info = arm.error_infos[0]
    assert (info.error_type, info.error_information, info.validation_bits, info.multiple_error, info.flags) == (2, 0x91000F, 4, 1, 3)
    assert (info.virtual_fault_address, info.physical_fault_address) == (0xDEADBEEF, 0xABBA0BAD)
    assert arm.section_length == 72


def test_every_option_of_an_error_information_structure_counts():
    arm = section(
        "arm -t cache-error tlb,bus -f first propagated,overflow -m 0 7 -e 0x10 32 -p 0x1000 0x2000 -v=0x3 -V phy-addr flags,virt-addr"
    )
    first, second = arm.error_infos
    assert (first.error_type, second.error_type) == (2, 12)
    assert (first.flags, second.flags) == (1, 12)
    assert (first.multiple_error, second.multiple_error) == (0 or None, 7)
    assert (first.error_information, second.error_information) == (16, 32)
    assert (first.physical_fault_address, second.physical_fault_address) == (0x1000, 0x2000)
    assert (first.validation_bits, second.validation_bits) == (16, 10)
    assert second.virtual_fault_address == 0xDEADBEEF


def test_options_that_the_script_promises_and_does_not_keep_are_lost():
    reading = read_arguments("arm --mpidr 0x444 --affinity 1 --midr 5 --psci 3 --gedb-flags simulated")
    arm = decode_structured(reading.event.status_block).sections[0]
    assert (arm.mpidr_el1, arm.error_affinity_level, arm.psci_state, arm.validation_bits) == (0, 0, 0, 7)
    assert [option for option in ("--mpidr", "--affinity", "--midr", "--psci", "--gedb-flags") if option in " ".join(reading.lost)] == [
        "--mpidr",
        "--affinity",
        "--midr",
        "--psci",
        "--gedb-flags",
    ]


def test_contexts_have_one_word_more_than_registers():
    arm = section("arm --ctx-type 4 --ctx-array 1,2 0x3 --vendor 1,2 0xff --arm vendor,running-err")
    assert [(context.type, context.registers) for context in arm.contexts] == [
        (4, b"".join(word.to_bytes(8, "little") for word in (1, 2, 0))),
        (5, b"".join(word.to_bytes(8, "little") for word in (3, 0))),
    ]
    assert arm.vendor_info == b"\x01\x02\xff"


def test_the_entry_around_the_section_is_the_scripts():
    reading = read_arguments(
        "arm --severity corrected --block-status correctable --fru-id 5b51fef7-c79d-4434-8f1b-aa62de3e2c64 "
        '--fru-text "twenty characters 20" --timestamp "2025-01-16 19:04:48" --precise'
    )
    block = decode_structured(reading.event.status_block)
    arm = block.sections[0]
    assert (block.severity, block.block_status, arm.severity, arm.entry_validation_bits) == (2, 2, 2, 7)
    assert arm.model_dump(mode="json")["timestamp"] == "2025-01-16T19:04:48Z"
    assert (arm.fru_text, arm.timestamp_precise) == ("twenty characters 20", True)


@pytest.mark.parametrize("arguments", ['arm --fru-text "DIMM 3"', "arm --raw-data 1,2 3"])
def test_what_the_script_lays_out_wrongly_is_kept_wrong_and_named(arguments):
    reading = read_arguments(arguments)
    assert any("the script" in phrase for phrase in reading.lost)
    with pytest.raises(NotInjectable):
        to_arguments(reading.event)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("arm --unknown 1", "the script has no option `--unknown`"),
        ("arm --p 1", "the script has no option `--p`"),
        ("arm --mpidr 1 2", "`--mpidr` takes one value and has 2"),
        ("arm --mpidr", "`--mpidr` takes one value and has 0"),
        ("arm -t cash", "`cash` is none of the choices for type"),
        ("arm -t cache -p 1 2", "more values than types are given, and the script fails"),
        ("arm -e x", "`x` is no number for error-info"),
        ("arm -m 65536", "a number is wider than its field"),
        ("arm --vendor 256", "a number for bytes is above 255"),
        ("arm --severity fatal,corrected", "error-severity takes one value"),
        ("arm --fru-id 5", "`--fru-id` is not a GUID"),
        ("arm --fru-text " + "x" * 21, "`--fru-text` is not ASCII of 20 characters at most"),
        ("arm --timestamp now", "`--timestamp now` is the time of the injection, which the arguments do not tell"),
        ("arm --timestamp yesterday", "`--timestamp` is not `YYYY-MM-DD hh:mm:ss`"),
        ("arm '", "the arguments cannot be split into words: a quotation is not closed"),
        ("word", "the script has no option `word`"),
    ],
)
def test_arguments_that_the_script_refuses_say_why(arguments, why):
    unread = read_arguments(arguments)
    assert isinstance(unread, UnreadableRecord)
    assert unread.reason == why


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
    words = ["arm", "-t", *many(st.lists(st.sampled_from(names), min_size=1, max_size=4).map(",".join))]
    if draw(st.booleans()):
        words += ["-e", *many(st.integers(0, 2**64 - 1).map(hex))]
    if draw(st.booleans()):
        words += ["-p", *many(st.integers(0, 2**64 - 1).map(hex))]
    if draw(st.booleans()):
        words += ["-m", *many(st.integers(0, 65535).map(str))]
    if draw(st.booleans()):
        words += ["-V", *many(st.sampled_from(["flags", "phy-addr,virt-addr", "error-info,multiple-error"]))]
    words += draw(st.sampled_from([[], ["--running"], ["--no-running"], ["--arm", "running,vendor"], ["--arm", "mpidr"]]))
    words += draw(st.sampled_from([[], ["--severity", "fatal"], ["--severity", "none", "--block-status", "correctable"]]))
    words += draw(st.sampled_from([[], ["--vendor", "1,2,3"], ["--ctx-array", "1,2", "3"], ["--ctx-type", "4", "--ctx-array", "0"]]))
    words += draw(st.sampled_from([[], ["--timestamp", "2025-01-16 19:04:48"], ["--timestamp", "1999-12-31 23:59:59", "--precise"]]))
    return words


@given(words=arguments())
def test_any_injection_survives_the_way_through_the_scripts_arguments(words):
    reading = read_arguments(words)
    assert isinstance(reading, FoundError)
    again = read_arguments(to_arguments(reading.event))
    assert again.event == reading.event
