"""Kernel log text: dmesg, journald, syslog, serial consoles, pstore, and mail that quotes them.

What a log cannot tell is in every reading's `assumed` and `lost`. Memory stays bounded however long the log is: a record is done with
when enough lines have gone by, or too many records are open.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from operator import itemgetter
from typing import Final

from ras_triage.models.formats.items import FoundError, Position, UnmatchedAction, UnreadableRecord, read_one
from ras_triage.models.formats.kernel_log.actions import KEYWORDS, NOTE_KEYWORD, read_action
from ras_triage.models.formats.kernel_log.grammar import FIRMWARE_WARNINGS, HEAD
from ras_triage.models.formats.kernel_log.lines import COLOUR, MAX_LINE, LogLine, line_text, parse_line
from ras_triage.models.formats.kernel_log.record import FORMAT, MAX_LINES_APART, LogRecord, frame_of, names_memory
from ras_triage.models.formats.kernel_log.wrapping import HeldLine
from ras_triage.models.notification import NotificationType
from ras_triage.models.observed import ObservedAction, group_actions

Found = FoundError | UnreadableRecord | UnmatchedAction
Machine = tuple[str | None, str]

_MARKS: Final = (b"[Hardware", b"Linux version ", *KEYWORDS)
"""One of them is on every line that matters by itself; the first is short because a wrap may come behind it."""

_BATCH: Final = 256
"""Lines that are looked through at once."""
_MAX_OPEN: Final = 128
"""Records that are kept open."""
_MAX_SIZE: Final = 16 << 20
"""Bytes of them, roughly."""
_MAX_MACHINES: Final = 1024
_NEXT_LINES: Final = 3

_BANNER = re.compile(r"Linux version (\S{1,128}) .*")

_shortened = itemgetter(slice(0, MAX_LINE))


def read_kernel_log(lines: Iterable[bytes], notification: NotificationType | None = None) -> Iterator[Found]:
    """The error records in a log, in the order in which they begin, and what the kernel said it did.

    `lines` come with or without their line ends, and a few hundred of them are held at a time. `notification` says how the records were
    notified, which the log does not; without it an ordinary interrupt is assumed. A log without records yields nothing. Never raises.
    """
    reader = _Reader(notification)
    for number, batch, is_last in _batches(lines):
        reader.read(number, batch, is_last)
        yield from reader.found
        reader.found.clear()
    reader.close()
    yield from reader.found


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[int, list[bytes], bool]]:
    """The lines in batches, each with the number of its first line and whether it is the last."""
    source = map(_shortened, lines)
    number, batch = 1, list(islice(source, _BATCH))
    while batch:
        following = list(islice(source, _BATCH))
        yield number, batch, not following
        number, batch = number + len(batch), following


class _Reader:
    """The records that are open, and the line that may be wrapped."""

    def __init__(self, notification: NotificationType | None) -> None:
        self.found: list[Found] = []
        """What has come to an end."""
        self._notification = notification
        self._records: deque[LogRecord] = deque()
        self._size = 0
        """Bytes of the open records, roughly."""
        self._open: dict[tuple[object, ...], LogRecord] = {}
        self._running: dict[Machine, deque[LogRecord]] = {}
        """Those of `_records` that are of a machine's present boot, oldest first."""
        self._frames: Counter[int] = Counter()
        """How many of the open records name each page frame."""
        self._kernels: dict[Machine, str] = {}
        self._held: HeldLine | None = None
        self._has_line_ends = False

    def read(self, number: int, batch: list[bytes], is_last: bool) -> None:
        """Take a batch of lines."""
        block = b"".join(batch)
        if b"\x1b" in block:  # a colour may stand within a mark
            batch = [COLOUR.sub(b"", line) for line in batch]
            block = b"".join(batch)
        marks = [mark for mark in _MARKS if mark in block]
        if marks:
            marks.append(NOTE_KEYWORD)
        self._has_line_ends = self._has_line_ends or batch[0].endswith(b"\n")
        if marks or self._held is not None:
            cut = number + len(batch) - 1 if is_last and self._has_line_ends and not batch[-1].endswith(b"\n") else None
            self._look_through(number, batch, marks, cut)
        self._expire(number + len(batch))

    def _look_through(self, number: int, batch: list[bytes], marks: list[bytes], cut: int | None) -> None:
        """Take the lines that matter, and what may be the rest of one; the line `cut` ends before its end."""
        for at, raw in enumerate(batch, number):
            matters = False
            for mark in marks:  # not `any`: most lines end here
                if mark in raw:
                    matters = True
                    break
            if matters or self._held is not None:
                self._take(line_text(raw), at, at != cut, matters)

    def close(self) -> None:
        """Bring to an end what is open at the end of the log."""
        if self._held is not None:
            self._read_line(self._held.line)
        while self._records:
            self._finish_first()

    def _expire(self, number: int) -> None:
        while self._records and number - self._records[0].last.number > MAX_LINES_APART:
            self._finish_first()

    def _grow(self, size: int) -> None:
        """Count what is held more, and be done with the oldest records where that is too much."""
        self._size += size
        while self._size > _MAX_SIZE and self._records:
            self._finish_first()

    def _finish_first(self) -> None:
        record = self._records.popleft()
        self._size -= record.size
        record.named.forget()
        if not record.is_closed:
            of_machine = self._running[record.machine]
            of_machine.popleft()
            if not of_machine:
                del self._running[record.machine]
        key = _key(record.first)
        if self._open.get(key) is record:
            del self._open[key]
        self.found.append(read_one(partial(record.finish, self._notification), Position(line=record.first.number), FORMAT))

    def _take(self, text: str, number: int, is_whole: bool, matters: bool) -> None:
        """Take a line that matters by itself, or follows one that does."""
        line = parse_line(text, number, is_whole)
        held = self._held
        if held is not None:
            if not line.is_marked and held.join(text, number, is_whole, matters):
                return
            self._held = None
            self._read_line(held.line)
        if matters:
            self._held = HeldLine(text, line)

    def _read_line(self, line: LogLine) -> None:
        """Read a line of which it is known where it ends."""
        if not line.is_record:
            self._read_other(line)
        elif line.sequence is None and (seen := read_action(line.text, line.number)):
            self._tie(seen, line)
        else:
            self._read_record_line(line)

    def _read_record_line(self, line: LogLine) -> None:
        key, head = _key(line), HEAD.fullmatch(line.text)
        record = self._open.get(key)
        if record is None or not record.takes(line, head):
            if line.sequence is None and head is None:
                return  # other drivers print `[Hardware Error]: ` too
            record = LogRecord(line, self._kernels.get(line.machine), self._frames)
            self._open[key] = record
            self._records.append(record)
            self._running.setdefault(record.machine, deque()).append(record)
            if len(self._records) > _MAX_OPEN:
                self._finish_first()
        before = record.size
        record.add(line, head)
        self._grow(record.size - before)

    def _read_other(self, line: LogLine) -> None:
        if banner := _BANNER.fullmatch(line.text):
            self._boot(line.machine, banner[1])
        elif FIRMWARE_WARNINGS.fullmatch(line.text):
            newest = next(self._newest_first(line), None)
            if newest is not None and line.number - newest.last.number <= _NEXT_LINES:
                newest.refuse(line.text)
        elif seen := read_action(line.text, line.number):
            self._tie(seen, line)

    def _boot(self, machine: Machine, release: str) -> None:
        """Another kernel: its record numbers begin again."""
        for record in self._running.pop(machine, ()):
            record.is_closed = True
            key = _key(record.first)
            if self._open.get(key) is record:
                del self._open[key]
        self._kernels.pop(machine, None)
        if len(self._kernels) >= _MAX_MACHINES:
            del self._kernels[next(iter(self._kernels))]
        self._kernels[machine] = release

    def _newest_first(self, line: LogLine) -> Iterator[LogRecord]:
        """The records of the same boot of the same machine."""
        return reversed(self._running.get(line.machine, ()))

    def _tie(self, seen: ObservedAction, line: LogLine) -> None:
        """Give what the kernel did to the record that it speaks of, if that is certain."""
        frame = frame_of(seen)
        for age, record in enumerate(self._newest_first(line) if frame is None or frame in self._frames else ()):
            if age and not names_memory(seen):
                break
            if record.explains(seen, line, age == 0):
                before = record.size
                record.see(seen)
                self._grow(record.size - before)
                return
        self.found.append(UnmatchedAction(group_actions((seen,)), Position(line=line.number), FORMAT, line.host))


def _key(line: LogLine) -> tuple[object, ...]:
    """What lines of one record have in common; without a number the caller tells the most."""
    return line.machine, line.sequence, line.caller if line.sequence is None else None
