"""Kernel log text: dmesg, journald, syslog, serial consoles, pstore, and mail that quotes them.

What a log cannot tell is in every reading's `assumed` and `lost`. Memory stays bounded however long the log is: a record is done with
when enough lines have gone by, or too many records are open.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Final

from models.formats.log_fields import FIRMWARE_WARNINGS, HEAD
from models.formats.log_lines import MAX_LINE, LogLine, read_line, text_of
from models.formats.log_record import FORMAT, MAX_LINES_APART, LogRecord
from models.formats.log_wrapping import HeldLine
from models.formats.observed import KEYWORDS, Seen, gather, observe
from models.formats.reading import Loose, Place, Reading, Unread
from models.notification import NotificationType

Found = Reading | Unread | Loose

_MARKS: Final = (
    b"[Hardware",  # a wrap may come behind it
    b"Linux version ",
    b"error section length",
    b"valid bits set for",
    *KEYWORDS,
)
"""One of them is on every line that matters by itself."""

_BATCH: Final = 256
"""Lines that are looked through at once."""
_MAX_OPEN: Final = 128
"""Records that are kept open."""
_MAX_HOSTS: Final = 1024
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
        yield from reader.read(number, batch, is_last)
    yield from reader.close()


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
        self._notification = notification
        self._records: deque[LogRecord] = deque()
        self._open: dict[tuple[object, ...], LogRecord] = {}
        self._kernels: dict[str | None, str] = {}
        self._held: HeldLine | None = None
        self._has_line_ends = False

    def read(self, number: int, batch: list[bytes], is_last: bool) -> Iterator[Found]:
        """What a batch of lines brings to an end."""
        block = b"".join(batch)
        marks = [mark for mark in _MARKS if mark in block]
        self._has_line_ends = self._has_line_ends or batch[0].endswith(b"\n")
        if marks or self._held is not None:
            end = len(batch) - 1 if is_last and self._has_line_ends and not batch[-1].endswith(b"\n") else None
            for index, raw in enumerate(batch):
                matters = any(mark in raw for mark in marks)
                if matters or self._held is not None:
                    yield from self._take(text_of(raw), number + index, index != end, matters)
        yield from self._expire(number + len(batch))

    def close(self) -> Iterator[Found]:
        """What is open at the end of the log."""
        yield from self._release()
        while self._records:
            yield self._finish_first()

    def _expire(self, number: int) -> Iterator[Found]:
        while self._records and number - self._records[0].last.number > MAX_LINES_APART:
            yield self._finish_first()

    def _finish_first(self) -> Found:
        record = self._records.popleft()
        key = _key(record.first)
        if self._open.get(key) is record:
            del self._open[key]
        return record.finish(self._notification)

    def _take(self, text: str, number: int, is_whole: bool, matters: bool) -> Iterator[Found]:
        """Take a line that matters by itself, or follows one that does."""
        if self._held is not None:
            is_marked = read_line(text, number).is_marked
            if not is_marked and self._held.join(text, number, is_whole, matters):
                return
            yield from self._release()
        if matters:
            self._held = HeldLine(text, number, is_whole)

    def _release(self) -> Iterator[Found]:
        """Read the line that was held, now that it is known where it ends."""
        if self._held is None:
            return
        line, self._held = self._held.line, None
        if not line.is_record:
            yield from self._read_other(line)
        elif line.sequence is None and (seen := observe(line.text, line.number)):
            yield from self._tie(seen, line)
        else:
            yield from self._read_record_line(line)

    def _read_record_line(self, line: LogLine) -> Iterator[Found]:
        key = _key(line)
        record = self._open.get(key)
        if record is None or not record.takes(line):
            if line.sequence is None and not HEAD.fullmatch(line.text):
                return  # other drivers print `[Hardware Error]: ` too
            record = LogRecord(line, self._kernels.get(line.host))
            self._open[key] = record
            self._records.append(record)
            if len(self._records) > _MAX_OPEN:
                yield self._finish_first()
        record.add(line)

    def _read_other(self, line: LogLine) -> Iterator[Found]:
        if banner := _BANNER.fullmatch(line.text):
            self._boot(line.host, banner[1])
        elif FIRMWARE_WARNINGS.fullmatch(line.text):
            newest = next(self._newest_first(line), None)
            if newest is not None and line.number - newest.last.number <= _NEXT_LINES:
                newest.refuse(line.text)
        elif seen := observe(line.text, line.number):
            yield from self._tie(seen, line)

    def _boot(self, host: str | None, release: str) -> None:
        """Another kernel: its record numbers begin again."""
        self._open = {key: record for key, record in self._open.items() if record.host != host}
        for record in self._records:
            record.is_closed = record.is_closed or record.host == host
        self._kernels.pop(host, None)
        if len(self._kernels) >= _MAX_HOSTS:
            del self._kernels[next(iter(self._kernels))]
        self._kernels[host] = release

    def _newest_first(self, line: LogLine) -> Iterator[LogRecord]:
        """The records of the same boot of the same machine."""
        return (record for record in reversed(self._records) if record.host == line.host and not record.is_closed)

    def _tie(self, seen: Seen, line: LogLine) -> Iterator[Found]:
        """Give what the kernel did to the record that it speaks of, if that is certain."""
        for age, record in enumerate(self._newest_first(line)):
            if record.explains(seen, line, age == 0):
                record.see(seen)
                return
        yield Loose(gather((seen,)), Place(line=line.number), FORMAT, line.host)


def _key(line: LogLine) -> tuple[object, ...]:
    """What lines of one record have in common; without a number the caller tells the most."""
    return line.host, line.origin, line.sequence, line.caller if line.sequence is None else None
