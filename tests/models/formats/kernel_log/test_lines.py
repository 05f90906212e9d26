"""Tests of the prefix formats of kernel log lines."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ras_triage.models.formats.kernel_log.lines import parse_line
from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction

AT = datetime(2026, 11, 21, 9, 8, 12, tzinfo=UTC)
MICROSECONDS = AT.replace(microsecond=123456)

PREFIXES = {
    "nothing": ("", {}),
    "dmesg": ("[   12.000642] ", {"uptime": 12.000642}),
    "dmesg -T": ("[Sat Nov 21 10:08:12 2026] ", {}),
    "dmesg -T in another language": ("[Sa Mär 21 10:08:12 2026] ", {}),
    "dmesg -d": ("[   12.000642 <    0.000321>] ", {"uptime": 12.000642}),
    "dmesg -dT": ("[Sat Nov 21 10:08:12 2026 <    0.000321>] ", {}),
    "dmesg -e, a new minute": ("[Nov21 10:08] ", {}),
    "dmesg -e": ("[  +0.000321] ", {}),
    "dmesg --time-format iso": ("2026-11-21T10:08:12,123456+01:00 ", {"when": MICROSECONDS}),
    "dmesg -x": ("kern  :err   : [   12.000642] ", {"uptime": 12.000642, "level": 3}),
    "dmesg -r": ("<3>[   12.000642] ", {"uptime": 12.000642, "level": 3}),
    "a caller": ("[   12.000642][  T231] ", {"uptime": 12.000642, "caller": "T231"}),
    "/dev/kmsg": ("3,1002,12000642,-;", {"uptime": 12.000642, "level": 3}),
    "/dev/kmsg with a caller": ("3,1002,12000642,-,caller=T231;", {"uptime": 12.000642, "level": 3}),
    "extended netconsole": ("6.12.107,3,1002,12000642,-;", {"uptime": 12.000642, "level": 3}),
    "journalctl": ("Nov 21 10:08:12 node-17 kernel: ", {"host": "node-17"}),
    "journalctl -o short-iso": ("2026-11-21T10:08:12+0100 node-17 kernel: ", {"host": "node-17", "when": AT}),
    "journalctl -o short-iso-precise": ("2026-11-21T10:08:12.123456+01:00 node-17 kernel: ", {"host": "node-17", "when": MICROSECONDS}),
    "journalctl -o short-full": ("Sat 2026-11-21 10:08:12 CET node-17 kernel: ", {"host": "node-17"}),
    "journalctl -o short-monotonic": ("[   12.000642] node-17 kernel: ", {"host": "node-17", "uptime": 12.000642}),
    "journalctl -o short-unix": ("1795252092.123456 node-17 kernel: ", {"host": "node-17", "when": MICROSECONDS}),
    "journalctl -o export": ("MESSAGE=", {}),
    "syslog": ("Nov  1 10:08:12 node-17 kernel: [   12.000642] ", {"host": "node-17", "uptime": 12.000642}),
    "rsyslog": ("2026-11-21T10:08:12.123456+01:00 node-17 kernel: [   12.000642] ", {"host": "node-17", "when": MICROSECONDS}),
    "RFC 5424": ("<3>1 2026-11-21T10:08:12+01:00 node-17 kernel - - - ", {"host": "node-17", "when": AT, "level": 3}),
    "RFC 5424 with data": ('<3>1 2026-11-21T10:08:12+01:00 node-17 kernel - - [meta sequenceId="1"] ', {"host": "node-17", "when": AT}),
    "busybox": ("Nov 21 10:08:12 node-17 kern.err kernel: [   12.000642] ", {"host": "node-17", "uptime": 12.000642}),
    "logread": ("Sat Nov 21 10:08:12 2026 kern.err kernel: [   12.000642] ", {"uptime": 12.000642}),
    "grep -n": ("/var/log/kern.log:102:Nov 21 10:08:12 node-17 kernel: ", {"host": "node-17"}),
    "grep -n, a blank": ("/var/log/kern.log:102: [   12.000642] ", {"uptime": 12.000642}),
    "grep -n of a decoded log": ("dmesg.txt:102:<3>[   12.000642] ", {"uptime": 12.000642, "level": 3}),
    "grep -n with dates": ("messages:102:2026-11-21T10:08:12+0100 node-17 kernel: ", {"host": "node-17", "when": AT}),
    "grep -H": ("/var/log/kern.log:[   12.000642] ", {"uptime": 12.000642}),
    "grep -H of syslog": ("/var/log/kern.log:Nov 21 10:08:12 node-17 kernel: ", {"host": "node-17"}),
    "grep -C": ("kern.log-102-[   12.000642] ", {"uptime": 12.000642}),
    "Windows": ("C:\\\\logs\\\\kern.log:102:[   12.000642] ", {"uptime": 12.000642}),
    "syslog tag alone": ("kernel: ", {}),
    "syslog tag with level": ("<3>kernel: ", {"level": 3}),
    "uptime and tag": ("[   12.000642] kernel: ", {"uptime": 12.000642}),
    "mail": ("> > [   12.000642] ", {"uptime": 12.000642}),
}  # fmt: skip


@pytest.mark.parametrize(("before", "told"), PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("text", ["Memory failure: 0x56edd: already hardware poisoned", "0x56edd: Sending SIGBUS to a:1 due to b"])
def test_what_stands_before_a_line_is_known_and_taken_off(before, told, text):
    line = parse_line(before + text, 1)
    assert (line.text, line.is_record, line.origin) == (text, False, "")
    assert {name: getattr(line, name) for name in told} == told
    assert line.host == told.get("host")


@pytest.mark.parametrize("before", [before for before, _ in PREFIXES.values()], ids=list(PREFIXES))
def test_what_the_kernel_did_goes_with_its_record_behind_any_of_them(before):
    texts = (
        "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 4",
        "{1}[Hardware Error]: event severity: recoverable",
        "{1}[Hardware Error]:  Error 0, type: recoverable",
        "{1}[Hardware Error]:   section_type: memory error",
        "{1}[Hardware Error]:   physical_address: 0x0000000056edd040",
        "Memory failure: 0x56edd: recovery action for dirty LRU page: Recovered",
    )
    (reading,) = read_kernel_log([f"{before}{text}\n".encode() for text in ("Linux version 6.12.107 (x)", *texts)])
    assert isinstance(reading, FoundError)
    assert reading.event.host.kernel == "6.12.107"
    assert reading.observed is not None
    assert len(reading.observed.memory_failures) == 1


UNKNOWN = {
    "a phone's log": "11-21 10:08:12.123     0     0 E         : [   12.000642] ",
    "a container's": "2026-11-21T10:08:12.123456789Z stderr F [   12.000642] ",
    "lines that were counted": "   102\t[   12.000642] ",
    "a difference": "+[   12.000642] ",
    "a stamp of a terminal": "[2026-11-21 10:08:12] [   12.000642] ",
}


@pytest.mark.parametrize("before", UNKNOWN.values(), ids=UNKNOWN)
def test_behind_what_is_not_known_the_kernels_text_is_found_by_how_it_begins(before):
    assert parse_line(before + "Memory failure: 0x56edd: already hardware poisoned", 1).text.startswith("Memory failure: ")
    assert parse_line(before + "{1}[Hardware Error]: event severity: fatal", 1).text == "event severity: fatal"


def test_what_others_say_of_the_kernel_is_not_the_kernels_word():
    others = (
        "Nov 21 10:08:12 node-17 sudo:     root : COMMAND=/usr/bin/grep Kernel panic - not syncing: Fatal hardware error /var/log/kern.log",
        "Nov 21 10:08:12 node-17 monitor[7]: found Memory failure: 0x56edd: already hardware poisoned",
    )
    assert list(read_kernel_log([other.encode() for other in others])) == []


def test_two_machines_in_a_log_of_a_form_that_is_not_known_are_kept_apart():
    record = (
        "event severity: recoverable",
        " Error 0, type: recoverable",
        "  section_type: memory error",
        "  physical_address: 0x0000000056edd040",
    )
    lines = [f"E one : [   12.000000] {{1}}[Hardware Error]: {text}\n".encode() for text in record]
    lines += [b"E two : [   12.000000] Memory failure: 0x56edd: recovery action for dirty LRU page: Recovered\n"]
    found = list(read_kernel_log(lines))
    assert sorted(type(one).__name__ for one in found) == [FoundError.__name__, UnmatchedAction.__name__]


def test_a_colour_within_a_line_is_no_part_of_it():
    (found,) = read_kernel_log([b"\x1b[32m[   12.000642] \x1b[0m\x1b[33mMemory failure:\x1b[0m 0x56edd: already hardware poisoned\n"])
    assert isinstance(found, UnmatchedAction)
