"""Input files and standard input of commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import MAX_BLOCK_BYTES, Event
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION, EVENT_TYPES
from ras_triage.models.formats.status_blocks import find_blocks
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import decode_record, to_status_block
from ras_triage.models.scalars import HexadecimalBytes
from ras_triage.policies.alternatives import NOTIFICATION_TYPE
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError, malformed, too_large, unreadable, unrecognised
from ras_triage.service.engine.input_detection import DetectedInput, InputKind, detect_input

STANDARD_INPUT = "-"


def open_input(path: str) -> AbstractContextManager[BinaryIO]:
    """Open a file, or standard input for `-`. Raises ProblemError."""
    if path == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")
    except OSError as error:
        raise ProblemError(unreadable(path, (error.strerror or "cannot be read").lower())) from None


def read_all(path: str, limit: int) -> bytes:
    """Return the content of a file. Raises ProblemError, also if it is longer than `limit` bytes."""
    with open_input(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ProblemError(too_large(limit))
    return data


def read_lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """Yield the lines that are not blank; None for a line longer than `limit` bytes."""
    while line := stream.readline(limit + 1):
        if len(line) > limit and not line.endswith(b"\n"):
            _skip_line(stream, limit)
            yield None
        elif line.strip():
            yield line


def _skip_line(stream: BinaryIO, limit: int) -> None:
    while (rest := stream.readline(limit)) and not rest.endswith(b"\n"):
        pass


def _detect(data: bytes) -> DetectedInput:
    """Detect the kind of a file. Raises ProblemError for text that is neither JSON nor encoded bytes."""
    found = detect_input(data)
    if found.kind is InputKind.STATUS_BLOCK and found.data is data and _is_text(data):
        raise ProblemError(unrecognised())
    return found


def _is_text(data: bytes) -> bool:
    """Return whether data is UTF-8 text; a status block has zero bytes, a text has none."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def to_bytes(data: bytes) -> DetectedInput:
    """Return the status block or CPER record in a file; of an event, its status block. Raises ProblemError."""
    found = _detect(data)
    if found.kind is not InputKind.JSON:
        return found
    return DetectedInput(InputKind.STATUS_BLOCK, read_event(data).status_block or b"")


def to_event(data: bytes) -> Event:
    """Return the event in a file; for a record without a notification type it is in `assumed`. Raises ProblemError.

    The notification type of a CPER record is used if an event has it, too.
    """
    found = _detect(data)
    if found.kind is InputKind.JSON:
        return read_event(data)
    if found.kind is InputKind.STATUS_BLOCK:
        return _event(found.data, None)
    try:
        record = decode_record(found.data)
        block = to_status_block(record)
    except MalformedBytes as error:
        raise ProblemError(malformed(error)) from None
    is_hexadecimal = isinstance(found.data, HexadecimalBytes)
    return _event(HexadecimalBytes(block) if is_hexadecimal else block, EVENT_TYPES.get(record.notification_type))


def count_blocks(data: bytes) -> int:
    """Return the number of status blocks in a file, which is 0 or 1 except for the records of the previous boot."""
    found = detect_input(data)
    return len(find_blocks(found.data)[0]) if found.kind is InputKind.STATUS_BLOCK else 0


def _event(block: bytes, notification: NotificationType | None) -> Event:
    if len(block) > MAX_BLOCK_BYTES:
        raise ProblemError(too_large(MAX_BLOCK_BYTES))
    assumed = (NOTIFICATION_TYPE,) if notification is None else None
    return Event(notification=Notification(type=notification or DEFAULT_NOTIFICATION), status_block=block, assumed=assumed)
