"""RAS trace text (`ras:*` events) of ftrace, trace-cmd, perf and rasdaemon.

The kernel's texts are those of `TP_printk` in include/ras/ras_event.h, Linux 5.10 to 7.3; rasdaemon's are those of its handlers, 0.6 to
0.8.5. rasdaemon prints some events over several lines, and if it cannot parse one, it prints the kernel's text on the line after its own:
lines without a header belong to the event above them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial

from ras_triage.models.formats.ras import aer, arm_processor, memory, non_standard
from ras_triage.models.formats.ras import trace_text as printed
from ras_triage.models.formats.ras.page_failures import HeldErrors
from ras_triage.models.formats.ras.traced_event import (
    FieldReader,
    InvalidFieldError,
    TraceItem,
    TraceSource,
    UnmatchedRow,
    read_time,
    to_result,
)
from ras_triage.models.formats.results import Position, UnreadableRecord, read_guarded
from ras_triage.models.notification import Notification

FORMAT = "ras_trace"

MAX_LINE = 1 << 20
"""Bytes of a line that are parsed: an `arm_event` prints a record of up to 64 KiB with three characters per byte."""
MAX_TEXT = 1 << 20
"""Characters of one event over all its lines."""


_HEADER = re.compile(
    r"\[(?P<cpu>\d{1,6})\]\s{1,8}(?:[^\s:\[\]]{1,8}\s{1,16})?(?P<stamp>\d{1,12}\.\d{1,12}):?\s{1,40}(?:ras:)?(?P<event>\w{1,64}):?(?=\s|$)"
)
"""Header of an event in ftrace and rasdaemon output: CPU, flags, time since boot, name."""
_NAMED = re.compile(
    r"(?:^|[\s\]])(?:ras:|cxl:)?(?P<event>(?:mc|aer|arm|non_standard|extlog_mem|memory_failure)_event|mce_record"
    r"|cxl_(?:aer|general_media|dram|memory_module|poison|overflow|generic)\w{0,32}):(?=\s)"
)
"""Name of an event without CPU and time: on the console (`tp_printk`), from `perf script` without a CPU, or cut out of its line."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}")
_KERNEL_MARKS = {"arm_event": "; affinity level: ", "non_standard_event": "; data len:"}
"""Events that rasdaemon prints over several lines, and a mark of the kernel's single-line text."""
_UNSUPPORTED = re.compile(r"cxl_\w+|mce_record")
"""Unsupported error events: rasdaemon's database has the fields of CXL events, and machine checks are specific to x86."""
_MPIDR = re.compile(r"\bMPIDR: (?:0x)?0*([0-9a-f]{1,16})\b")

_PARSERS: dict[str, Callable[[str], dict[str, object]]] = {
    "mc_event": printed.parse_mc_event,
    "aer_event": printed.parse_aer_event,
    "arm_event": printed.parse_arm_event,
    "non_standard_event": printed.parse_non_standard_event,
    "extlog_mem_event": printed.parse_extlog_mem_event,
    "memory_failure_event": printed.parse_memory_failure_event,
}
_READERS: dict[str, FieldReader] = {
    "mc_event": memory.read_mc_event,
    "aer_event": aer.read_aer_event,
    "arm_event": arm_processor.read_arm_event,
    "non_standard_event": non_standard.read_non_standard_event,
    "extlog_mem_event": memory.read_extlog,
}


class _Event:
    """An event whose lines are being collected."""

    def __init__(self, name: str, line: int, text: str, seconds: float | None = None) -> None:
        self.name = name
        self.seconds = seconds
        """Time since boot."""
        self.line = line
        self.is_cut = False
        self._parts = [text]
        self._left = MAX_TEXT - len(text)
        self._mpidr = _MPIDR.search(text)
        self._is_open = self._may_continue_after(text)

    def accepts(self, text: str) -> bool:
        """Return whether a line without a header belongs to this event: rasdaemon's next line, or the kernel's text for the same error."""
        if not self._is_open:
            return False
        ours, theirs = self._mpidr, _MPIDR.search(text)
        return ours is None or theirs is None or ours[1] == theirs[1]

    def add(self, text: str) -> None:
        self._is_open = self._may_continue_after(text)
        if len(text) < self._left:
            self._parts.append(text)
            self._left -= len(text) + 1
        else:
            self.is_cut = True

    def _may_continue_after(self, text: str) -> bool:
        return self.name in _KERNEL_MARKS and _KERNEL_MARKS[self.name] not in text

    @property
    def text(self) -> str:
        return "\n".join(self._parts)


def read_trace(lines: Iterable[bytes], *, notification: Notification | None = None) -> Iterator[TraceItem]:
    """Yield the RAS events of a trace, in order; other lines are skipped. At most 128 events are in memory.

    `memory_failure_event` is an action of the kernel: it is observed for the error of the same page, within 5 s after it, or else becomes
    an UnmatchedRow of the kind `observation`. `notification` is the caller's notification type.
    """
    held = HeldErrors()
    for item, seconds in _read_events(lines, notification):
        yield from held.add(item, seconds)
    yield from held.rest()


def _read_events(lines: Iterable[bytes], notification: Notification | None) -> Iterator[tuple[TraceItem, float | None]]:
    """Yield each event with its time since boot."""
    current: _Event | None = None
    for number, line in enumerate(lines, start=1):
        line_text = line[:MAX_LINE].decode("utf-8", "replace").rstrip("\r\n")
        header = _HEADER.search(line_text) or _NAMED.search(line_text)
        if header is None and current is not None and current.accepts(line_text):
            current.add(line_text)
        elif started := _start(line_text, number, header):
            if current is not None:
                yield _finish_guarded(current, notification)
            current = started if started.name in _PARSERS or _UNSUPPORTED.fullmatch(started.name) else None
    if current is not None:
        yield _finish_guarded(current, notification)


def _start(line_text: str, number: int, header: re.Match[str] | None) -> _Event | None:
    if header is not None:
        stamp = header.groupdict().get("stamp")
        return _Event(header["event"], number, line_text[header.end() :], float(stamp) if stamp else None)
    # rasdaemon's own line before the kernel's text is missing.
    return _Event("arm_event", number, line_text) if _KERNEL_MARKS["arm_event"] in line_text else None


def _finish_guarded(event: _Event, notification: Notification | None) -> tuple[TraceItem, float | None]:
    return read_guarded(partial(_finish, event, notification), Position(line=event.line), FORMAT), event.seconds


def _finish(event: _Event, notification: Notification | None) -> TraceItem:
    place = Position(line=event.line)
    if event.name not in _PARSERS:
        return UnreadableRecord(place, f"`{event.name}` is not supported in trace text", FORMAT)
    time, body = _split_date(event.text)
    try:
        fields = _PARSERS[event.name](body)
        if event.name == "memory_failure_event":
            return UnmatchedRow(place, FORMAT, event.name, None, tuple(fields.items()), "observation")
        error = _READERS[event.name](fields)
    except InvalidFieldError as bad:
        return UnreadableRecord(place, f"invalid `{event.name}`: {bad}", FORMAT)
    return to_result(error, TraceSource(FORMAT, place, time, notification, _lost(event, fields, time)))


def _split_date(text: str) -> tuple[datetime | None, str]:
    """Return rasdaemon's time and the text after it; the kernel prints no date."""
    match = _DATE.search(text[:120])
    return (read_time(match[0]), text[match.end() :]) if match else (None, text)


def _lost(event: _Event, fields: Mapping[str, object], time: datetime | None) -> tuple[str, ...]:
    lost = [] if time is not None else ["the time: the trace has at most the time since boot"]
    lost += [f"{name}: {count} bytes of the stated length were not printed" for name, count in printed.missing_blob_bytes(fields)]
    if event.is_cut:
        lost.append(f"all text after the first {MAX_TEXT} characters")
    return tuple(lost)
