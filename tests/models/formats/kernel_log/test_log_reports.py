"""Errors outside of APEI's records in kernel logs: EDAC, trace events on the console, other drivers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, Position, UnmatchedAction, UnreadableRecord
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.block_fields import decode_structured

RECORD = (
    "{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 4",
    "{1}[Hardware Error]: event severity: recoverable",
    "{1}[Hardware Error]:  Error 0, type: recoverable",
    "{1}[Hardware Error]:   section_type: memory error",
    "{1}[Hardware Error]:   physical_address: 0x0000000045678040",
)
CORRECTED = "EDAC MC0: 1 CE memory read error on DIMM_A1 (channel:1 slot:0 page:0x45678 offset:0x40 grain:32 syndrome:0x0 -  area:DRAM)"
UNCORRECTED = "EDAC MC0: 1 UE Multi-bit ECC on unknown memory (node:0 page:0x45678 offset:0x40 grain:1 - APEI location: node:0)"
TRACED = (
    "mc_event: 1 Corrected error: memory read error on DIMM_A1 (mc:0 location:0:0:-1 address:0x45678040 grain:8 syndrome:0x00000000"
    " APEI location: node:0)"
)
REPORTS = (CORRECTED, UNCORRECTED, TRACED)
BANNER = "Linux version 6.12.107 (gcc) #1 SMP"


def log(*texts: str, uptime: float = 100.0) -> list[bytes]:
    return [f"[{uptime:12.6f}] {text}\n".encode() for text in texts]


def errors(lines: list[bytes], notification: NotificationType | None = None) -> list[FoundError]:
    return [item for item in read_kernel_log(lines, notification) if isinstance(item, FoundError)]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_without_a_record_is_an_error(report):
    (found,) = read_kernel_log(log(BANNER, report))
    assert isinstance(found, FoundError)
    assert (found.format, found.place, found.event.host.kernel) == ("kernel_log", Position(line=2), "6.12.107")
    block = decode_structured(found.event.status_block)
    assert block.sections[0].physical_address == 0x45678040
    assert block.severity == (0 if report is UNCORRECTED else 2)
    assert "/notification/type" in {assumed.field for assumed in found.assumed}


def test_the_page_size_that_edac_does_not_print_is_assumed():
    (found,) = errors(log(CORRECTED))
    assert [one.assumed for one in found.assumed if one.field.endswith("physical_address")] == ["pages of 4 KiB"]
    (large,) = errors(log(CORRECTED.replace("offset:0x40", "offset:0xe180")))
    assert decode_structured(large.event.status_block).sections[0].physical_address == 0x45678E180
    assert [one.assumed for one in large.assumed if one.field.endswith("physical_address")] == ["pages of 64 KiB"]


@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_report_of_a_records_error_is_not_another_one(report, before):
    texts = (report, *RECORD) if before else (*RECORD, report)
    items = list(read_kernel_log(log(*texts)))
    assert [item.place.line for item in items if isinstance(item, FoundError)] == [2 if before else 1]
    (note,) = [item for item in items if isinstance(item, UnmatchedAction)]
    assert (note.observed.notes[0].said, note.observed.notes[0].about) == (report, "driver")


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_of_another_page_or_another_time_is_another_error(report):
    assert len(errors(log(*RECORD, report.replace("45678", "99999")))) == 2
    assert len(errors(log(*RECORD) + log(report, uptime=200.0))) == 2


def test_what_the_kernel_did_with_a_page_is_read_from_a_trace_event_too():
    action = "memory_failure_event: pfn 0x45678: recovery action for dirty LRU page: Recovered"
    (found,) = read_kernel_log(log(*RECORD, action))
    assert found.observed.memory_failures[0].page_type == "dirty LRU page"
    (alone,) = read_kernel_log(log(action))
    assert isinstance(alone, UnmatchedAction)


def test_the_callers_notification_is_that_of_a_report():
    (found,) = errors(log(CORRECTED), NotificationType.SEA)
    assert found.event.notification.type is NotificationType.SEA
    assert "/notification/type" not in {assumed.field for assumed in found.assumed}


def test_a_trace_event_that_is_cut_is_listed():
    (unread,) = read_kernel_log(log("mc_event: 1 Corrected error: cut"))
    assert isinstance(unread, UnreadableRecord)
    assert unread.place == Position(line=1)


OTHERS = (
    "mce: [Hardware Error]: CPU 12: Machine Check: 0 Bank 1: bc800800060c0859",
    "mce: [Hardware Error]: Machine check events logged",
    "ghes: [Hardware Error]: something new",
    "[Hardware Error]: Corrected error, no action required.",
    "[Hardware Error]: CPU:2 (17:31:0) MC15_STATUS[Over|CE|MiscV|AddrV]: 0x9c2040000000011b",
    "EDAC MC0: 1 CE Single-bit ECC on unknown memory (node:0 card:1 module:0 rank:0 bank:257 device:0 row:9)",
)


@given(st.lists(st.sampled_from(OTHERS), max_size=9))
def test_no_line_about_a_hardware_error_is_passed_over(texts):
    items = list(read_kernel_log(log(*texts)))
    assert [item.place.line for item in items] == list(range(1, len(texts) + 1))
    assert [item.observed.notes[0].said for item in items] == texts


@pytest.mark.parametrize("before", ["[  100.000000] ", "Nov 22 10:00:00 node-17 kernel: ", "<3>", "kernel: "])
def test_a_storm_of_reports_is_not_kept(before):
    lines = (f"{before}{CORRECTED}\n".encode() for _ in range(5000))
    found = read_kernel_log(lines)
    next(found)
    assert sum(1 for _ in lines) > 4000
