"""Tests of the kernel log parser: records and observed actions."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import repeat

import pytest

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction, UnreadableRecord
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.block_fields import decode_structured

MEMORY = (
    "Hardware error from APEI Generic Hardware Error Source: 4",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: memory error",
    "  physical_address: 0x0000000045678000",
    "  error_type: 3, multi-bit ECC",
)


def log(*texts: str, before: str = "[  100.000000] ") -> list[bytes]:
    return [f"{before}{text}\n".encode() for text in texts]


def record(sequence: int = 1, bodies: tuple[str, ...] = MEMORY) -> list[str]:
    return [f"{{{sequence}}}[Hardware Error]: {body}" for body in bodies]


def only(lines: list[bytes], notification: NotificationType | None = None) -> FoundError:
    (found,) = read_kernel_log(lines, notification)
    assert isinstance(found, FoundError)
    return found


def test_a_log_without_records_yields_nothing():
    assert list(read_kernel_log(log("usb 1-1: new device", "mce: [Hardware Error]: TSC 0 ADDR 1000"))) == []
    assert list(read_kernel_log([])) == []


@pytest.mark.parametrize(
    "text",
    [
        "mce: [Hardware Error]: CPU 0: Machine Check: 0 Bank 8: cc00008000010090",
        "[Hardware Error]: CPU 0: Machine Check Exception: 4 Bank 4: b200000000070f0f",
        "CPU 0: Machine Check Exception: 0 Bank 1: 940000000000009f",
        "mce: [Hardware Error]: Machine check events logged",
    ],
)
def test_a_machine_check_is_an_observation(text):
    (found,) = read_kernel_log(log(text))
    assert isinstance(found, UnmatchedAction)


def test_the_notification_is_assumed_unless_the_caller_knows_it():
    assumed = only(log(*record()))
    assert assumed.event.notification.type is NotificationType.GSIV
    assert "/notification/type" in {assumption.field for assumption in assumed.assumed}
    known = only(log(*record()), NotificationType.SEA)
    assert known.event.notification.type is NotificationType.SEA
    assert "/notification/type" not in {assumption.field for assumption in known.assumed}


def test_a_time_is_told_only_with_year_and_zone():
    dated = only(log(*record(), before="2026-11-22T10:00:00+0100 node-17 kernel: "))
    assert (dated.event.time, dated.event.source) == (datetime(2026, 11, 22, 9, tzinfo=UTC), "node-17")
    assert only(log(*record(), before="Nov 22 10:00:00 node-17 kernel: ")).event.time is None
    assert only(log(*record())).event.time is None


def test_the_kernel_that_booted_last_is_the_events_kernel():
    banner = "Linux version 6.12.107+deb13-arm64 (debian-kernel@lists.debian.org) (gcc) #1 SMP"
    assert only(log(banner, *record())).event.host.kernel == "6.12.107+deb13-arm64"
    assert only(log(*record())).event.host.kernel is None


TASK = "CPU: 3 PID: 31 Comm: kworker/3:0 Not tainted 6.1.176 #1"


@pytest.mark.parametrize(
    "text",
    [
        TASK,
        "CPU: 1 UID: 0 PID: 0 Comm: swapper/1 Tainted: G   M      W          6.1.176 #1 PREEMPT",
        "CPU: 0 PID: 787 Comm: a b Kdump: loaded Tainted: P S         O    6.1.176 #1",
        "Pid: 2930, comm: a Not tainted 6.1.176 #1",
        "     RELEASE: 6.1.176",
        "OSRELEASE=6.1.176",
        "Linux node-17 6.1.176 #1 SMP Debian 6.1.176-1 (2026-11-22) aarch64 GNU/Linux",
    ],
)
def test_an_oops_or_a_header_names_the_kernel_before_or_behind_the_record(text):
    assert only(log(*record(), text)).event.host.kernel == "6.1.176"
    assert only(log(text, *record())).event.host.kernel == "6.1.176"


def test_another_release_than_before_is_another_boot():
    first, second = read_kernel_log(log(*record(1), TASK, TASK.replace("6.1.176", "6.12.1"), *record(1)))
    assert isinstance(first, FoundError)
    assert isinstance(second, FoundError)
    assert [first.event.host.kernel, second.event.host.kernel] == ["6.1.176", "6.12.1"]


def test_the_kernel_of_one_machine_is_not_that_of_another():
    one, other = "2026-11-22T10:00:00+0100 node-17 kernel: ", "2026-11-22T10:00:00+0100 node-18 kernel: "
    found = [*read_kernel_log([*log(*record(), before=one), *log(TASK, before=other)])]
    assert [item.event.host.kernel for item in found if isinstance(item, FoundError)] == [None]


@pytest.mark.parametrize(("frame", "size"), [("0xaeccde", None), ("0x2bb337", 16384), ("0xaeccd", 65536)])
def test_a_page_frame_number_tells_the_page_size(frame, size):
    address = (*MEMORY[:4], "  physical_address: 0x0000000aeccde180")
    other = (*MEMORY[:4], "  physical_address: 0x0000000045678000")
    lines = log(*record(1, address), f"Memory failure: {frame}: recovery action for dirty LRU page: Recovered", *record(2, other))
    found = [item for item in read_kernel_log(lines) if isinstance(item, FoundError)]
    assert [item.event.host.page_size for item in found] == [size, size]


def test_a_frame_number_that_every_page_size_gives_tells_none():
    address = (*MEMORY[:4], "  physical_address: 0x0000000000000180")
    reading = only(log(*record(1, address), "Memory failure: 0x0: recovery action for reserved kernel page: Ignored"))
    assert reading.event.host.page_size is None


@pytest.mark.parametrize(
    "text",
    ["Linux version 5.14.0-427.el9.aarch64+64k (a) #1", "CPU: 0 PID: 1 Comm: a Not tainted 6.8.0-1010-nvidia-64k #1", "PAGESIZE=65536"],
)
def test_a_header_or_the_name_of_the_kernel_tells_the_page_size(text):
    assert only(log(text, *record())).event.host.page_size == 65536


def test_the_way_the_kernel_prints_arm_error_types_tells_how_it_numbers_them():
    head = ("event severity: recoverable", " Error 0, type: recoverable", "  section_type: ARM processor error")
    for text, numbering in (("0, cache error", "legacy"), ("0x02: cache error", "uefi-2.10"), ("0x00: ", "legacy"), ("0x01: ", None)):
        bodies = (*head, "  Error info structure 0:", "  num errors: 1", f"   error_type: {text}")
        assert only(log(*record(1, bodies))).event.host.arm_error_types == numbering


def test_a_severity_whose_line_is_missing_is_assumed_by_name():
    reading = only(log(*record(1, MEMORY[3:]), before="<0>[  100.000000] "))
    assert decode_structured(reading.event.status_block or b"").severity == 1
    assert {"/status_block/severity", "/status_block/sections/0/severity"} <= {assumption.field for assumption in reading.assumed}


def test_lines_without_severity_or_section_are_no_record():
    (found,) = read_kernel_log(log(*record(1, MEMORY[:1])))
    assert isinstance(found, UnreadableRecord)
    assert found.reason == "record {1} has no severity and no section"


def test_a_section_that_the_kernel_refused_is_malformed_and_says_what_is_known():
    refused = (
        *MEMORY[:3],
        "  section_type: ARM processor error",
        "  MIDR: 0x00000000410fd0c0",
        "  section length: 4096, CPER size: 72",
        "  section length is too big",
        "  firmware-generated error record is incorrect",
        "  ERR_INFO_NUM is 3",
    )
    reading = only(log(*record(1, refused)))
    (section,) = decode_structured(reading.event.status_block or b"").sections
    assert (section.section_length, section.err_info_num, section.error_infos) == (4096, 3, ())
    assert any(phrase.startswith("the kernel refused the section as malformed") for phrase in reading.lost)


def test_what_the_kernel_did_goes_with_the_record_of_the_same_page():
    lines = log(
        *record(1),
        "Memory failure: 0x45678: recovery action for dirty LRU page: Recovered",
        "Memory failure: 0x45678: Sending SIGBUS to a:b c:103 due to hardware memory corruption",
        "Memory failure: 0x99999: already hardware poisoned",
    )
    found = list(read_kernel_log(lines))
    (reading,) = (item for item in found if isinstance(item, FoundError))
    (loose,) = (item for item in found if isinstance(item, UnmatchedAction))
    assert reading.observed is not None
    (failure,), (signal,) = reading.observed.memory_failures, reading.observed.signals
    assert (failure.pfn, failure.page_type, failure.result, failure.line) == (0x45678, "dirty LRU page", "recovered", 7)
    assert (signal.signal, signal.comm, signal.pid) == ("SIGBUS", "a:b c", 103)
    assert loose.observed.notes[0].pfn == 0x99999


def test_records_that_a_rate_limit_left_out_are_heard_of():
    first, loose, second = read_kernel_log(log(*record(1), "ghes_print_estatus: 3 callbacks suppressed", *record(5)))
    if isinstance(first, UnmatchedAction):
        first, loose = loose, first
    assert isinstance(first, FoundError)
    assert isinstance(second, FoundError)
    assert isinstance(loose, UnmatchedAction)
    assert [note.said for note in loose.observed.notes] == ["ghes_print_estatus: 3 callbacks suppressed"]


def test_a_page_that_is_handled_much_later_was_not_handled_for_this_record():
    late = log("Memory failure: 0x45678: recovery action for dirty LRU page: Recovered", before="[  108.000000] ")
    found = list(read_kernel_log([*log(*record(1)), *late]))
    assert sorted(type(item).__name__ for item in found) == ["FoundError", "UnmatchedAction"]


def test_a_panic_right_behind_a_fatal_record_is_its_own():
    fatal = ("Hardware error from APEI Generic Hardware Error Source: 4", "event severity: fatal", " Error 0, type: fatal")
    reading = only(log(*record(1, fatal), "Kernel panic - not syncing: GHES: Fatal hardware error"))
    assert reading.observed is not None
    assert reading.observed.panics[0].cause == "ghes"


def test_the_same_log_without_line_ends_reads_the_same():
    lines = log(*record(1), *record(2))
    assert [item.event for item in read_kernel_log(lines) if isinstance(item, FoundError)] == [
        item.event for item in read_kernel_log([line.rstrip() for line in lines]) if isinstance(item, FoundError)
    ]


def test_a_line_with_nothing_but_a_quote_mark_is_no_part_of_any_other():
    quoted = [line for text in record() for line in (f"> {text}\n".encode(), b">\n")]
    assert only(quoted).event == only(log(*record())).event


def test_a_number_that_a_terminal_may_have_broken_is_no_number():
    bodies = (*MEMORY[:5], "  node: 1 card: 2 module: 28")
    reading = only([*log(*record(1, bodies)), b"07 rank: 3 bank: 4\n"])
    (section,) = decode_structured(reading.event.status_block or b"").sections
    assert (section.node, section.card, section.module, section.rank) == (1, 2, None, None)
    assert "`module: 28`: truncated" in reading.lost


def test_the_head_of_a_section_begins_another_where_its_first_line_is_missing():
    second = ("  fru_text: DIMM B", "  section_type: memory error", "  physical_address: 0x0000000099999000")
    reading = only(log(*record(1, (*MEMORY, *second, " Error 2, type: corrected", "  section_type: PCIe error"))))
    first, other, third = decode_structured(reading.event.status_block or b"").sections
    assert (first.physical_address, first.fru_text) == (0x45678000, None)
    assert (other.physical_address, other.fru_text) == (0x99999000, "DIMM B")
    assert third.type == "pcie"
    assert "the first line of a section: missing" in reading.lost


def test_a_section_that_was_numbered_before_is_another_records():
    again = (" Error 0, type: corrected", "  section_type: PCIe error")
    first, second = read_kernel_log(log(*record(1, (*MEMORY, *again))))
    assert isinstance(first, FoundError)
    assert isinstance(second, FoundError)
    assert [len(decode_structured(one.event.status_block or b"").sections) for one in (first, second)] == [1, 1]
    assert (first.place.line, second.place.line) == (1, 7)


def test_structures_that_were_not_printed_are_counted_and_named():
    head = ("event severity: recoverable", " Error 0, type: recoverable", "  section_type: ARM processor error")
    infos = ("  num errors: 1", "   error_type: 0x02: cache error", "  Error info structure 3:", "   error_type: 0x04: TLB error")
    reading = only(log(*record(1, (*head, *infos))))
    assert "the first line of error information structure 0: missing" in reading.lost
    assert "error information structure 1 to 2: not printed" in reading.lost


def test_what_is_too_much_of_a_record_is_left_out_and_named():
    many = [text for index in range(1200) for text in (f" Error {index}, type: corrected", "  section_type: memory error", "  node: 1")]
    reading = only(log(*record(1, (*MEMORY[:2], *many, "  error_type: 3, multi-bit ECC"))))
    sections = decode_structured(reading.event.status_block or b"").sections
    assert (len(sections), sections[-1].memory_error_type) == (1024, None)
    assert "all sections after the first 1024" in reading.lost
    dump = [f"  {at * 16:08x}: 00000000 00000000 00000000 00000000" for at in range(20_010)]
    kind = "  section type: unknown, e8ed898d-df16-43cc-8ecc-54f060ef157f"
    long = only(log(*record(1, (*MEMORY[:3], kind, *dump))))
    assert "all lines of a section after the first 20000" in long.lost


def test_bytes_among_words_that_are_not_read_are_not_the_sections():
    told = ("  section_type: IA32/X64 processor error", "  CPUID Info:", "  00000000: 00a20f12 00000000 00100800 00000000")
    reading = only(log(*record(1, (*MEMORY[:3], *told, " Error 3, type: recoverable", *MEMORY[3:]))))
    assert decode_structured(reading.event.status_block or b"").sections[0].payload == b""
    assert "section body: not printed by the kernel in a form that can be parsed" in reading.lost
    assert "sections 1 to 2: not printed" in reading.lost


def test_quoted_printable_lines_are_put_together():
    lines = [b"> [  100.000000] {1}[Hardware Error]: event severity: recov=\n", b"erable\n", *log(*record(1, MEMORY[2:]), before="")]
    assert decode_structured(only(lines).event.status_block or b"").severity == 0


def test_records_that_never_end_are_not_kept():
    endless = (f"{{{number}}}[Hardware Error]: event severity: fatal\n".encode() for number in range(5000))
    assert sum(1 for _ in read_kernel_log(endless)) == 5000


def test_a_record_with_too_many_lines_is_still_one():
    lines = [*log(*record(1)), *repeat(log("{1}[Hardware Error]:   nonsense")[0], 30_000)]
    assert len(only(lines).lost) < 100


def test_a_line_too_long_for_the_rest_of_an_fru_text_does_not_make_it_incomplete():
    start = "{7}[Hardware Error]: "
    lines = [
        start + "Hardware error from APEI Generic Hardware Error Source: 0",
        start + "event severity: recoverable",
        start + " Error 0, type: recoverable",
        start + " fru_text: 0000 00000 000000",
        "ghes_print_estatus: 1 callbacks suppressed",
        start + "  section_type: memory error",
        start + "  physical_address: 0x0000000045678000",
    ]
    (found,) = [one for one in read_kernel_log([line.encode() + b"\n" for line in lines]) if isinstance(one, FoundError)]
    assert decode_structured(found.event.status_block).sections[0].fru_text == "0000 00000 000000"
