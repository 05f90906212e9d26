"""Readers of all import formats: from a file to errors and unreadable records."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from pydantic_core import to_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.cper import read_cper, unpack_encoded
from ras_triage.models.formats.erst import PstoreRecord, is_pstore, log_lines, read_pstore_record
from ras_triage.models.formats.json_text import read_json
from ras_triage.models.formats.kernel_log import journal
from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.libcper.reader import read_libcper
from ras_triage.models.formats.log_envelopes import TextFields, UnwrappedLog, is_document, is_newest_first
from ras_triage.models.formats.qemu.injection import read_argument, read_qmp
from ras_triage.models.formats.ras.mc_ctl import read_mc_ctl
from ras_triage.models.formats.ras.trace import read_trace
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.record_context import to_notification
from ras_triage.models.formats.redfish import read_redfish
from ras_triage.models.formats.results import (
    FoundError,
    Position,
    UnmatchedAction,
    UnreadableRecord,
    iterate_guarded,
    read_guarded,
    stated_assumptions,
)
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import NotificationType
from ras_triage.models.observed import is_of_drivers
from ras_triage.models.records.cper_record import SIGNATURE, decode_record
from ras_triage.models.scalars import AmbiguousEncoding
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.importing.format_detection import STREAMED, InputFormat, detect_format, is_kernel_log, log_format
from ras_triage.service.importing.other_tools import other_tool
from ras_triage.service.importing.rasdaemon_db import UnreadableDatabase, read_database
from ras_triage.service.importing.signatures import acpi_table, unreadable_file
from ras_triage.service.importing.source import ImportSource


@frozen
class RawEvent:
    """Unparsed event in the format of ras-triage."""

    document: bytes
    """JSON."""
    place: Position


FoundItem = FoundError | UnreadableRecord | UnmatchedAction | UnmatchedRow
Found = FoundItem | RawEvent
Find = Callable[[ImportSource, InputFormat, NotificationType | None], Iterator[Any]]

_RECORD_LENGTH: Final = struct.Struct("<20xI")
_RECORD_MIN: Final = 128
_ERST: Final = "erst"
_MAX_LOG_BYTES: Final = 4 << 20
"""Limit for the unpacked logs of all pstore records of one file, in bytes; a real store has some 100 KiB."""
_HEAD_LINES: Final = 1000
"""Lines of a collected log that tell whether it is a trace."""
_LINE_SIZE: Final = 48
"""Memory overhead of a line, in bytes."""
_BERT: Final = "BERT"
"""Name of the files with the boot error record table and its records, /sys/firmware/acpi/tables/BERT and data/BERT beside it."""
_STORED: Final = {"machine_check": "an x86 machine check", "unknown": "a section of unknown type"}


def read_items(source: ImportSource, form: InputFormat | None, notification: NotificationType | None) -> Iterator[FoundItem]:
    """Return the items of a file in order. Raises ProblemError if the file is too long.

    `form`: the format; None: detected from the content.
    """
    for found in find_items(source, form, notification):
        yield read_raw(found) if isinstance(found, RawEvent) else found


def find_in(source: ImportSource, form: InputFormat, notification: NotificationType | None) -> Iterator[Found]:
    """Return the items of a file of a known format in order. Raises ProblemError if the file is too long."""
    return _READERS[form](source, notification)


def find_items(
    source: ImportSource, form: InputFormat | None, notification: NotificationType | None, find: Find = find_in
) -> Iterator[Any]:  # fmt: skip
    """Return as `read_items`, but with unparsed events of ras-triage. `find`: reads a file of a known format."""
    if (refusal := _refusal(source, form)) is not None:
        yield refusal
        return
    known = form or (InputFormat.COLLECTED_LOG if source.text_field else detect_format(source.head, is_whole=source.is_whole))
    found = False
    for item in find(source, known, notification):
        found = found or not (isinstance(item, UnmatchedAction) and is_of_drivers(item.observed))
        yield item
    if not found and (nothing := _why_nothing(source, form, known)) is not None:
        yield nothing


def is_read_whole(source: ImportSource, form: InputFormat) -> bool:
    """Return whether a file is one document, which is read into memory. A log with its newest line first is no document."""
    if form is InputFormat.COLLECTED_LOG:
        return is_document(source.head)
    return form not in STREAMED and form is not InputFormat.RASDAEMON


def _refusal(source: ImportSource, form: InputFormat | None) -> UnreadableRecord | None:
    """Return why a file is not read at all; None where it is."""
    head, start = source.head, Position(offset=0)
    if form is None and (reason := unreadable_file(head)) is not None:
        return UnreadableRecord(start, reason, "unknown" if acpi_table(head) is None else "acpi")
    if not head.strip():
        return UnreadableRecord(start, "the file is empty", str(form or "unknown"))
    return None


def _why_nothing(source: ImportSource, form: InputFormat | None, known: InputFormat) -> UnreadableRecord | None:
    """Return why nothing was read of a file; None for one that may be without errors, as a kernel log."""
    start = Position(offset=0)
    if known in (InputFormat.RASDAEMON, InputFormat.RAS_MC_CTL):
        return None
    if form is None and (tool := other_tool(source.head)) is not None:
        return UnreadableRecord(start, tool, "unknown")
    if known not in (InputFormat.KERNEL_LOG, InputFormat.JOURNAL, InputFormat.COLLECTED_LOG):
        return UnreadableRecord(start, "no error in this file", known)
    if b"[Hardware Error]" in source.head:
        return UnreadableRecord(Position(line=1), "the log has `[Hardware Error]` lines, but none that starts a record", known)
    if form is None and known is InputFormat.KERNEL_LOG and not is_kernel_log(source.head):
        return UnreadableRecord(start, "unknown format; expected one of those in docs/import.md", "unknown")
    return None


def _ras_trace_lines(lines: Iterable[bytes], notification: NotificationType | None) -> Iterator[FoundItem]:
    return read_trace(lines, notification=to_notification(notification))


def _kernel_log(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_kernel_log(source.lines(), notification)


def _journal(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    refused = journal.UnreadableLines()
    for found in read_kernel_log(journal.to_kernel_lines(source.lines(), refused), notification):
        yield from _no_entries(refused)
        yield found
    yield from _no_entries(refused)
    if refused.more:
        yield _more_lines(refused, InputFormat.JOURNAL)


_ENTRIES: Final = {InputFormat.JOURNAL: ("a JSON journal entry", "JSON journal entries"), InputFormat.COLLECTED_LOG: ("JSON", "JSON")}


def _no_entries(refused: journal.UnreadableLines, form: InputFormat = InputFormat.JOURNAL) -> Iterator[UnreadableRecord]:
    while refused.numbers:
        yield UnreadableRecord(Position(line=refused.numbers.popleft()), f"not {_ENTRIES[form][0]}", form)


def _more_lines(refused: journal.UnreadableLines, form: InputFormat) -> UnreadableRecord:
    return UnreadableRecord(Position(), f"{refused.more} more lines are not {_ENTRIES[form][1]}", form)


def _collected_log(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    log = UnwrappedLog(TextFields(source.text_field))
    try:
        lines = _unwrapped(source, log)
    except ValueError as error:
        yield UnreadableRecord(Position(offset=0), str(error), InputFormat.COLLECTED_LOG)
        return
    head = list(islice(lines, _HEAD_LINES))
    read = _ras_trace_lines if log_format(b"".join(head)) is InputFormat.RAS_TRACE else read_kernel_log
    for found in read(chain(head, lines), notification):
        yield from _no_entries(log.unreadable, InputFormat.COLLECTED_LOG)
        yield _relocated(found, log)
    yield from _no_entries(log.unreadable, InputFormat.COLLECTED_LOG)
    if log.unreadable.more:
        yield _more_lines(log.unreadable, InputFormat.COLLECTED_LOG)
    if log.ambiguous or not log.texts:
        why = f"the text may be in {log.ambiguous}" if log.ambiguous else "no known text field"
        yield UnreadableRecord(Position(offset=0), f"{why}; name the field with `--text-field`", InputFormat.COLLECTED_LOG)


def _unwrapped(source: ImportSource, log: UnwrappedLog) -> Iterator[bytes]:
    """Return the log lines in a file. Raises ValueError for a document that is not JSON, ProblemError for one that is too long."""
    if is_document(source.head):
        return iter(log.document(source.read_all()))
    if is_newest_first(UnwrappedLog(TextFields(source.text_field)).lines(source.head.splitlines())):
        return iter(log.reversed_lines(source.read_all().splitlines()))
    return log.lines(source.lines())


def _relocated(found: Any, log: UnwrappedLog) -> Any:
    """Return an item with its place in the file."""
    line = found.place.line
    if line is None:
        return found
    place = Position(line=log.number(line)) if log.pointers is None else Position(item=log.pointers[line - 1])
    observed = getattr(found, "observed", None)
    if observed is None or log.pointers is not None:
        return replace(found, place=place)
    return replace(found, place=place, observed=observed.moved(log.number))


def _ras_trace(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from _ras_trace_lines(source.lines(), notification)


def _ras_mc_ctl(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_mc_ctl(source.read_all().splitlines(), notification=to_notification(notification))


def _rasdaemon(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    with source.file() as path:
        try:
            yield from read_database(path, notification=to_notification(notification))
        except UnreadableDatabase as error:
            yield UnreadableRecord(Position(offset=0), str(error), InputFormat.RASDAEMON)


def _cper(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    try:
        data = unpack_encoded(source.read_all())
    except AmbiguousEncoding as error:
        yield UnreadableRecord(Position(offset=0), str(error), InputFormat.CPER)
        return
    if notification is None and source.name == _BERT:
        notification = NotificationType.BERT
    records = list(_records(data))
    if not any(is_stored for _, _, is_stored in records):
        yield from read_cper(data, notification=notification)
        return
    logs = _Logs()
    for offset, record, is_stored in records:
        found = _stored(offset, record, logs) if is_stored else _moved(read_cper(record, notification=notification), offset)
        yield from iterate_guarded(found, Position(offset=offset), _ERST if is_stored else InputFormat.CPER)
    yield from read_kernel_log(log_lines(logs.records), notification)


def _records(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """Return the offset and bytes of each record, and whether it is one of pstore."""
    offset = 0
    while data.startswith(SIGNATURE, offset) and len(data) - offset >= _RECORD_MIN:
        (length,) = _RECORD_LENGTH.unpack_from(data, offset)
        record = data[offset : offset + max(length, _RECORD_MIN)]
        yield offset, record, _is_pstore(record)
        offset += max(length, _RECORD_MIN)


class _Logs:
    """Kernel logs of pstore records, up to a limit."""

    def __init__(self) -> None:
        self.records: list[PstoreRecord] = []
        self._room = _MAX_LOG_BYTES

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._room <= 0

    def add(self, record: PstoreRecord) -> None:
        """Add a log; the last one may exceed the limit."""
        self._room -= sum(map(len, record.lines)) + _LINE_SIZE * len(record.lines)
        self.records.append(record)


def _stored(offset: int, record: bytes, logs: _Logs) -> Iterator[UnreadableRecord]:
    """Add a pstore record to the logs. Return what cannot be read of it."""
    if logs.is_full:
        yield UnreadableRecord(
            Position(offset=offset), f"skipped: the logs before this record exceed the limit of {_MAX_LOG_BYTES} bytes", _ERST
        )
        return
    try:
        stored = read_pstore_record(record)
    except MalformedBytes as error:
        yield UnreadableRecord(Position(offset=offset + error.offset), error.detail, _ERST)
        return
    if stored.kind == "kernel_log":
        logs.add(stored)
        if stored.is_cut:
            yield UnreadableRecord(Position(offset=offset), "the log is truncated, or longer than the limit", _ERST)
    else:
        yield UnreadableRecord(Position(offset=offset), f"a pstore record with {_STORED[stored.kind]} is not supported", _ERST)


def _moved(found: Iterable[FoundError | UnreadableRecord], offset: int) -> Iterator[FoundError | UnreadableRecord]:
    """Add `offset` to the positions of items."""
    for one in found:
        yield replace(one, place=Position(offset=(one.place.offset or 0) + offset))


def _is_pstore(record: bytes) -> bool:
    try:
        return is_pstore(decode_record(record))
    except Exception:  # MalformedBytes or a defect: raised again when the record is read
        return False


def _redfish(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_redfish(source.read_all(), notification=notification)


def _libcper(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_libcper(source.read_all(), notification=notification)


def _qmp(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_qmp(source.read_all(), notification=to_notification(notification))


def _qemu_argument(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    place = Position(offset=0)
    read = partial(read_argument, source.read_all(), notification=to_notification(notification), place=place)
    yield read_guarded(read, place, InputFormat.QEMU_ARGUMENT)


def _events(source: ImportSource, _: NotificationType | None) -> Iterator[Found]:
    data = source.read_all()
    try:
        document: Any = read_json(data)
    except ValueError:
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                yield RawEvent(line, Position(line=number))
        return
    documents = document if isinstance(document, list) else None
    if documents is None:
        yield RawEvent(data, Position(item=""))
        return
    for index, one in enumerate(documents):
        yield RawEvent(to_json(one), Position(item=f"/{index}"))


def read_raw(raw: RawEvent) -> FoundError | UnreadableRecord:
    """Parse an event in the format of ras-triage."""
    return read_guarded(partial(_read_event, raw), raw.place, InputFormat.EVENT)


def _read_event(raw: RawEvent) -> FoundError | UnreadableRecord:
    try:
        event = read_event(raw.document)
    except ProblemError as refused:
        return UnreadableRecord(raw.place, refused.problem.detail, InputFormat.EVENT)
    return FoundError(event.model_copy(update={"assumed": None}), InputFormat.EVENT, raw.place, stated_assumptions(event))


_READERS: Final[dict[InputFormat, Callable[[ImportSource, NotificationType | None], Iterator[Found]]]] = {
    InputFormat.EVENT: _events,
    InputFormat.CPER: _cper,
    InputFormat.REDFISH: _redfish,
    InputFormat.LIBCPER: _libcper,
    InputFormat.QMP: _qmp,
    InputFormat.QEMU_ARGUMENT: _qemu_argument,
    InputFormat.KERNEL_LOG: _kernel_log,
    InputFormat.JOURNAL: _journal,
    InputFormat.COLLECTED_LOG: _collected_log,
    InputFormat.RAS_TRACE: _ras_trace,
    InputFormat.RAS_MC_CTL: _ras_mc_ctl,
    InputFormat.RASDAEMON: _rasdaemon,
}
