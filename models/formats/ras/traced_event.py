"""Conversion of a RAS trace event into an event, for trace text and rasdaemon.

A trace event contains one section of a record and nothing of the status block around it; the missing parts are listed as assumptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from ras_triage.models.event import Event
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.formats.results import FoundError, Position, UnreadableRecord
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.observed import AssumedField
from ras_triage.models.records.checked_sections import encode_sections, make_section
from ras_triage.models.severity import GhesSeverity, Severity
from ras_triage.models.times import to_utc

LOST = ("the HEST source id", "the block status", "the section's flags, containment warning among them")
"""Parts of a record that no RAS trace event contains."""

_ASSUMED_NOTIFICATION = Notification(type=DEFAULT_NOTIFICATION)
_ASSUMED_TYPE = AssumedField(
    "/notification/type", DEFAULT_NOTIFICATION.value, "the source has no notification type; an ordinary interrupt is assumed"
)
_ISO_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{2}[0-5][0-9]")
"""The time as rasdaemon writes it: `fromisoformat` parses it in a tenth of the time that `strptime` takes, which is the fallback."""
_TIME = "%Y-%m-%d %H:%M:%S %z"
_INTEGER = re.compile(r"\s*(-?)(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})\s*")


@frozen
class UnmatchedRow:
    """A row or line that cannot become an event, unchanged."""

    place: Position
    format: str
    table: str
    """The table or trace event."""
    id: int | None
    fields: tuple[tuple[str, object], ...]
    """Names and values in the order of the source; the values are None, int, float, str or bytes."""
    kind: Literal["observation", "raw"]
    """`observation`: an action of the kernel. `raw`: anything else."""


TraceItem = FoundError | UnreadableRecord | UnmatchedRow


@frozen
class TracedError:
    """One error of a trace event or table row."""

    section: Mapping[str, Any]
    """The section's fields, without its severity."""
    severity: int | None
    """CPER severity of the section; None if the source has none."""
    lost: tuple[str, ...] = ()
    assumed: tuple[AssumedField, ...] = ()


FieldReader = Callable[[Mapping[str, object]], TracedError]
"""Parser of the fields of one kind of event. Raises InvalidFieldError."""


class InvalidFieldError(ValueError):
    """A source field with an invalid value; the text names the field and the reason."""


@frozen
class TraceSource:
    """Where an error comes from, and the caller's notification type."""

    format: str
    place: Position
    time: datetime | None = None
    notification: Notification | None = None
    lost: tuple[str, ...] = ()


def to_found_error(error: TracedError, source: TraceSource) -> FoundError:
    """Convert one error. Raises ValueError if the section cannot be encoded."""
    block_severity, assumed = _severities(error.severity)
    section = {**error.section, "severity": block_severity if error.severity is None else error.severity}
    if source.notification is None:
        assumed = (_ASSUMED_TYPE, *assumed)
    event = Event(
        time=source.time,
        notification=source.notification or _ASSUMED_NOTIFICATION,
        status_block=encode_sections(block_severity, (make_section(section),)),
    )
    return FoundError(event, source.format, source.place, (*assumed, *error.assumed), (*LOST, *source.lost, *error.lost))


def read_error(read: FieldReader, fields: Mapping[str, object], source: TraceSource) -> FoundError | UnreadableRecord:
    """Return the error that fields have, or the reason why it cannot be read or converted."""
    try:
        return to_result(read(fields), source)
    except InvalidFieldError as bad:
        return UnreadableRecord(source.place, str(bad), source.format)


def to_result(error: TracedError, source: TraceSource) -> FoundError | UnreadableRecord:
    """Return the error as an event, or the reason why it cannot be converted."""
    try:
        return to_found_error(error, source)
    except ValueError:
        # Single fields were checked before: only contradicting fields or an oversized block remain.
        return UnreadableRecord(source.place, "the section cannot be encoded: fields contradict each other or are too long", source.format)


@lru_cache(maxsize=16)
def _severities(section: int | None) -> tuple[int, tuple[AssumedField, ...]]:
    """Return the block severity for a section severity, and the assumptions made for it."""
    field = "/status_block/severity"
    if section is None:
        return Severity.RECOVERABLE, (
            AssumedField(field, "recoverable", "the source has no severity; recoverable is the mildest that requires an action"),
            AssumedField("/status_block/sections/0/severity", "recoverable", "the source has no severity"),
        )
    if section == Severity.FATAL:
        because = "the kernel panics on a fatal block before it traces any section, so this block was not fatal"
        return Severity.RECOVERABLE, (AssumedField(field, "recoverable", because),)
    name = Severity(section).name.lower()
    return section, (AssumedField(field, name, "the source has only the section severity"),)


def section_severity(ghes: int) -> int:
    """Return the CPER severity for a GHES severity (`ghes_severity`). Raises InvalidFieldError for any other number."""
    ranks = {
        GhesSeverity.NO: Severity.INFORMATIONAL,
        GhesSeverity.CORRECTED: Severity.CORRECTED,
        GhesSeverity.RECOVERABLE: Severity.RECOVERABLE,
        GhesSeverity.PANIC: Severity.FATAL,
    }
    if ghes not in ranks:
        raise InvalidFieldError(f"`severity`: {ghes} is not a GHES severity; expected 0 to 3")
    return ranks[GhesSeverity(ghes)]


def read_time(text: str | None) -> datetime | None:
    """Return a time in rasdaemon's format (`%Y-%m-%d %H:%M:%S %z`); None if it is malformed or out of range in UTC."""
    written = (text or "").strip()
    try:
        moment = datetime.fromisoformat(written) if _ISO_TIME.fullmatch(written) else datetime.strptime(written, _TIME)
        to_utc(moment)
        return moment
    except (ValueError, OverflowError):
        return None


def integer(fields: Mapping[str, object], name: str, bits: int = 64) -> int | None:
    """Return an unsigned number of `bits` bits that may be stored signed; None if it is absent. Raises InvalidFieldError."""
    value = fields.get(name)
    if value is None:
        return None
    number = value if type(value) is int else _number(value)
    if number is None or not -(1 << bits - 1) <= number < 1 << bits:
        raise InvalidFieldError(f"`{name}` is not a number of {bits} bits")
    return number & (1 << bits) - 1


def _number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    match = _INTEGER.fullmatch(text) if isinstance(text, str) and len(text) < 32 else None
    return int(match[1] + match[2], 16 if match[2][:2].lower() == "0x" else 10) if match else None


def text(fields: Mapping[str, object], name: str) -> str | None:
    """Return text up to the first NUL; None if it is absent. Raises InvalidFieldError."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise InvalidFieldError(f"`{name}` is not text")
    return value.partition("\0")[0]


def blob(fields: Mapping[str, object], name: str) -> bytes:
    """Return bytes, empty if they are absent. Raises InvalidFieldError."""
    value = fields.get(name)
    if isinstance(value, str):
        # SQLite returns a value that was stored as text as text, whatever the column type.
        value = value.encode("utf-8", "surrogateescape")
    if value is not None and not isinstance(value, bytes):
        raise InvalidFieldError(f"`{name}` is not a blob")
    return value or b""


def quoted(text: str, limit: int = 80) -> str:
    """Return text of the source for a message: in backticks, printable, at most `limit` characters."""
    if len(text) <= limit and text.isprintable() and "`" not in text:
        return f"`{text}`"
    shown = "".join(character if character.isprintable() and character != "`" else "?" for character in text[:limit])
    return f"`{shown}{'…' if len(text) > limit else ''}`"
