"""Kernel logs with records of the previous boot (BERT)."""

from __future__ import annotations

import pytest

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.notification import NotificationType

BANNER = "Linux version 6.12.107 (gcc) #1 SMP"
MARKER = "BERT: Error records from previous boot:"
HISTORY = (
    "[Hardware Error]: event severity: fatal",
    "[Hardware Error]:  Error 0, type: fatal",
    "[Hardware Error]:   section_type: memory error",
    "[Hardware Error]:   physical_address: 0x0000000045678000",
)
PRESENT = ("{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 4", *("{1}" + line for line in HISTORY))
PREFIXES = ("", "[    1.100000] ", "kernel: ", "<3>", "Nov 22 10:00:00 node-17 kernel: ", "kernel: [    1.100000] ", "> [    1.10] ")


def log(*texts: str, before: str = "[    1.100000] ") -> list[bytes]:
    return [f"{before}{text}\n".encode() for text in texts]


def errors(*texts: str, before: str = "[    1.100000] ", notification: NotificationType | None = None) -> list[FoundError]:
    return [found for found in read_kernel_log(log(*texts, before=before), notification) if isinstance(found, FoundError)]


@pytest.mark.parametrize("before", PREFIXES)
def test_records_that_the_kernel_says_are_of_the_previous_boot_are_history(before):
    first, second = errors(BANNER, MARKER, *HISTORY, *HISTORY, "BERT: Total records found: 2", before=before)
    for found in (first, second):
        assert found.event.notification.type is NotificationType.BERT
        assert found.event.host.kernel == "6.12.107"
        assert "/notification/type" not in {assumed.field for assumed in found.assumed}
        assert not any("error source" in phrase for phrase in found.lost)


def test_the_line_behind_the_records_suffices():
    (found,) = errors(*HISTORY, "BERT: Total records found: 1")
    assert found.event.notification.type is NotificationType.BERT


def test_a_record_without_a_number_is_not_history_unless_the_log_says_so():
    (found,) = errors(*HISTORY)
    assert found.event.notification.type is NotificationType.GSIV
    assert "previous boot (`bert`)" in found.assumed[0].because


def test_records_of_this_boot_are_not_history():
    past, present = errors(MARKER, *HISTORY, *PRESENT)
    assert (past.event.notification.type, present.event.notification.type) == ("bert", "gsiv")
    (unnumbered,) = errors(MARKER, *(line.removeprefix("{1}") for line in PRESENT))
    assert unnumbered.event.notification.type is NotificationType.GSIV


def test_a_boot_ends_what_was_said_of_the_previous_one():
    before, after = errors(MARKER, *HISTORY, BANNER, *HISTORY)
    assert (before.event.notification.type, after.event.notification.type) == ("bert", "gsiv")


def test_the_callers_notification_type_is_about_the_errors_of_this_boot():
    past, present = errors(MARKER, *HISTORY, *PRESENT, notification=NotificationType.SEA)
    assert (past.event.notification.type, present.event.notification.type) == ("bert", "sea")


def test_what_this_kernel_does_is_not_about_the_previous_boot():
    (found,) = errors(MARKER, *HISTORY, "Memory failure: 0x45678: recovery action for dirty LRU page: Recovered")
    assert found.observed is None


@pytest.mark.parametrize(
    "text",
    [
        "BERT: Skipped 3 error records",
        "BERT: [Hardware Error]: Skipped 3 error records",
        "BERT: [Firmware Bug]: Truncated status block (length: 172).",
        "BERT: [Firmware Bug]: Invalid error record.",
    ],
)
def test_records_that_were_not_printed_are_listed_with_the_file_that_has_them(text):
    items = list(read_kernel_log(log(MARKER, *HISTORY, text)))
    (unread,) = [item for item in items if isinstance(item, UnreadableRecord)]
    assert unread.place == Position(line=6)
    assert "/sys/firmware/acpi/tables/data/BERT" in unread.reason
