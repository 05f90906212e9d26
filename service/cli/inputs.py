"""What the command line is given: files, standard input, and the events in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import MAX_BLOCK_BYTES, Event
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.cper_record import decode_record, notification_name, to_status_block
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError, malformed, too_large, unreadable, unrecognised
from ras_triage.service.engine.input_detection import DetectedInput, InputKind, detect_input

STANDARD_INPUT = "-"


def opened(path: str) -> AbstractContextManager[BinaryIO]:
    """The file, or standard input for `-`. Raises Refused where it cannot be opened."""
    if path == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    try:
        return open(path, "rb")
    except OSError as error:
        raise ProblemError(unreadable(path, (error.strerror or "cannot be read").lower())) from None


def read_all(path: str, limit: int) -> bytes:
    """Everything in the file. Raises Refused, also where it is longer than `limit` bytes."""
    with opened(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise ProblemError(too_large(limit))
    return data


def read_lines(stream: BinaryIO, limit: int) -> Iterator[bytes | None]:
    """The lines that are not blank; None for one that is longer than `limit` bytes."""
    while line := stream.readline(limit + 1):
        if len(line) > limit and not line.endswith(b"\n"):
            _skip_line(stream, limit)
            yield None
        elif line.strip():
            yield line


def _skip_line(stream: BinaryIO, limit: int) -> None:
    while (rest := stream.readline(limit)) and not rest.endswith(b"\n"):
        pass


def _sniff(data: bytes) -> DetectedInput:
    """`sniff` for a file, where text that stands for nothing is a mistake and not a status block."""
    found = detect_input(data)
    if found.kind is InputKind.STATUS_BLOCK and found.data is data and _is_text(data):
        raise ProblemError(unrecognised())
    return found


def _is_text(data: bytes) -> bool:
    """A status block has bytes that are zero; a text has none."""
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def to_bytes(data: bytes) -> DetectedInput:
    """The status block or CPER record in a file; of an event, its status block. Raises Refused."""
    found = _sniff(data)
    if found.kind is not InputKind.JSON:
        return found
    return DetectedInput(InputKind.STATUS_BLOCK, read_event(data).status_block or b"")


def to_event(data: bytes) -> tuple[Event, bool]:
    """The event in a file, and whether the file says how it was notified. Raises Refused.

    A CPER record's notification type is taken where it is one that HEST has too.
    """
    found = _sniff(data)
    if found.kind is InputKind.JSON:
        return read_event(data), True
    if found.kind is InputKind.STATUS_BLOCK:
        return _event(found.data, None), False
    try:
        record = decode_record(found.data)
        notification = _hest_type(notification_name(record.notification_type))
        return _event(to_status_block(record), notification), notification is not None
    except MalformedBytes as error:
        raise ProblemError(malformed(error)) from None


def _hest_type(name: str) -> NotificationType | None:
    return next((kind for kind in NotificationType if kind.value == name), None)


def _event(block: bytes, notification: NotificationType | None) -> Event:
    if len(block) > MAX_BLOCK_BYTES:
        raise ProblemError(too_large(MAX_BLOCK_BYTES))
    return Event(notification=Notification(type=notification or DEFAULT_NOTIFICATION), status_block=block)
