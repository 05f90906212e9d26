"""`ras:*` trace text: what ftrace, trace-cmd and perf print of the kernel's RAS events, and what rasdaemon prints of them.

The kernel's words are those of `TP_printk` in include/ras/ras_event.h, Linux 5.10 to 7.3; rasdaemon's those of its handlers, 0.6 to 0.8.5.
rasdaemon prints some events over several lines, and where it cannot read one it prints the kernel's words on the line behind its own:
lines without a header of their own belong to the event above them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial

from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord, read_one
from ras_triage.models.formats.ras import aer, arm_processor, memory, non_standard
from ras_triage.models.formats.ras import trace_text as words
from ras_triage.models.formats.ras.traced_event import BadField, TracedError, TraceSource, UnmatchedRow, read_or_refuse, read_time
from ras_triage.models.notification import Notification

FORMAT = "ras_trace"

MAX_LINE = 1 << 20
"""Bytes of a line that are looked at: an `arm_event` prints a record of at most 64 KiB as three characters a byte."""
MAX_TEXT = 1 << 20
"""Characters of one event over all its lines."""

Item = FoundError | UnreadableRecord | UnmatchedRow

_HEADER = re.compile(
    r"\[(?P<cpu>\d{1,6})\]\s{1,8}(?:[^\s:\[\]]{1,8}\s{1,16})?(?P<stamp>\d{1,12}\.\d{1,12}):?\s{1,40}(?:ras:)?(?P<event>\w{1,64}):?(?=\s|$)"
)
"""What ftrace and rasdaemon print before an event: CPU, flags, time since boot, name."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}")
_KERNELS_WORDS = {"arm_event": "; affinity level: ", "non_standard_event": "; data len:"}
"""Events that rasdaemon prints over several lines, and what shows that the kernel's single line has been printed for one."""
_UNREAD = re.compile(r"cxl_\w+|mce_record")
"""Events of errors whose words are not read: rasdaemon's database has the fields of CXL's, and machine checks are x86's."""
_MPIDR = re.compile(r"\bMPIDR: (?:0x)?0*([0-9a-f]{1,16})\b")

_PARSERS: dict[str, Callable[[str], dict[str, object]]] = {
    "mc_event": words.parse_mc_event,
    "aer_event": words.parse_aer_event,
    "arm_event": words.parse_arm_event,
    "non_standard_event": words.parse_non_standard_event,
    "extlog_mem_event": words.parse_extlog_mem_event,
    "memory_failure_event": words.parse_memory_failure_event,
}
_READERS: dict[str, Callable[[Mapping[str, object]], TracedError]] = {
    "mc_event": memory.read_mc_event,
    "aer_event": aer.read_aer_event,
    "arm_event": arm_processor.read_arm_event,
    "non_standard_event": non_standard.read_non_standard_event,
    "extlog_mem_event": memory.read_extlog,
}


class _Event:
    """An event whose lines are being gathered."""

    def __init__(self, name: str, line: int, text: str) -> None:
        self.name = name
        self.line = line
        self.is_cut = False
        self._parts = [text]
        self._left = MAX_TEXT - len(text)
        self._mpidr = _MPIDR.search(text)
        self._is_open = self._goes_on_behind(text)

    def takes(self, text: str) -> bool:
        """Whether a line without a header belongs to this event: rasdaemon goes on, or prints the kernel's words for the same error."""
        if not self._is_open:
            return False
        ours, theirs = self._mpidr, _MPIDR.search(text)
        return ours is None or theirs is None or ours[1] == theirs[1]

    def add(self, text: str) -> None:
        self._is_open = self._goes_on_behind(text)
        if len(text) < self._left:
            self._parts.append(text)
            self._left -= len(text) + 1
        else:
            self.is_cut = True

    def _goes_on_behind(self, text: str) -> bool:
        return self.name in _KERNELS_WORDS and _KERNELS_WORDS[self.name] not in text

    @property
    def text(self) -> str:
        return "\n".join(self._parts)


def read_trace(lines: Iterable[bytes], *, notification: Notification | None = None) -> Iterator[Item]:
    """The RAS events in a trace, in order; holds one event at a time. Lines of other kinds are passed over.

    `memory_failure_event` says what the kernel did, and is a Row of the kind `observation`. `notification` is the caller's word on how the
    errors were notified.
    """
    current: _Event | None = None
    for number, line in enumerate(lines, start=1):
        printed = line[:MAX_LINE].decode("utf-8", "replace").rstrip("\r\n")
        header = _HEADER.search(printed)
        if header is None and current is not None and current.takes(printed):
            current.add(printed)
        elif begun := _begin(printed, number, header):
            if current is not None:
                yield read_one(partial(_finish, current, notification), Position(line=current.line), FORMAT)
            current = begun if begun.name in _PARSERS or _UNREAD.fullmatch(begun.name) else None
    if current is not None:
        yield read_one(partial(_finish, current, notification), Position(line=current.line), FORMAT)


def _begin(printed: str, number: int, header: re.Match[str] | None) -> _Event | None:
    if header is not None:
        return _Event(header["event"], number, printed[header.end() :])
    # The line that rasdaemon prints before the kernel's words got lost.
    return _Event("arm_event", number, printed) if _KERNELS_WORDS["arm_event"] in printed else None


def _finish(event: _Event, notification: Notification | None) -> Item:
    place = Position(line=event.line)
    if event.name not in _PARSERS:
        return UnreadableRecord(place, f"`{event.name}` is not read from a trace", FORMAT)
    time, body = _split_date(event.text)
    try:
        fields = _PARSERS[event.name](body)
        if event.name == "memory_failure_event":
            return UnmatchedRow(place, FORMAT, event.name, None, tuple(fields.items()), "observation")
        found: TracedError | BadField = _READERS[event.name](fields)
    except BadField as bad:
        return read_or_refuse(BadField(f"this `{event.name}` cannot be read: {bad}"), TraceSource(FORMAT, place))
    return read_or_refuse(found, TraceSource(FORMAT, place, time, notification, _lost(event, fields, time)))


def _split_date(text: str) -> tuple[datetime | None, str]:
    """rasdaemon's time and what stands behind it; the kernel prints none."""
    match = _DATE.search(text[:120])
    return (read_time(match[0]), text[match.end() :]) if match else (None, text)


def _lost(event: _Event, fields: Mapping[str, object], time: datetime | None) -> tuple[str, ...]:
    lost = [] if time is not None else ["the time: the trace has the time since boot at most"]
    lost += [f"{name}: {count} bytes were printed less than the trace announces" for name, count in words.missing_blob_bytes(fields)]
    if event.is_cut:
        lost.append(f"everything behind the first {MAX_TEXT} characters")
    return tuple(lost)
