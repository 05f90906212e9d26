"""QEMU error injection command `inject-ghes-v2-error`: parser and writer.

Source: qapi/acpi-hest.json, QEMU 10.2. The argument `cper` is base64 of a status block with one data entry, not of a CPER record. QEMU
checks only its length.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from ras_triage.models.event import Event
from ras_triage.models.formats.json_text import MAX_CONTAINERS, MAX_VALUES
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord, read_guarded
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.observed import AssumedField

FORMAT = "qemu_injection"
COMMAND = "inject-ghes-v2-error"

MAX_BLOCK = 1024
"""Most bytes of a status block in QEMU (ACPI_GHES_MAX_RAW_DATA_LENGTH, hw/acpi/ghes.c)."""

NOTIFICATION = Notification(type=NotificationType.GPIO, source_id=1, ghes_version=2, error_block_length=MAX_BLOCK)
"""Notification of an injected error by a virt machine of QEMU 10.2 and later: source 1, through a generic event device."""
_BECAUSE = (
    "a virt machine of QEMU 10.2 or later injects through its source 1, a GHESv2 source notified by GPIO; older ones have no such source"
)

LOST = ("the guest's machine type: before 10.2 the block is reported through the source for aborts",)


class NotInjectable(ValueError):
    """An event that QEMU cannot inject; the text is the reason."""


def read_argument(
    text: str | bytes, *, notification: Notification | None = None, place: Position | None = None
) -> FoundError | UnreadableRecord:
    """Parse the base64 of a `cper` argument, as QEMU does; white space in it is ignored."""
    place = place or Position()
    packed = "".join((text.decode("latin-1") if isinstance(text, bytes) else text).split())
    try:
        block = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        return UnreadableRecord(place, "the argument is not base64", FORMAT)
    if not block:
        return UnreadableRecord(place, "the argument is empty", FORMAT)
    lost: tuple[str, ...] = LOST
    if len(block) > MAX_BLOCK:
        lost += (f"the injection: QEMU rejects a block of {len(block)} bytes, more than {MAX_BLOCK}",)
    return to_found_error(block, notification, place, lost)


def to_found_error(
    block: bytes, notification: Notification | None, place: Position, lost: tuple[str, ...], assumed: tuple[AssumedField, ...] = ()
) -> FoundError | UnreadableRecord:
    """Return the event of an injected block."""
    defaults = () if notification else _assumed_notification()
    try:
        event = Event(notification=notification or NOTIFICATION, status_block=block)
    except ValueError:
        return UnreadableRecord(place, "the status block is longer than an event allows", FORMAT)
    return FoundError(event, FORMAT, place, (*defaults, *assumed), lost)


def _assumed_notification() -> tuple[AssumedField, ...]:
    content = NOTIFICATION.model_dump(mode="json", include={"type", "source_id", "ghes_version", "error_block_length"})
    return tuple(AssumedField(f"/notification/{name}", str(taken), _BECAUSE) for name, taken in content.items())


def read_qmp(text: str | bytes, *, notification: Notification | None = None) -> Iterator[FoundError | UnreadableRecord]:
    """Yield the injections in a sequence of QMP messages, such as a recorded session.

    Other commands and QEMU's responses are skipped. Parsing stops at the first text that is not JSON, which is reported as unreadable.
    """
    content = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    if content.count(",") > MAX_VALUES or content.count("[") + content.count("{") > MAX_CONTAINERS:
        yield UnreadableRecord(Position(line=1), f"more than {MAX_VALUES} values or {MAX_CONTAINERS} objects and arrays", FORMAT)
        return
    decoder = json.JSONDecoder()
    offset, line = _skip(content, 0), 1 + content.count("\n", 0, _skip(content, 0))
    while offset < len(content):
        place = Position(line=line)
        try:
            message, end = decoder.raw_decode(content, offset)
        except (ValueError, RecursionError):
            yield UnreadableRecord(place, "expected a JSON message", FORMAT)
            return
        if isinstance(message, dict) and message.get("execute") == COMMAND:
            yield read_guarded(partial(_read_command, message, notification, place), place, FORMAT)
        behind = _skip(content, end)
        offset, line = behind, line + content.count("\n", offset, behind)


def _skip(text: str, offset: int) -> int:
    while offset < len(text) and text[offset] in " \t\r\n,":
        offset += 1
    return offset


def _read_command(message: dict[str, Any], notification: Notification | None, place: Position) -> FoundError | UnreadableRecord:
    arguments = message.get("arguments")
    cper = arguments.get("cper") if isinstance(arguments, dict) else None
    if not isinstance(cper, str):
        return UnreadableRecord(place, "the command needs a string argument `cper`", FORMAT)
    return read_argument(cper, notification=notification, place=place)


def to_argument(event: Event) -> str:
    """Return the event's status block as a `cper` argument. Raises NotInjectable.

    Other facts of the event are not written: QEMU chooses the notification.
    """
    return base64.b64encode(require_status_block(event)).decode()


def require_status_block(event: Event) -> bytes:
    """Return the event's status block. Raises NotInjectable if there is none, or if it is too long for QEMU."""
    block = event.status_block
    if not block:
        raise NotInjectable("the event has no status block")
    if len(block) > MAX_BLOCK:
        raise NotInjectable(f"the status block has {len(block)} bytes; QEMU accepts at most {MAX_BLOCK}")
    return block


def to_qmp(event: Event) -> str:
    """Return the QMP command that injects the event, as one line of JSON. Raises NotInjectable."""
    return json.dumps({"execute": COMMAND, "arguments": {"cper": to_argument(event)}})
