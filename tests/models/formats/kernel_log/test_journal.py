"""Tests of the conversion of journald JSON to kernel log lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.journal import MAX_ENTRY, MAX_UNREADABLE, UnreadableLines, to_kernel_lines


def entry(message: Any = "Memory failure: 0x1: x", **more: Any) -> dict[str, Any]:
    return {
        "__REALTIME_TIMESTAMP": "1795252092123456",
        "_HOSTNAME": "node-17",
        "_TRANSPORT": "kernel",
        "PRIORITY": "3",
        "MESSAGE": message,
        **more,
    }


def read(*lines: str | bytes) -> tuple[list[bytes], list[int]]:
    """Return the kernel log lines, and the numbers of unreadable lines."""
    refused = UnreadableLines()
    found = list(to_kernel_lines([line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines], refused))
    return found, list(refused.numbers)


STAMPED = b"<3>2026-11-21T09:08:12.123456+00:00 node-17 kernel: Memory failure: 0x1: x\n"


@pytest.mark.parametrize("before", ["", "\x1e", "data: "], ids=["json", "json-seq", "json-sse"])
def test_an_entry_is_a_line_with_its_time_host_and_level(before):
    assert read(before + json.dumps(entry())) == ([STAMPED], [])


def test_an_entry_over_several_lines_is_the_line_on_which_it_ends():
    lines = json.dumps(entry(), indent=8).splitlines()
    assert read(*lines) == ([b"\n"] * (len(lines) - 1) + [STAMPED], [])


def test_the_time_since_boot_goes_along():
    ((line,), _) = read(json.dumps(entry(_SOURCE_MONOTONIC_TIMESTAMP="12000642")))
    assert line.endswith(b"kernel: [   12.000642] Memory failure: 0x1: x\n")


def test_what_others_log_is_an_empty_line():
    assert read(json.dumps(entry(_TRANSPORT="stdout")), json.dumps({"_TRANSPORT": "kernel"}), "") == ([b"\n"] * 3, [])


def test_a_message_that_is_no_utf_8_is_a_list_of_bytes():
    assert read(json.dumps(entry([77, 255, 10, 78], PRIORITY=None, _HOSTNAME=None))) == ([b"M\xff N\n"], [])


@pytest.mark.parametrize("message", [None, 7, {"a": 1}, [1, 256], ["x"], [None]])
def test_a_message_that_is_none_is_an_empty_line(message):
    assert read(json.dumps(entry(message))) == ([b"\n"], [])


@pytest.mark.parametrize("more", [{"__REALTIME_TIMESTAMP": "9" * 18}, {"__REALTIME_TIMESTAMP": -1}, {"_HOSTNAME": "a b"}, {"_HOSTNAME": 5}])
def test_an_entry_whose_time_or_host_cannot_be_is_read_without_them(more):
    assert read(json.dumps(entry(**more))) == ([b"<3>Memory failure: 0x1: x\n"], [])


@pytest.mark.parametrize("line", ["{", "nonsense", "[1]", "7", '{"MESSAGE": "x"', b'{"MESSAGE": "\xff"}', "[" * 10_000])
def test_a_line_that_is_no_entry_is_refused_by_its_number(line):
    assert read(json.dumps(entry()), line) == ([STAMPED, b"\n"], [2])


def test_an_entry_without_an_end_is_given_up():
    lines = ["{", *['"x": "' + "y" * 1000 + '",'] * 200, json.dumps(entry())]
    found, refused = read(*lines)
    assert len(found) == len(lines)
    assert len(refused) >= 1
    assert refused[0] * 1000 > MAX_ENTRY
    assert found[-1] == STAMPED


def test_of_lines_that_nobody_takes_out_some_are_kept_and_the_rest_is_counted():
    refused = UnreadableLines()
    assert sum(1 for _ in to_kernel_lines([b"x\n"] * (MAX_UNREADABLE + 5), refused)) == MAX_UNREADABLE + 5
    assert (len(refused.numbers), refused.more) == (MAX_UNREADABLE, 5)


@given(lines=st.lists(st.binary(max_size=40) | st.sampled_from([b"{", b"}", json.dumps(entry()).encode()]), max_size=20))
def test_any_lines_are_read_or_refused_and_keep_their_numbers(lines):
    found, refused = read(*lines)
    assert len(found) == len(lines)
    assert all(line.endswith(b"\n") for line in found)
    assert all(1 <= number <= len(lines) for number in refused)
