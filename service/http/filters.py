"""Query parameters that select decisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Query

from ras_triage.models.decision import Action
from ras_triage.models.notification import NotificationName
from ras_triage.models.records.guid import SECTION_NAMES, guid, section_name
from ras_triage.models.scalars import parse_unsigned
from ras_triage.models.severity import SEVERITY_NAMES, severity_name
from ras_triage.service.api.problems import ProblemError, invalid_header, invalid_parameter
from ras_triage.service.api.times import parse_rfc3339
from ras_triage.service.http.summaries import read_cursor
from ras_triage.service.store.port import FIELDS, Cursor, Field, Filter

FILTERS: Final = (*FIELDS, "since", "until")
"""Names of the filter parameters."""

MAX_GROUPS: Final = 2
MAX_COUNTS: Final = 10_000
"""Rows of statistics in one response."""

_MAX_SEVERITY: Final = (1 << 32) - 1
_MAX_DIGITS: Final = 15
"""Of an event id."""

_UNITS: Final = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60}
_LONGEST_BUCKET_S: Final = 366 * 24 * 60 * 60


def _parsed(name: str, text: str | None, parse: Callable[[str], Any], expected: str) -> Any:
    try:
        return None if text is None else parse(text)
    except (ValueError, OverflowError):
        raise ProblemError(invalid_parameter(name, f"expected {expected}")) from None


def _address(text: str) -> int:
    address = int(text) if text.isdecimal() else int(parse_unsigned(text))
    if not 0 <= address < 1 << 64:
        raise ValueError("out of range")
    return address


def _severity(text: str) -> str:
    """Return the severity as a list shows it."""
    if text in SEVERITY_NAMES:
        return text
    if not text.isdecimal() or int(text) > _MAX_SEVERITY:
        raise ValueError("neither a name nor a number")
    return severity_name(int(text))


def _section(text: str) -> str:
    """Return the section type as a list shows it: by its name if it has one."""
    return text if text in SECTION_NAMES.values() else section_name(guid(text))


async def _filter(
    source: str | None = None,
    action: Annotated[Action | None, Query(description="Action of the decision")] = None,
    policy: str | None = None,
    notification: Annotated[NotificationName | None, Query(description="Notification type, as in an event")] = None,
    severity: Annotated[
        str | None, Query(description="Severity of the status block: recoverable, fatal, corrected, informational, or a number")
    ] = None,
    section: Annotated[str | None, Query(description="Section type, as name or GUID")] = None,
    physical_address: Annotated[str | None, Query(description="Failing address, in hexadecimal with `0x`, or decimal")] = None,
    since: Annotated[str | None, Query(description="Decided at this time or later; RFC 3339")] = None,
    until: Annotated[str | None, Query(description="Decided before this time; RFC 3339")] = None,
) -> Filter:
    time = "an RFC 3339 time such as `2026-11-22T10:00:00Z`"
    return Filter(
        source,
        action,
        policy,
        notification,
        _parsed("severity", severity, _severity, f"one of {', '.join(SEVERITY_NAMES)}, or a number of 32 bits"),
        _parsed("section", section, _section, "the name of a section type such as `memory`, or its GUID"),
        _parsed("physical_address", physical_address, _address, "an address of 64 bits such as `0x56edd040`"),
        _parsed("since", since, parse_rfc3339, time),
        _parsed("until", until, parse_rfc3339, time),
    )


FilterOf = Annotated[Filter, Depends(_filter)]


async def _cursor(cursor: Annotated[str | None, Query(description="Cursor of a page, from `next` or `Link`")] = None) -> Cursor | None:
    found: Cursor | None = _parsed("cursor", cursor, read_cursor, "a cursor from `next` or `Link` of an earlier page")
    return found


CursorOf = Annotated[Cursor | None, Depends(_cursor)]


LAST_EVENT_ID: Final = "last_event_id"
"""Query parameter in place of the header."""

_RESUME: Final = "Resume after this `id`; without it, start with new decisions"
_RESUME_NEW: Final = "The same, for a new EventSource, which cannot send the header; the header takes precedence"


async def _last_event_id(
    header: Annotated[str | None, Header(alias="last-event-id", description=_RESUME)] = None,
    parameter: Annotated[str | None, Query(alias=LAST_EVENT_ID, description=_RESUME_NEW)] = None,
) -> int | None:
    """Return the sequence number to resume after. A browser that reconnects sends the parameter again and the header with a later id."""
    text = parameter if header is None else header
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        fault = "invalid event id; expected the `id` of an event of this stream"
        raise ProblemError(invalid_parameter(LAST_EVENT_ID, fault) if header is None else invalid_header("Last-Event-ID", fault))
    return int(text)


LastEventIdOf = Annotated[int | None, Depends(_last_event_id)]


async def _bucket(bucket: Annotated[str, Query(description="minute, hour, day, or a number of seconds")] = "hour") -> int:
    seconds = _UNITS.get(bucket) or (int(bucket) if bucket.isdecimal() and len(bucket) < 10 else 0)
    if not 0 < seconds <= _LONGEST_BUCKET_S:
        raise ProblemError(invalid_parameter("bucket", f"expected {', '.join(_UNITS)}, or a number of seconds up to {_LONGEST_BUCKET_S}"))
    return seconds * 1000


BucketOf = Annotated[int, Depends(_bucket)]
"""Milliseconds."""


async def _group_by(
    group_by: Annotated[str, Query(description="One or two fields, separated by a comma")] = "action",
) -> tuple[Field, ...]:
    fields = tuple(field for name in group_by.split(",") for field in FIELDS if field == name)
    if len(fields) != group_by.count(",") + 1 or len(set(fields)) != len(fields) or len(fields) > MAX_GROUPS:
        raise ProblemError(invalid_parameter("group_by", f"expected one or two of {', '.join(FIELDS)}"))
    return fields


GroupByOf = Annotated[tuple[Field, ...], Depends(_group_by)]
