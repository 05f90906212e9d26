"""Copies of records that differ only in number, time and addresses.

A log that is dense with records repeats most of them. Such a record is copied from the earlier one instead of being parsed line by line,
which takes a tenth of the time.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from ras_triage.models.formats.kernel_log.boot import Boot
from ras_triage.models.formats.kernel_log.grammar import match_head
from ras_triage.models.formats.kernel_log.lines import LogLine, line_text, parse_line
from ras_triage.models.formats.kernel_log.record import LogRecord
from ras_triage.models.formats.kernel_log.section_lines import LineFields
from ras_triage.models.formats.results import FoundError, Position
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import NotificationType
from ras_triage.models.observed import group_actions

_UPTIME: Final = rb"\[ *\d{1,12}\.\d{1,9}\] "
_RUN: Final = re.compile(
    rb"^(?P<second>\[ *\d{1,12}\.)\d{1,9}\] (?P<mark>\{\d{1,10}\}\[Hardware Error\]: )"
    rb"Hardware error from APEI Generic Hardware Error Source: \d{1,5}\n"
    rb"(?:(?P=second)\d{1,9}\] (?P=mark)[^\n]{0,1000}\n)+(?=" + _UPTIME + rb"|\Z)",
    re.MULTILINE,
)
"""The lines of a record, within one second and behind each other; the line behind them does not continue the last one."""
RUN_MARK: Final = b"Hardware error from APEI"
"""Every record that is found begins with it."""
_LINE_PREFIX: Final = re.compile(rb"^" + _UPTIME + rb"\{\d{1,10}\}\[Hardware Error\]: ", re.MULTILINE)
_ADDRESS: Final = re.compile(rb"^( *(?:physical_address|(?:physical|virtual) fault address): 0x)([0-9a-f]{16})(?=\r?$)", re.MULTILINE)
_FIELDS: Final = {
    "physical_address": "physical_address",
    "physical fault address": "physical_fault_address",
    "virtual fault address": "virtual_fault_address",
}
"""Fields whose values are copied into the status block, by their printed names."""
_MAX_BYTES: Final = 4096
_MAX_TEMPLATES: Final = 256
_MAX_SEEN: Final = 1024
_MAX_CONTEXTS: Final = 8
_SENTINEL: Final = 0xA5C3_96E1_5D2B_7F00
"""Value by which the place of the first address in a status block is found; those of the others follow."""
_U64: Final = struct.Struct("<Q")


@frozen
class RecordRun:
    """Consecutive lines that are a record."""

    start: int
    """Index of its first line."""
    end: int
    """Index behind its last line."""
    text: bytes
    """The lines without prefixes, times and addresses."""
    addresses: tuple[int, ...]


begins_run: Final = re.compile(_UPTIME + rb"\{\d{1,10}\}\[Hardware Error\]: " + RUN_MARK).match


def find_runs(block: bytes, *, is_cut: bool) -> Iterator[RecordRun]:
    """Yield the records that are printed without a line between theirs; `block` is whole lines.

    `is_cut`: another record begins behind it.
    """
    at = index = 0
    for found in _RUN.finditer(block):
        start, end = found.span()
        index += block.count(b"\n", at, start)
        count = block.count(b"\n", start, end)
        at = start
        if end - start <= _MAX_BYTES and (is_cut or end < len(block)):
            parts = _ADDRESS.split(_LINE_PREFIX.sub(b"", found[0]))
            yield RecordRun(index, index + count, b"\0".join(parts[::3] + parts[1::3]), tuple(int(part, 16) for part in parts[2::3]))


@frozen
class _Place:
    """Where an address of a record is kept."""

    section: int
    info: int | None
    """Number of the error information structure; None: a field of the section itself."""
    field: str


class RecordTemplate:
    """A record without its addresses."""

    def __init__(self, record: LogRecord, places: tuple[_Place, ...]) -> None:
        self._record = record
        self._places = places
        self._finished: dict[object, tuple[FoundError, bytes, tuple[int, ...]] | None] = {}
        """The finished record with its status block and the offsets of its addresses, by what the log says of the machine."""

    def copy(self, first: LogLine, last: LogLine, boot: Boot, frames: Counter[int], addresses: tuple[int, ...]) -> LogRecord:
        """Return the record that has these addresses."""
        record = self._record.copy(first, last, boot, frames)
        for place, address in zip(self._places, addresses, strict=True):
            _fields(record, place)[place.field] = address
            record.match_keys.add({place.field: address})
        record.template = self
        record.addresses = addresses
        return record

    def finish(self, record: LogRecord, notification: NotificationType | None) -> FoundError | None:
        """Return a copy of this template, which nothing was added to but actions, as an error; None: it has to be built."""
        context = notification, record.boot.release, record.boot.page_size
        if context not in self._finished:
            if len(self._finished) >= _MAX_CONTEXTS:
                self._finished.clear()
            self._finished[context] = self._finish(record, notification)
        known = self._finished[context]
        if known is None:
            return None
        found, block, offsets = known
        written = bytearray(block)
        for offset, address in zip(offsets, record.addresses, strict=True):
            _U64.pack_into(written, offset, address)
        event = found.event.model_copy(update={"status_block": bytes(written)})
        observed = group_actions(record.actions) if record.actions else None
        return FoundError(event, found.format, Position(line=record.first.number), found.assumed, found.lost, observed)

    def _finish(self, record: LogRecord, notification: NotificationType | None) -> tuple[FoundError, bytes, tuple[int, ...]] | None:
        sentinels = tuple(_SENTINEL + number for number in range(len(self._places)))
        same = self.copy(record.first, record.last, record.boot, Counter(), sentinels)
        same.template = None
        found = same.finish(notification)
        block = found.event.status_block if isinstance(found, FoundError) else None
        if block is None or any(block.count(_U64.pack(sentinel)) != 1 for sentinel in sentinels):
            return None
        assert isinstance(found, FoundError)
        return found, block, tuple(block.index(_U64.pack(sentinel)) for sentinel in sentinels)


class RecordTemplates:
    """The templates of a log."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._templates: dict[bytes, RecordTemplate | None] = {}

    def find(self, run: RecordRun, lines: Sequence[bytes]) -> RecordTemplate | None:
        """Return the template of a record, from its third occurrence on; None if it has to be parsed line by line."""
        if run.text in self._templates:
            return self._templates[run.text]
        if run.text not in self._seen:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(run.text)
            return None
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        template = self._templates[run.text] = _template(run, [parse_line(line_text(raw), number) for number, raw in enumerate(lines)])
        return template


def _template(run: RecordRun, lines: Sequence[LogLine]) -> RecordTemplate | None:
    """Return the template of a record with these lines; None if anything of it is lost, or is more than fields."""
    record, places, left = LogRecord(lines[0], Boot(), Counter()), [], list(run.addresses)
    for line in lines:
        head = match_head(line.text)
        if line.number and not record.accepts(line, head):
            return None
        record.add(line, head)
        if (field := _FIELDS.get(line.text.partition(":")[0])) is None:
            continue
        place = _place(record, field)
        if place is None or not left or _fields(record, place).get(field) != left.pop(0):
            return None
        places.append(place)
    is_plain = record.sections and not record.lost and all(section.is_plain for section in record.sections)
    return RecordTemplate(record, tuple(places)) if is_plain and not left else None


def _place(record: LogRecord, field: str) -> _Place | None:
    """Return the place of an address that the last line of a record has; None if there is none."""
    section = record.sections[-1] if record.sections else None
    if section is None or (section.kind == "arm_processor" and not section.infos):
        return None
    return _Place(len(record.sections) - 1, len(section.infos) - 1 if section.infos else None, field)


def _fields(record: LogRecord, place: _Place) -> LineFields:
    section = record.sections[place.section]
    return section.fields if place.info is None else section.infos[place.info]
