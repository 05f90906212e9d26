"""What the kernel's RAS trace events say of one error, whoever kept it: rasdaemon's tables and trace text lead here.

A trace event carries one section of a record and nothing of the block around it, so an event made of it names what was taken instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from ras_triage.models.event import Event
from ras_triage.models.formats.items import FoundError, Position, UnreadableRecord
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.severity import GhesSeverity, Severity
from ras_triage.models.times import to_utc

LOST = ("the HEST source id", "the block status", "the section's flags, containment warning among them")
"""What no RAS trace event carries."""

_TIME = "%Y-%m-%d %H:%M:%S %z"
_INTEGER = re.compile(r"\s*(-?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\s*")


@frozen
class UnmatchedRow:
    """A row or line that is no error to decide on, kept as it stands."""

    place: Position
    format: str
    table: str
    """The table or trace event."""
    id: int | None
    fields: tuple[tuple[str, object], ...]
    """Names and values in the order of the source; the values are None, int, float, str or bytes."""
    kind: Literal["observation", "raw"]
    """An observation says what the kernel did; raw is everything that has no place in an event."""


@frozen
class TracedError:
    """What a source says of one error."""

    section: Mapping[str, Any]
    """The section, structured, without its severity."""
    severity: int | None
    """The section's, as CPER numbers them; None where the source has none."""
    lost: tuple[str, ...] = ()
    assumed: tuple[AssumedField, ...] = ()


class BadField(ValueError):
    """A field of the source that does not hold what it should; its text says which and why."""


@frozen
class TraceSource:
    """Where a reading comes from, and what the caller knows better."""

    format: str
    place: Position
    time: datetime | None = None
    notification: Notification | None = None
    lost: tuple[str, ...] = ()


def to_reading(found: TracedError, source: TraceSource) -> FoundError:
    """The event of one error. Raises ValueError where the section cannot be encoded."""
    block_severity, assumed = _severities(found.severity)
    section = {**found.section, "severity": block_severity if found.severity is None else found.severity}
    if source.notification is None:
        told = "nothing in the source says how the error was notified; an ordinary interrupt was taken"
        assumed = (AssumedField("/notification/type", DEFAULT_NOTIFICATION.value, told), *assumed)
    event = Event(
        time=source.time,
        notification=source.notification or Notification(type=DEFAULT_NOTIFICATION),
        status_block=encode_structured({"severity": block_severity, "sections": [section]}),
    )
    return FoundError(event, source.format, source.place, (*assumed, *found.assumed), (*LOST, *source.lost, *found.lost))


def read_or_refuse(found: TracedError | BadField, source: TraceSource) -> FoundError | UnreadableRecord:
    """The reading, or why there is none."""
    if isinstance(found, BadField):
        return UnreadableRecord(source.place, str(found), source.format)
    try:
        return to_reading(found, source)
    except ValueError:
        # The fields are checked one by one before; what is left are fields that contradict each other or a block beyond all bounds.
        return UnreadableRecord(source.place, "the fields do not make a section: they contradict each other or are too long", source.format)


def _severities(section: int | None) -> tuple[int, tuple[AssumedField, ...]]:
    """The block's severity for a section's, and what had to be assumed for it."""
    field = "/status_block/severity"
    if section is None:
        return Severity.RECOVERABLE, (
            AssumedField(field, "recoverable", "the source has no severity; recoverable is the one that asks for something to be done"),
            AssumedField("/status_block/sections/0/severity", "recoverable", "the source has no severity"),
        )
    if section == Severity.FATAL:
        because = "the kernel panics on a fatal block before it traces a section, and lived to trace this one"
        return Severity.RECOVERABLE, (AssumedField(field, "recoverable", because),)
    name = Severity(section).name.lower()
    return section, (AssumedField(field, name, "the source has the section's severity only"),)


def section_severity(ghes: int) -> int:
    """The CPER severity that Linux ranks so (`ghes_severity`). Raises BadField for a rank off the list."""
    ranks = {
        GhesSeverity.NO: Severity.INFORMATIONAL,
        GhesSeverity.CORRECTED: Severity.CORRECTED,
        GhesSeverity.RECOVERABLE: Severity.RECOVERABLE,
        GhesSeverity.PANIC: Severity.FATAL,
    }
    if ghes not in ranks:
        raise BadField(f"the severity {ghes} is none of Linux's four")
    return ranks[GhesSeverity(ghes)]


def read_time(text: str | None) -> datetime | None:
    """Return the moment that rasdaemon writes (`strftime` with `%Y-%m-%d %H:%M:%S %z`); None where it is none, or none that UTC has."""
    try:
        moment = datetime.strptime((text or "").strip(), _TIME)
        to_utc(moment)
        return moment
    except (ValueError, OverflowError):
        return None


def integer(fields: Mapping[str, object], name: str, bits: int = 64) -> int | None:
    """An unsigned number of `bits` bits that may have been stored signed; None where it is absent. Raises BadField."""
    found = fields.get(name)
    if found is None:
        return None
    number = _number(found)
    if number is None or not -(1 << bits - 1) <= number < 1 << bits:
        raise BadField(f"`{name}` is not a number of {bits} bits")
    return number & (1 << bits) - 1


def _number(found: object) -> int | None:
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    text = found.decode("latin-1") if isinstance(found, bytes) else found
    match = _INTEGER.fullmatch(text) if isinstance(text, str) and len(text) < 32 else None
    return int(match[1] + match[2], 16 if match[2][:2].lower() == "0x" else 10) if match else None


def text(fields: Mapping[str, object], name: str) -> str | None:
    """Text up to the first NUL; None where it is absent. Raises BadField."""
    found = fields.get(name)
    if found is None:
        return None
    if isinstance(found, bytes):
        found = found.decode("utf-8", "replace")
    if not isinstance(found, str):
        raise BadField(f"`{name}` is not text")
    return found.partition("\0")[0]


def blob(fields: Mapping[str, object], name: str) -> bytes:
    """Bytes, empty where they are absent. Raises BadField."""
    found = fields.get(name)
    if isinstance(found, str):
        # SQLite hands out what was stored as text as text, whatever the column's type.
        found = found.encode("utf-8", "surrogateescape")
    if found is not None and not isinstance(found, bytes):
        raise BadField(f"`{name}` is not a blob")
    return found or b""


def quoted(found: str, limit: int = 80) -> str:
    """Text of the source for a phrase: in backticks, printable, and not longer than `limit` characters."""
    shown = "".join(character if character.isprintable() and character != "`" else "?" for character in found[:limit])
    return f"`{shown}{'…' if len(found) > limit else ''}`"
