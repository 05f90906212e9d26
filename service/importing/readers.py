"""From a file to what is in it: the reader of its format, and what that cannot read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pydantic_core import to_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.cper import read_cper, unpack_encoded
from ras_triage.models.formats.erst import PstoreRecord, is_pstore, log_lines, read_pstore_record
from ras_triage.models.formats.items import FoundError, Position, UnmatchedAction, UnreadableRecord, iterate_guarded, read_guarded
from ras_triage.models.formats.json_text import read_json
from ras_triage.models.formats.kernel_log import journal
from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.libcper.reader import read_libcper
from ras_triage.models.formats.qemu.injection import read_argument, read_qmp
from ras_triage.models.formats.ras.trace import read_trace
from ras_triage.models.formats.ras.traced_event import UnmatchedRow
from ras_triage.models.formats.redfish import read_redfish
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import SIGNATURE, decode_record
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.importing.format_detection import InputFormat, acpi_table, detect_format, is_kernel_log
from ras_triage.service.importing.rasdaemon_db import UnreadableDatabase, read_database
from ras_triage.service.importing.source import ImportSource


@frozen
class RawEvent:
    """An event of this project's own, which has not been read."""

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
"""Of all logs in the records of one store, unpacked; a store has some 100 KiB."""
_LINE_SIZE: Final = 48
"""Bytes that a line of them takes beside its text."""
_STORED: Final = {"machine_check": "an x86 machine check", "unknown": "a section of a type that is not known"}


def read_items(source: ImportSource, form: InputFormat | None, notification: NotificationType | None) -> Iterator[FoundItem]:
    """What is in a file, in its order. Raises Refused where it is longer than may be held.

    `form`: the format, where it is not to be told by the content.
    """
    for found in find_items(source, form, notification):
        yield read_raw(found) if isinstance(found, RawEvent) else found


def find_in(source: ImportSource, form: InputFormat, notification: NotificationType | None) -> Iterator[Found]:
    """Return what is in a file of a format, in its order. Raises Refused where it is longer than may be held."""
    return _READERS[form](source, notification)


def find_items(
    source: ImportSource, form: InputFormat | None, notification: NotificationType | None, find: Find = find_in
) -> Iterator[Any]:  # fmt: skip
    """`read_items` for a caller that reads this project's own events itself. `find`: reads a file whose format is known."""
    if form is None and (table := acpi_table(source.head)) is not None:
        yield UnreadableRecord(Position(offset=0), _why_not(table), "acpi")
        return
    if not source.head.strip():
        yield UnreadableRecord(Position(offset=0), "there is nothing in it", str(form or "unknown"))
        return
    if form is None and source.head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"BZh", b"\xfd7zXZ")):
        yield UnreadableRecord(Position(offset=0), "it is compressed; it has to be unpacked first", "unknown")
        return
    if form is None and source.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield UnreadableRecord(Position(offset=0), "it is text in UTF-16; it has to be turned into UTF-8 first", "unknown")
        return
    told = form or detect_format(source.head, is_whole=source.is_whole)
    found = False
    for item in find(source, told, notification):
        found = True
        yield item
    if found or told not in (InputFormat.KERNEL_LOG, InputFormat.JOURNAL):
        return
    if b"[Hardware Error]" in source.head:
        yield UnreadableRecord(Position(line=1), "lines of this log tell of a hardware error, and no record begins in them", told)
    elif form is None and told is InputFormat.KERNEL_LOG and not is_kernel_log(source.head):
        yield UnreadableRecord(Position(offset=0), "this is none of the formats that can be read", "unknown")


def _why_not(table: str) -> str:
    if table == "HEST":
        return "an error source table holds no error; given as `--hest` it tells how each source notifies"
    return f"an ACPI table `{table}` holds no error"


def _whole(notification: NotificationType | None) -> Notification | None:
    return None if notification is None else Notification(type=notification)


def _kernel_log(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_kernel_log(source.lines(), notification)


def _journal(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    refused = journal.UnreadableLines()
    for found in read_kernel_log(journal.to_kernel_lines(source.lines(), refused), notification):
        yield from _no_entries(refused)
        yield found
    yield from _no_entries(refused)
    if refused.more:
        yield UnreadableRecord(Position(), f"{refused.more} more lines are no entries of a journal in JSON", InputFormat.JOURNAL)


def _no_entries(refused: journal.UnreadableLines) -> Iterator[UnreadableRecord]:
    while refused.numbers:
        yield UnreadableRecord(Position(line=refused.numbers.popleft()), "not an entry of a journal in JSON", InputFormat.JOURNAL)


def _ras_trace(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_trace(source.lines(), notification=_whole(notification))


def _rasdaemon(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    with source.file() as path:
        try:
            yield from read_database(path, notification=_whole(notification))
        except UnreadableDatabase as error:
            yield UnreadableRecord(Position(offset=0), str(error), InputFormat.RASDAEMON)


def _cper(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    data = unpack_encoded(source.everything())
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
    """The records, one behind the other: the offset and bytes of each, and whether Linux wrote it for its persistent store."""
    offset = 0
    while data.startswith(SIGNATURE, offset) and len(data) - offset >= _RECORD_MIN:
        (length,) = _RECORD_LENGTH.unpack_from(data, offset)
        record = data[offset : offset + max(length, _RECORD_MIN)]
        yield offset, record, _is_pstore(record)
        offset += max(length, _RECORD_MIN)


class _Logs:
    """The kernel logs in the records of a store, as many as may be held."""

    def __init__(self) -> None:
        self.records: list[PstoreRecord] = []
        self._room = _MAX_LOG_BYTES

    @property
    def is_full(self) -> bool:
        """Whether no more is unpacked."""
        return self._room <= 0

    def add(self, record: PstoreRecord) -> None:
        """Hold a log; the last may be longer than there is room for."""
        self._room -= sum(map(len, record.lines)) + _LINE_SIZE * len(record.lines)
        self.records.append(record)


def _stored(offset: int, record: bytes, logs: _Logs) -> Iterator[UnreadableRecord]:
    """Put a record of pstore to the logs, and say what cannot be read of it."""
    if logs.is_full:
        yield UnreadableRecord(
            Position(offset=offset), f"the logs before this record are longer than {_MAX_LOG_BYTES} bytes: it is left out", _ERST
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
            yield UnreadableRecord(Position(offset=offset), "the end of the log: it is cut, or longer than it may be", _ERST)
    else:
        yield UnreadableRecord(Position(offset=offset), f"a record of pstore with {_STORED[stored.kind]}, which is not read", _ERST)


def _moved(found: Iterable[FoundError | UnreadableRecord], offset: int) -> Iterator[FoundError | UnreadableRecord]:
    """What was found in bytes that begin at `offset`."""
    for one in found:
        yield replace(one, place=Position(offset=(one.place.offset or 0) + offset))


def _is_pstore(record: bytes) -> bool:
    try:
        return is_pstore(decode_record(record))
    except Exception:  # MalformedBytes, or a defect: it shows again where the record is read
        return False


def _redfish(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_redfish(source.everything(), notification=notification)


def _libcper(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_libcper(source.everything(), notification=notification)


def _qmp(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    yield from read_qmp(source.everything(), notification=_whole(notification))


def _qemu_argument(source: ImportSource, notification: NotificationType | None) -> Iterator[FoundItem]:
    place = Position(offset=0)
    read = partial(read_argument, source.everything(), notification=_whole(notification), place=place)
    yield read_guarded(read, place, InputFormat.QEMU_ARGUMENT)


def _events(source: ImportSource, _: NotificationType | None) -> Iterator[Found]:
    data = source.everything()
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
    """Read an event of this project's own."""
    return read_guarded(partial(_read_event, raw), raw.place, InputFormat.EVENT)


def _read_event(raw: RawEvent) -> FoundError | UnreadableRecord:
    try:
        return FoundError(read_event(raw.document), InputFormat.EVENT, raw.place)
    except ProblemError as refused:
        return UnreadableRecord(raw.place, refused.problem.detail, InputFormat.EVENT)


_READERS: Final[dict[InputFormat, Callable[[ImportSource, NotificationType | None], Iterator[Found]]]] = {
    InputFormat.EVENT: _events,
    InputFormat.CPER: _cper,
    InputFormat.REDFISH: _redfish,
    InputFormat.LIBCPER: _libcper,
    InputFormat.QMP: _qmp,
    InputFormat.QEMU_ARGUMENT: _qemu_argument,
    InputFormat.KERNEL_LOG: _kernel_log,
    InputFormat.JOURNAL: _journal,
    InputFormat.RAS_TRACE: _ras_trace,
    InputFormat.RASDAEMON: _rasdaemon,
}
