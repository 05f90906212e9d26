"""Errors outside of APEI's records: EDAC lines, trace events on the console.

EDAC and the trace events also report the errors of APEI's records (`ghes_edac_report_mem_error`, `log_arm_hw_error`), so a report near a
record of the same page is not another error.

Sources: `edac_ce_error` and `edac_ue_error` in drivers/edac/edac_mc.c, `output_printk` in kernel/trace/trace.c, Linux 5.4 to 7.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ras_triage.models.formats.kernel_log.lines import FORMAT, LogLine
from ras_triage.models.formats.kernel_log.section_lines import PAGE_SHIFTS
from ras_triage.models.formats.ras import memory
from ras_triage.models.formats.ras.page_failures import TABLE, read_failure
from ras_triage.models.formats.ras.trace import read_trace
from ras_triage.models.formats.ras.traced_event import TraceSource, UnmatchedRow, read_error
from ras_triage.models.formats.record_context import to_notification
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.host import Host
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField, ObservedMemoryFailure

KEYWORDS: Final = (b"EDAC MC", b"_event: ")
"""Every report contains one of these."""

_EDAC: Final = re.compile(r"EDAC MC\d{1,5}: \d{1,10} (?P<kind>CE|UE) ")
_EDAC_PAGE: Final = re.compile(
    r"\bpage:0x(?P<page>[0-9a-f]{1,13}) offset:0x(?P<offset>[0-9a-f]{1,8}) grain:-?\d{1,12}(?: syndrome:0x[0-9a-f]{1,16})?(?: - ?)?"
)
_TRACED: Final = re.compile(r"(?:mc|aer|arm|non_standard|extlog_mem|memory_failure)_event: .+")
_KINDS: Final = {"CE": "Corrected", "UE": "Uncorrected"}

Report = FoundError | UnreadableRecord | ObservedMemoryFailure


def read_report(line: LogLine, notification: NotificationType | None) -> Report | None:
    """Return the error or the action that a line reports; None for any other line, and for an EDAC line without an address.

    `notification` is that of the caller.
    """
    known = to_notification(notification)
    if edac := _EDAC.match(line.text):
        page = _EDAC_PAGE.search(line.text, edac.end())
        return None if page is None or not int(page["page"], 16) else _of_line(_edac(edac, page, line, known), line)
    if not _TRACED.fullmatch(line.text):
        return None
    found = next(read_trace([line.text.encode("latin-1")], notification=known), None)
    if isinstance(found, UnmatchedRow):
        failure = read_failure(dict(found.fields), line.number) if found.table == TABLE else None
        return failure or UnreadableRecord(Position(line=line.number), f"invalid `{found.table}`", FORMAT)
    return None if found is None else _of_line(found, line)


def _edac(head: re.Match[str], page: re.Match[str], line: LogLine, notification: Notification | None) -> FoundError | UnreadableRecord:
    offset = int(page["offset"], 16)
    shift = next((shift for shift in PAGE_SHIFTS if not offset >> shift), PAGE_SHIFTS[-1])
    message, _, label = line.text[head.end() : page.start()].partition("(")[0].rpartition("on ")
    fields: Mapping[str, object] = {
        "err_type": _KINDS[head["kind"]],
        "err_msg": message.strip(),
        "label": label.strip(),
        "address": int(page["page"], 16) << shift | offset,
        "driver_detail": line.text[page.end() :].removesuffix(")").strip(),
    }
    source = TraceSource(FORMAT, Position(line=line.number), line.when, notification)
    found = read_error(memory.read_mc_event, fields, source)
    if isinstance(found, UnreadableRecord):
        return found
    why = "EDAC prints the page in pages of the kernel, whose size it does not print"
    assumed = AssumedField("/status_block/sections/0/physical_address", f"pages of {1 << shift >> 10} KiB", why)
    return FoundError(found.event, FORMAT, found.place, (*found.assumed, assumed), found.lost)


def _of_line(found: FoundError | UnreadableRecord, line: LogLine) -> FoundError | UnreadableRecord:
    """Return an item with its line and the machine."""
    place = Position(line=line.number)
    if isinstance(found, UnreadableRecord):
        return UnreadableRecord(place, found.reason, FORMAT)
    event = found.event.model_copy(update={"source": line.host, "time": line.when or found.event.time})
    return FoundError(event, FORMAT, place, found.assumed, found.lost)


def with_host(report: FoundError, facts: Mapping[str, Any]) -> FoundError:
    """Return a report with what the log says of the machine."""
    return replace(report, event=report.event.model_copy(update={"host": Host(**facts)}))


def is_of_driver(text: str) -> bool:
    """Return whether another driver says something of a hardware error; the lines of an x86 machine check belong to its first one."""
    return ("[Hardware Error]: " in text and not text.startswith("mce: ")) or text.startswith("EDAC MC")
