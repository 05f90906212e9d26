"""Property tests of the kernel log parser: no invented field, no merged records."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction, UnreadableRecord
from tests.models.formats.kernel_log.printed_records import Record, bodies, distinct_records, records
from tests.models.formats.kernel_log.record_comparison import is_all_there, is_invented

STYLES = {
    "dmesg": "[{uptime:12.6f}] ",
    "caller": "[{uptime:12.6f}][    C1] ",
    "pstore": "<3>[{uptime:12.6f}] ",
    "journald": "2026-11-22T10:00:00+0100 node-17 kernel: ",
    "syslog": "Nov 22 10:00:00 node-17 kernel: [{uptime:12.6f}] ",
    "decoded": "kern  :err   : [{uptime:12.6f}] ",
    "bare": "",
}
NOISE = (
    "usb 1-1: new high-speed USB device number 4 using xhci_hcd",
    "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 1: bc800800060c0859",
    "EDAC MC0: 1 CE Single-bit ECC on unknown memory (node:0 card:1 module:0 rank:0 bank:257 device:0 row:9)",
    "ghes_print_estatus: 1 callbacks suppressed",
    "node:1 card:2 module:3",
)
FIRMWARE_NOISE = ("NOTICE:  SEA Handle", "12", "00000010: 00000000", "0xaae0", "....", "device:7 row:8")

PIECES = (
    b"{1}[Hardware Error]: ", b"[Hardware Error]: ", b"event severity: fatal", b"Error 0, type: fatal", b"section_type: memory error",
    b"00000000: ", b"Memory failure: 0x1: ", b"Linux version ", b"=", b"> ", b"\x1b[31m", b"\0", b"\xff",
)  # fmt: skip

styles = st.sampled_from(sorted(STYLES))
generations = st.booleans()


def printed(record: Record, new: bool, style: str, uptime: float = 100.0) -> list[str]:
    before = STYLES[style].format(uptime=uptime)
    return [f"{before}{{{record['sequence']}}}[Hardware Error]: {body}" for body in bodies(record, new)]


def as_bytes(lines: list[str]) -> list[bytes]:
    return [line.encode("latin-1") + b"\n" for line in lines]


def readings_of(lines: list[bytes]) -> list[FoundError]:
    return [found for found in read_kernel_log(lines) if isinstance(found, FoundError)]


def shuffled_together(draw: Any, parts: list[list[str]]) -> list[str]:
    """Generate an interleaving of the parts' lines that keeps the order within each part."""
    order = draw(st.permutations([index for index, part in enumerate(parts) for _ in part]))
    left = [iter(part) for part in parts]
    return [next(left[index]) for index in order]


def sequence_of(reading: FoundError, lines: list[bytes]) -> int:
    """Return the number of the record at the position of an error."""
    line = lines[(reading.place.line or 0) - 1].decode("latin-1")
    return int(line[line.index("{") + 1 : line.index("}[")])


@given(record=records(), new=generations, style=styles)
def test_a_record_is_read_back_as_it_was_printed(record, new, style):
    (reading,) = readings_of(as_bytes(printed(record, new, style)))
    assert is_invented(reading, record) is None
    assert is_all_there(reading, record) is None
    assert reading.event.notification.type == "gsiv"
    assert "/notification/type" in {assumption.field for assumption in reading.assumed}


@st.composite
def interleaved(draw, most_sections=3):
    """Generate a log of records interleaved with each other and with other lines."""
    recorded = draw(distinct_records(most_sections=most_sections))
    style, new = draw(styles), draw(generations)
    before = STYLES[style].format(uptime=100.0)
    noise = [before + line for line in draw(st.lists(st.sampled_from(NOISE), max_size=10))]
    return recorded, as_bytes(shuffled_together(draw, [*(printed(record, new, style) for record in recorded), noise]))


@given(log=interleaved())
def test_records_between_each_others_lines_are_told_apart(log):
    recorded, lines = log
    readings = {sequence_of(reading, lines): reading for reading in readings_of(lines)}
    assert len(readings) == len(recorded)
    for record in recorded:
        assert is_invented(readings[record["sequence"]], record) is None
        assert is_all_there(readings[record["sequence"]], record) is None


def is_told_apart(section: dict[str, Any]) -> bool:
    """Return whether no two parts of a printed section look alike."""
    return len(section.get("contexts", ())) + ("vendor_info" in section) <= 1 and len(section.get("error_infos", ())) <= 1


@given(log=interleaved(most_sections=1), data=st.data())
def test_lines_that_are_missing_bring_nothing_in_their_place(log, data):
    """Generate records with one section, error structure and dump each: without the first line of a second one, lines are ambiguous."""
    recorded, lines = log
    assume(all(is_told_apart(section) for record in recorded for section in record["sections"]))
    kept = data.draw(st.lists(st.booleans(), min_size=len(lines), max_size=len(lines)))
    left = [line for line, keep in zip(lines, kept, strict=True) if keep]
    by_sequence = {record["sequence"]: record for record in recorded}
    for reading in readings_of(left):
        assert is_invented(reading, by_sequence[sequence_of(reading, left)]) is None


@given(log=interleaved(), data=st.data())
def test_a_log_that_ends_anywhere_brings_no_value_that_was_cut(log, data):
    recorded, lines = log
    whole = b"".join(lines)
    left = whole[: data.draw(st.integers(0, len(whole)))].splitlines(keepends=True)
    by_sequence = {record["sequence"]: record for record in recorded}
    for reading in readings_of(left):
        assert is_invented(reading, by_sequence[sequence_of(reading, left)]) is None


@given(record=records(), new=generations, style=styles, width=st.integers(68, 80), data=st.data())
def test_mail_may_wrap_and_quote_a_record(record, new, style, width, data):
    quotes = data.draw(st.sampled_from(["", "> ", ">> ", "\t"]))
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False, replace_whitespace=False)
    wrapped = [[quotes + piece for piece in wrapper.wrap(line)] for line in printed(record, new, style)]
    for _ in range(data.draw(st.integers(0, 3))):
        wrapped.insert(data.draw(st.integers(0, len(wrapped))), [quotes.rstrip(" ")])
    lines = [piece for pieces in wrapped for piece in pieces]
    (reading,) = readings_of(as_bytes(lines))
    assert is_invented(reading, record) is None


@example(
    record={"sequence": 1, "source": 0, "severity": 0, "sections": [{"type": "pcie", "serial_number": 0x10000A10000000, "severity": 0}]},
    new=False,
    width=72,
)
@given(record=records(), new=generations, width=st.integers(72, 100))
def test_a_terminal_may_break_a_record_anywhere(record, new, width):
    lines = [line[at : at + width] for line in printed(record, new, "dmesg") for at in range(0, len(line), width)]
    for reading in readings_of(as_bytes(lines)):
        assert is_invented(reading, record) is None


@given(log=interleaved(), data=st.data())
def test_firmware_may_write_between_the_lines(log, data):
    recorded, lines = log
    for _ in range(data.draw(st.integers(1, 8))):
        lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(FIRMWARE_NOISE)).encode() + b"\n")
    by_sequence = {record["sequence"]: record for record in recorded}
    for reading in readings_of(lines):
        assert is_invented(reading, by_sequence[sequence_of(reading, lines)]) is None


@given(first=records(3), second=records(3), new=generations, data=st.data(), gap=st.sampled_from([0.0, 0.5, 3600.0, -90.0]))
def test_two_boots_that_number_their_records_alike_are_two_records(first, second, new, data, gap):
    """Check records with missing lines that differ by the first line, the boot or the machine."""
    one = printed(first, new, "dmesg", 100.0)
    two = printed(second, new, "dmesg", 100.0 + gap)
    one = one[: data.draw(st.integers(1, len(one)))]
    two = two[0 if abs(gap) <= 10 else data.draw(st.integers(0, len(two) - 1)) :]
    lines = as_bytes([*one, *two])
    for reading in readings_of(lines):
        record = first if (reading.place.line or 0) <= len(one) else second
        assert is_invented(reading, record) is None


@given(first=records(3), second=records(3), new=generations, data=st.data())
def test_two_machines_in_one_log_are_kept_apart(first, second, new, data):
    other = [line.replace("node-17", "node-18") for line in printed(second, new, "journald")]
    lines = as_bytes(shuffled_together(data.draw, [printed(first, new, "journald"), other]))
    readings = {reading.event.source: reading for reading in readings_of(lines)}
    assert set(readings) == {"node-17", "node-18"}
    assert is_invented(readings["node-17"], first) is None
    assert is_all_there(readings["node-17"], first) is None
    assert is_all_there(readings["node-18"], second) is None


@pytest.mark.parametrize("terminator", [b"", b"\n", b"\r\n"])
@given(data=st.data())
def test_any_bytes_are_read_without_a_fault(terminator, data):
    words = st.sampled_from(PIECES)
    lines = data.draw(st.lists(st.lists(words | st.binary(max_size=12), max_size=6).map(b"".join), max_size=30))
    for found in read_kernel_log([line.replace(b"\n", b" ") + terminator for line in lines]):
        assert isinstance(found, (FoundError, UnreadableRecord, UnmatchedAction))
