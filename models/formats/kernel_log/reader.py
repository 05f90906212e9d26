"""Kernel log parser (dmesg, journald, syslog, serial console, pstore, mail).

Facts that a log does not contain are listed in `assumed` and `lost` of each error. Memory is bounded for a log of any length: a record is
closed after `MAX_LINES_APART` lines without one of its own, or when too many records are open.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from operator import itemgetter, methodcaller
from typing import Final

from ras_triage.models.formats.kernel_log import exception_lines, reports
from ras_triage.models.formats.kernel_log.actions import KEYWORDS, NOTE_KEYWORD, read_action, read_page_result
from ras_triage.models.formats.kernel_log.aer_lines import KEYWORDS as AER_KEYWORDS
from ras_triage.models.formats.kernel_log.aer_lines import AerLine, read_aer
from ras_triage.models.formats.kernel_log.boot import KEYWORDS as HEADER_KEYWORDS
from ras_triage.models.formats.kernel_log.boot import Boot, read_header_release, read_page_size
from ras_triage.models.formats.kernel_log.exception_lines import (
    ExceptionLine,
    Stage,
    read_exception,
    read_other_abort,
    read_panic,
    read_processor_state,
    read_task,
)
from ras_triage.models.formats.kernel_log.exceptions import LogException
from ras_triage.models.formats.kernel_log.grammar import FIRMWARE_WARNINGS, match_head
from ras_triage.models.formats.kernel_log.lines import COLOUR, FORMAT, MAX_LINE, LogLine, line_text, parse_line
from ras_triage.models.formats.kernel_log.record import MAX_LINES_APART, REPORT_LINES, LogRecord, has_address, observed_frame
from ras_triage.models.formats.kernel_log.record_templates import RUN_MARK, RecordRun, RecordTemplates, begins_run, find_runs
from ras_triage.models.formats.kernel_log.wrapping import PendingLine
from ras_triage.models.formats.ras.page_failures import frames_of
from ras_triage.models.formats.results import FoundError, Position, UnmatchedAction, UnreadableRecord, read_guarded
from ras_triage.models.notification import NotificationType
from ras_triage.models.observed import ObservedAction, ObservedMessage, ObservedPanic, group_actions

LogItem = FoundError | UnreadableRecord | UnmatchedAction
Machine = tuple[str | None, str]

MARKS: Final = (
    b"[Hardware",
    b"Linux version ",
    b"BERT: ",
    *reports.KEYWORDS,
    *KEYWORDS,
    *exception_lines.KEYWORDS,
    exception_lines.TASK_KEYWORD,
    *HEADER_KEYWORDS,
    *AER_KEYWORDS,
)
"""Every relevant line contains one of these; the first is short because mail may wrap the line behind it."""

_BATCH: Final = 256
"""Lines that are searched at once."""
_MAX_OPEN: Final = 128
"""Records that are open at once."""
_MAX_SIZE: Final = 16 << 20
"""Bytes of the open records, approximately."""
_MAX_MACHINES: Final = 1024
_MAX_EXCEPTIONS: Final = 64
"""Exceptions of one machine that may get more lines."""
_MAX_RECOVERING: Final = 16
"""Newest records of a machine that a message of PCIe error recovery may be about."""
_NEXT_LINES: Final = 3
_MAX_MESSAGE: Final = 1024
"""Bytes of the kernel's longest line."""

_RECORD_MARK: Final = b"[Hardware Error]: "

_BERT: Final = "BERT: "
_SKIPPED = re.compile(r"BERT: (?:\[Hardware Error\]: ?)?Skipped (\d{1,10}) error records")
_FIRMWARE_BUG = re.compile(r"BERT: ?\[Firmware Bug\]: ?((?:Truncated status block|Invalid error record).*)")
_PREVIOUS_BOOT = re.compile(r"BERT: (?:Error records from previous boot:|Total records found: \d{1,10})")
"""Messages of `bert_print_all` (drivers/acpi/apei/bert.c, Linux 5.4 to 7.3) around the records that it prints."""
_BERT_DATA: Final = "/sys/firmware/acpi/tables/data/BERT"

_BANNER = re.compile(r"Linux version (\S{1,128}) .*")

_shortened = itemgetter(slice(0, MAX_LINE))
_has_end = methodcaller("endswith", b"\n")


def read_kernel_log(lines: Iterable[bytes], notification: NotificationType | None = None) -> Iterator[LogItem]:
    """Yield the error records of a log, in the order of their first lines, and the actions that the kernel logged.

    `lines` may have line endings or not; a few hundred of them are held at a time. `notification` is the notification type, which a log
    does not contain; without it an ordinary interrupt is assumed. A log without records yields nothing. Never raises.
    """
    reader = _Reader(notification)
    for number, batch, end in _batches(lines):
        is_cut = end is not None and end != number + len(batch)
        reader.read(number, batch, is_last=end is None, is_cut=is_cut)
        if is_cut:
            reader.read_pending()
        reader.expire(end or number + len(batch))
        yield from reader.items
        reader.items.clear()
    reader.close()
    yield from reader.items


def _batches(lines: Iterable[bytes]) -> Iterator[tuple[int, list[bytes], int | None]]:
    """Yield the lines in batches, each with the number of its first line and of the one behind those that were read with it.

    None: it is the last batch. A record that may go on is left to the next batch.
    """
    source = map(_shortened, lines)
    number, batch = 1, list(islice(source, _BATCH))
    while batch:
        end = number + len(batch)
        following = list(islice(source, _BATCH))
        if following and (whole := _before_last_record(batch)):
            following[:0] = batch[whole:]
            del batch[whole:]
        yield number, batch, end if following else None
        number, batch = number + len(batch), following


def _before_last_record(batch: list[bytes]) -> int:
    """Return the number of lines before a record that may go on behind the batch; 0 if there is none."""
    for at in range(len(batch) - 1, len(batch) // 2, -1):
        if _RECORD_MARK not in batch[at]:
            return 0
        if begins_run(batch[at]):
            return at
    return 0


def _is_split(batch: list[bytes], block: bytes) -> bool:
    """Return whether a batch may have whole records, and its joined lines are the same lines."""
    return RUN_MARK in block and block.count(b"\n") == len(batch) and all(map(_has_end, batch))


class _Reader:
    """Parser state: the open records and the pending line."""

    def __init__(self, notification: NotificationType | None) -> None:
        self.items: list[LogItem] = []
        """Finished records and unmatched actions."""
        self._notification = notification
        self._records: deque[LogRecord | LogException] = deque()
        self._size = 0
        """Bytes of the open records, approximately."""
        self._open: dict[tuple[object, ...], LogRecord] = {}
        self._running: dict[Machine, deque[LogRecord]] = {}
        """Open records of each machine's current boot, oldest first."""
        self._frames: Counter[int] = Counter()
        """Number of open records that name each page frame."""
        self._boots: dict[Machine, Boot] = {}
        self._exceptions: dict[Machine, deque[LogException]] = {}
        """Exceptions of each machine's current boot that may get more lines, oldest first."""
        self._boot_records: dict[Machine, None] = {}
        """Machines whose log has printed records of the previous boot; the kernel numbers all other records."""
        self._reports: deque[tuple[LogLine, FoundError, Boot]] = deque()
        """Errors outside of records, held until the records around them are known."""
        self._templates = RecordTemplates()
        self._pending: PendingLine | None = None
        self._has_line_ends = False

    def read(self, number: int, batch: list[bytes], *, is_last: bool, is_cut: bool) -> None:
        """Parse a batch of lines. `is_cut`: a record begins behind it."""
        block = b"".join(batch)
        if b"\x1b" in block:  # a colour escape sequence may split a mark
            batch = [COLOUR.sub(b"", line) for line in batch]
            block = b"".join(batch)
        marks = [mark for mark in MARKS if mark in block]
        if marks:
            marks.append(NOTE_KEYWORD)
        if (marks or self._exceptions) and exception_lines.STATE_KEYWORD in block:
            marks.append(exception_lines.STATE_KEYWORD)
        self._has_line_ends = self._has_line_ends or batch[0].endswith(b"\n")
        if marks or self._pending is not None:
            cut = number + len(batch) - 1 if is_last and self._has_line_ends and not batch[-1].endswith(b"\n") else None
            self._scan_runs(number, batch, marks, cut, find_runs(block, is_cut=is_cut) if _is_split(batch, block) else ())

    def _scan_runs(self, number: int, batch: list[bytes], marks: list[bytes], cut: int | None, runs: Iterable[RecordRun]) -> None:
        """Parse records that are like earlier ones at once, and all other lines one by one."""
        at = 0
        for run in runs:
            lines = batch[run.start : run.end]
            template = self._templates.find(run, lines)
            if template is None:
                continue
            self._scan(number + at, batch[at : run.start], marks, None)
            at = run.start
            self.read_pending()
            if self._exceptions:
                continue  # one of them may be about this record
            at = run.end
            first, last = (parse_line(line_text(lines[which]), number + index) for which, index in ((0, run.start), (-1, run.end - 1)))
            self._add_record(template.copy(first, last, self._boot(first.machine), self._frames, run.addresses))
        self._scan(number + at, batch[at:] if at else batch, marks, cut)

    def _scan(self, number: int, batch: list[bytes], marks: list[bytes], cut: int | None) -> None:
        """Parse the relevant lines and their continuations; the line number `cut` is that of a truncated line."""
        for at, raw in enumerate(batch, number):
            matters = False
            for mark in marks:  # not `any()`: this loop runs for most lines and is faster without a generator
                if mark in raw:
                    matters = True
                    break
            if matters or self._pending is not None:
                self._add_line(line_text(raw), at, is_whole=at != cut, matters=matters)

    def close(self) -> None:
        """Finish the pending line and all open records at the end of the log."""
        self.read_pending()
        while self._reports:
            self._finish_report()
        while self._records:
            self._finish_first()

    def read_pending(self) -> None:
        """Process the pending line, which no line continues."""
        if self._pending is not None:
            held, self._pending = self._pending, None
            self._read_line(held.line)

    def expire(self, number: int) -> None:
        """Finish what no line from `number` on can be about."""
        while self._reports and (number - self._reports[0][0].number > REPORT_LINES or len(self._reports) > _MAX_OPEN):
            self._finish_report()
        while self._records and number - self._records[0].last.number > MAX_LINES_APART:
            self._finish_first()

    def _grow(self, size: int) -> None:
        """Add to the size of the open records, and finish the oldest ones above the limit."""
        self._size += size
        while self._size > _MAX_SIZE and self._records:
            self._finish_first()

    def _finish_first(self) -> None:
        record = self._records.popleft()
        self._size -= record.size
        if isinstance(record, LogRecord):
            self._release(record)
        else:
            record.is_closed = True
        self.items.append(read_guarded(partial(record.finish, self._notification), Position(line=record.first.number), FORMAT))

    def _release(self, record: LogRecord) -> None:
        """Remove a finished record from the indexes of open ones."""
        record.match_keys.release()
        if record.exception is not None:
            self._size -= record.exception.size
            record.exception.is_closed = True
        if not record.is_closed:
            of_machine = self._running[record.machine]
            of_machine.popleft()
            if not of_machine:
                del self._running[record.machine]
        key = _key(record.first)
        if self._open.get(key) is record:
            del self._open[key]

    def _add_line(self, text: str, number: int, *, is_whole: bool, matters: bool) -> None:
        """Parse a relevant line, or one that follows a relevant line."""
        line = parse_line(text, number, is_whole=is_whole)
        held = self._pending
        if held is not None:
            if not line.is_marked and held.join(text, number, is_whole=is_whole, is_candidate=matters):
                return
            self._pending = None
            self._read_line(held.line)
        if matters:
            self._pending = PendingLine(text, line)

    def _read_line(self, line: LogLine) -> None:
        """Process a line whose end is known."""
        if not line.is_record and (result := read_page_result(line.text, line.number)):
            self._attach(result, line)  # the message that most records are followed by
        elif not line.is_record:
            self._read_other(line)
        elif line.sequence is None and (action := read_action(line.text, line.number)):
            self._attach(action, line)
        else:
            self._read_record_line(line)

    def _read_record_line(self, line: LogLine) -> None:
        key, head = _key(line), match_head(line.text)
        record = self._open.get(key)
        if record is None or not record.accepts(line, head):
            if line.sequence is None and head is None:
                self._note(line, f"[Hardware Error]: {line.text}")  # other drivers print `[Hardware Error]: ` too
                return
            record = LogRecord(line, self._boot(line.machine), self._frames)
            record.is_of_previous_boot = line.sequence is None and line.machine in self._boot_records
            self._add_record(record)
            self._add_abort_before(record)
        before = record.size
        record.add(line, head)
        self._grow(record.size - before)

    def _add_record(self, record: LogRecord) -> None:
        """Add a new record, which may have a size."""
        self._open[_key(record.first)] = record
        self._running.setdefault(record.machine, deque()).append(record)
        self._queue(record)
        self._grow(record.size)

    def _queue(self, item: LogRecord | LogException) -> None:
        self._records.append(item)
        if len(self._records) > _MAX_OPEN:
            self._finish_first()

    def _read_other(self, line: LogLine) -> None:
        if banner := _BANNER.fullmatch(line.text):
            self._start_boot(line.machine, banner[1])
        elif line.text.startswith(_BERT):
            self._read_boot_message(line)
        elif FIRMWARE_WARNINGS.fullmatch(line.text):
            newest = next(self._newest_first(line), None)
            if newest is not None and line.number - newest.last.number <= _NEXT_LINES:
                newest.refuse(line.text)
        elif exception := read_exception(line.text, line.number):
            self._add_exception(exception, line)
        elif action := read_action(line.text, line.number) or read_other_abort(line.text, line.number):
            if not isinstance(action, ObservedPanic) or not self._add_panic(action, line):
                self._attach(action, line)
        elif aer := read_aer(line.text, line.number):
            self._add_recovery(aer, line)
        elif not self._read_report(line):
            self._read_context(line)

    def _add_recovery(self, found: AerLine, line: LogLine) -> None:
        """Add a message of PCIe error recovery to its record; without one, the first line of each message is unmatched."""
        newest = list(islice(self._newest_first(line), _MAX_RECOVERING))
        for record in reversed(newest):  # the work queue handles them in order
            if record.accepts_recovery(found, line):
                before = record.size
                record.add_recovery(found, line)
                self._grow(record.size - before)
                return
        if found.action is not None:
            self._add_unmatched(found.action, line)

    def _add_unmatched(self, action: ObservedAction, line: LogLine) -> None:
        self.items.append(UnmatchedAction(group_actions((action,)), Position(line=line.number), FORMAT, line.host))

    def _read_context(self, line: LogLine) -> None:
        """Add what the registers and the task line of an oops say about the exception before them, and about the kernel."""
        exceptions = reversed(self._exceptions.get(line.machine, ()))
        if task := read_task(line.text):
            self._learn_release(line.machine, task.release)
            for exception in exceptions:
                if exception.accepts_task(line, task):
                    exception.add_task(line, task)
                    return
        elif taken_from := read_processor_state(line.text):
            for exception in exceptions:
                if exception.accepts_state(line):
                    exception.taken_from = taken_from
                    return
        elif release := read_header_release(line.text):
            self._learn_release(line.machine, release)
        elif page_size := read_page_size(line.text):
            self._boot(line.machine).page_size = page_size

    def _add_exception(self, found: ExceptionLine, line: LogLine) -> None:
        """Add a line about an exception: to an open one, to the record that came with it, or to a new one."""
        opened = self._exceptions.setdefault(line.machine, deque(maxlen=_MAX_EXCEPTIONS))
        for exception in reversed(opened):
            if exception.accepts(line, found):
                before = exception.size
                exception.add(line, found)
                self._grow(exception.size - before)
                return
        if found.is_continuation:
            return
        exception = LogException(line, found, self._boot(line.machine))
        opened.append(exception)
        record = next(self._newest_first(line), None)
        if record is not None and record.comes_with(exception):
            record.add_exception(exception)
        else:
            self._queue(exception)
        self._grow(exception.size)

    def _add_abort_before(self, record: LogRecord) -> None:
        """Add the abort to a record that begins right behind it."""
        exception = next(reversed(self._exceptions.get(record.machine, ())), None)
        if exception is None or exception not in self._records or (exception.stage is Stage.OUTCOME and exception.taken_from == "kernel"):
            return
        if record.comes_with(exception):
            self._records.remove(exception)
            record.add_exception(exception)

    def _add_panic(self, panic: ObservedPanic, line: LogLine) -> bool:
        """Add a panic to the exception that caused it; return whether it names or follows one."""
        for exception in reversed(self._exceptions.get(line.machine, ())):
            if exception.accepts_panic(line, panic):
                exception.add_panic(line, panic)
                return True
        found = read_panic(panic)
        if found is not None:
            self._add_exception(found, line)
        return found is not None

    def _boot(self, machine: Machine) -> Boot:
        """Return the current boot of a machine."""
        if machine not in self._boots:
            if len(self._boots) >= _MAX_MACHINES:
                oldest = next(iter(self._boots))
                del self._boots[oldest]
                self._exceptions.pop(oldest, None)
            self._boots[machine] = Boot()
        return self._boots[machine]

    def _learn_release(self, machine: Machine, release: str) -> None:
        """Set the release of a machine's kernel; another one than before is another boot."""
        boot = self._boot(machine)
        if boot.release is None:
            boot.set_release(release)
        elif boot.release != release:
            self._start_boot(machine, release)

    def _note(self, line: LogLine, said: str) -> None:
        """Report a line of another driver about a hardware error, which is no record."""
        if len(said) > _MAX_MESSAGE:
            return
        actions = group_actions((ObservedMessage(line.number, said, "driver"),))
        self.items.append(UnmatchedAction(actions, Position(line=line.number), FORMAT, line.host))

    def _read_report(self, line: LogLine) -> bool:
        """Process a line that reports an error outside of a record; return whether it does."""
        report = reports.read_report(line, self._notification)
        if report is None:
            if not reports.is_of_driver(line.text):
                return False
            self._note(line, line.text)
        elif isinstance(report, UnreadableRecord):
            self.items.append(report)
        elif isinstance(report, FoundError):
            self._reports.append((line, report, self._boot(line.machine)))
        else:
            self._attach(report, line)
        return True

    def _finish_report(self) -> None:
        """Take a report as an error, unless it is about a record near it."""
        line, report, boot = self._reports.popleft()
        frames = frames_of(report)
        if any(record.is_reported_by(line, frames) for record in self._running.get(line.machine, ())):
            self._note(line, line.text)
        else:
            self.items.append(reports.with_host(report, boot.host_facts()))

    def _start_boot(self, machine: Machine, release: str) -> None:
        """Close the records of a machine that booted: a new kernel numbers its records from the start."""
        for record in self._running.pop(machine, ()):
            record.is_closed = True
            key = _key(record.first)
            if self._open.get(key) is record:
                del self._open[key]
        self._boot_records.pop(machine, None)
        self._boots.pop(machine, None)
        self._exceptions.pop(machine, None)
        self._boot(machine).set_release(release)

    def _read_boot_message(self, line: LogLine) -> None:
        """Take the records without a number as records of the previous boot, and report those that were not printed."""
        if skipped := _SKIPPED.fullmatch(line.text):
            why = f"{skipped[1]} records of the previous boot were not printed; import `{_BERT_DATA}`, which has them all"
        elif bug := _FIRMWARE_BUG.fullmatch(line.text):
            why = f"a record of the previous boot was not printed, nor any behind it: `{bug[1]}`; import `{_BERT_DATA}`"
        elif _PREVIOUS_BOOT.fullmatch(line.text):
            why = None
        else:
            return
        if why is not None:
            self.items.append(UnreadableRecord(Position(line=line.number), why, FORMAT))
        if len(self._boot_records) >= _MAX_MACHINES:
            del self._boot_records[next(iter(self._boot_records))]
        self._boot_records[line.machine] = None
        for record in self._running.get(line.machine, ()):
            record.is_of_previous_boot = record.sequence is None

    def _newest_first(self, line: LogLine) -> Iterator[LogRecord]:
        """Return the open records of the same boot of the same machine, newest first."""
        return reversed(self._running.get(line.machine, ()))

    def _attach(self, action: ObservedAction, line: LogLine) -> None:
        """Add an action to the record that it is about; without a certain match, report it as unmatched."""
        frame = observed_frame(action)
        for age, record in enumerate(self._newest_first(line) if frame is None or frame in self._frames else ()):
            if age and not has_address(action):
                break
            if record.is_subject_of(action, line, is_newest=age == 0):
                before = record.size
                record.add_action(action, line)
                self._grow(record.size - before)
                return
        self._add_unmatched(action, line)


def _key(line: LogLine) -> tuple[object, ...]:
    """Return the key shared by all lines of one record: the record number, or else the caller field."""
    return line.machine, line.sequence, line.caller if line.sequence is None else None
