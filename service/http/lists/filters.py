"""Query parameters that select decisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Query, Request

from ras_triage.models.decision import Action
from ras_triage.models.errors import suggestion
from ras_triage.models.notification import ALIASES, NotificationType
from ras_triage.models.records.guid import SECTION_NAMES, guid, section_name
from ras_triage.models.scalars import parse_unsigned
from ras_triage.models.severity import SEVERITY_NAMES, severity_name
from ras_triage.policies.catalog.policies import canonical_name
from ras_triage.service.api.problems import ProblemError, invalid_header, invalid_parameter, too_many_counts, truncate_text
from ras_triage.service.api.times import TIME_FORMS, is_age, parse_time
from ras_triage.service.http.dependencies import runtime_of
from ras_triage.service.http.lists.cursors import PageRequest, page_request
from ras_triage.service.store.port import FIELDS, MAX_VALUES, BucketCount, Field, Filter

FILTERS: Final = (*FIELDS, "since", "until")
"""Names of the filter parameters."""

MAX_GROUPS: Final = 3
MAX_COUNTS: Final = 10_000
"""Rows of statistics in one response."""

_MAX_SEVERITY: Final = (1 << 32) - 1

_MAX_DIGITS: Final = 15
"""Of an event id."""

_UNITS: Final = {"minute": 60, "hour": 60 * 60, "day": 24 * 60 * 60, "all": 36_525 * 24 * 60 * 60}
"""Seconds; `all` is one bucket of a century from 1970."""

_LONGEST_BUCKET_S: Final = 366 * 24 * 60 * 60

_UNESCAPED_OFFSET: Final = re.compile(r":[0-9]{2}(?:\.[0-9]+)? [0-9]{2}:?[0-9]{2}$")
"""A time zone whose `+` became a space in a query."""

_ACTIONS: Final = tuple(action.value for action in Action)
_NOTIFICATIONS: Final = tuple(kind.value for kind in NotificationType)


def _parsed(name: str, text: str, parse: Callable[[str], Any], expected: str, known: Iterable[str] = ()) -> Any:
    try:
        return parse(text)
    except (ValueError, OverflowError):
        detail = f"invalid value `{truncate_text(text, 60)}`{suggestion(text, known)}; expected {expected}"
        raise ProblemError(invalid_parameter(name, detail)) from None


def _pieces(name: str, texts: Iterable[str]) -> Iterator[str]:
    """Yield the values of a parameter, which is repeated or has commas. Raises ProblemError for more than MAX_VALUES."""
    pieces = [piece for text in texts for piece in text.split(",")]
    if len(pieces) > MAX_VALUES:
        raise ProblemError(invalid_parameter(name, f"{len(pieces)} values; expected at most {MAX_VALUES}"))
    yield from pieces


def _values(name: str, texts: Iterable[str], parse: Callable[[str], Any], expected: str, known: Iterable[str] = ()) -> tuple[Any, ...]:
    """Return the distinct values of a parameter, sorted. Raises ProblemError, with the nearest of the `known` values."""
    return tuple(sorted({_parsed(name, piece, parse, expected, known) for piece in _pieces(name, texts)}))


def _names(name: str, texts: Iterable[str], known: Sequence[str], resolve: Callable[[str], str] = str) -> tuple[str, ...]:
    """Return the distinct names of a parameter, sorted; `resolve` returns the name for an alias. Raises ProblemError for an unknown one."""
    found = set(map(resolve, _pieces(name, texts)))
    for unknown in sorted(found.difference(known)):
        expected = ", ".join(f"`{one}`" for one in known)
        detail = f"unknown value `{truncate_text(unknown, 60)}`{suggestion(unknown, known)}; expected one of {expected}"
        raise ProblemError(invalid_parameter(name, detail))
    return tuple(sorted(found))


def parse_sources(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the sources of a parameter, and the prefixes: values that end with `*`. Raises ProblemError.

    A value with commas is also taken as a whole, because the name of a source may have them.
    """
    pieces = list(_pieces("source", texts))
    prefixes = {piece[:-1] for piece in pieces if piece.endswith("*")}
    shortest = {prefix for prefix in prefixes if not any(prefix != other and prefix.startswith(other) for other in prefixes)}
    names = {name for name in (*texts, *pieces) if not name.startswith(tuple(shortest))}
    return tuple(sorted(names)), tuple(sorted(shortest))


def parse_addresses(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the addresses of a parameter. Raises ProblemError."""
    return _values("physical_address", texts, _address, "an address of 64 bits such as `0x56edd040`")


def _address(text: str) -> int:
    address = int(text) if text.isdecimal() else int(parse_unsigned(text))
    if not 0 <= address < 1 << 64:
        raise ValueError("out of range")
    return address


def _notification(text: str) -> str:
    """Return the notification type of a name or alias in any letter case."""
    return ALIASES.get(text.lower(), text.lower())


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


RepeatedTexts = tuple[str, ...]
"""Values of a parameter that may be repeated."""

_SEVERAL: Final = "repeat the parameter or separate values by commas for one of several"


def _several(description: str, *examples: str, names: Iterable[str] = ()) -> Any:
    """Return the declaration of a parameter with several values. Its text is checked by the functions above, which name what is close."""
    items = {"type": "string", "enum": list(names)} if names else {"type": "string"}
    return Query(
        description=f"{description}; {_SEVERAL}",
        openapi_examples={one: {"value": [one]} for one in examples},
        json_schema_extra={"items": items, "maxItems": MAX_VALUES},
    )


SourceTexts = Annotated[RepeatedTexts, _several("Source of the event; with `*` at its end a prefix", "node-17", "rack7-*")]
ContainedTexts = Annotated[RepeatedTexts, _several("Address in the poisoned area, in hexadecimal with `0x`, or decimal", "0x56edd040")]
AddressTexts = Annotated[RepeatedTexts, _several("Failing address, in hexadecimal with `0x`, or decimal", "0x56edd040")]
_ActionTexts = Annotated[RepeatedTexts, _several("Action of the decision", "signal", names=_ACTIONS)]
_PolicyTexts = Annotated[RepeatedTexts, _several("Name of the policy", "linux-6.12.107")]
_NotificationTexts = Annotated[RepeatedTexts, _several("Notification type, as in an event", "sea", names=(*_NOTIFICATIONS, *ALIASES))]
_SeverityTexts = Annotated[RepeatedTexts, _several(f"Severity of the status block: {', '.join(SEVERITY_NAMES)}, or a number", "fatal")]
_SectionTexts = Annotated[RepeatedTexts, _several("Section type, as name or GUID", "memory")]


def _time(description: str, *examples: str) -> Any:
    text = f"{description}: RFC 3339, a date (UTC), or an age (a number with `s`, `m`, `h`, `d` or `w`)"
    return Query(description=text, openapi_examples={one: {"value": one} for one in examples})


Since = Annotated[str | None, _time("Decided at this time or later", "1h", "2026-11-28", "2026-11-22T10:00:00Z")]
Until = Annotated[str | None, _time("Decided before this time", "2026-11-29")]
ChangedSince = Annotated[str | None, _time("Changed at this time or later", "7d")]
ChangedUntil = Annotated[str | None, _time("Changed before this time", "2026-11-29")]


def moment(request: Request, name: str, text: str | None) -> int | None:
    """Return the time of a parameter in milliseconds since 1970; None: it is absent. Raises ProblemError."""
    now = runtime_of(request).clock_ms
    forms = f"{TIME_FORMS}; in a URL, `+` is `%2B`" if text is not None and _UNESCAPED_OFFSET.search(text) else TIME_FORMS
    return None if text is None else _parsed(name, text, lambda given: parse_time(given, now()), forms)


def ages_of(request: Request) -> dict[str, str]:
    """Return the parameters that are ages, by the fields of a filter that have their times."""
    given = {name: request.query_params.get(name, "") for name in ("since", "until")}
    return {f"{name}_ms": text for name, text in given.items() if is_age(text)}


async def parse_filter(
    request: Request,
    source: SourceTexts = (),
    action: _ActionTexts = (),
    policy: _PolicyTexts = (),
    notification: _NotificationTexts = (),
    severity: _SeverityTexts = (),
    section: _SectionTexts = (),
    physical_address: AddressTexts = (),
    since: Since = None,
    until: Until = None,
) -> Filter:
    """Return the filter of the parameters. Raises ProblemError."""
    sources, prefixes = parse_sources(source)
    return Filter(
        sources,
        _names("action", action, _ACTIONS),
        tuple(sorted(set(map(canonical_name, _pieces("policy", policy))))),
        _names("notification", notification, _NOTIFICATIONS, _notification),
        _values("severity", severity, _severity, f"one of {', '.join(SEVERITY_NAMES)}, or a number of 32 bits", SEVERITY_NAMES),
        _values("section", section, _section, "the name of a section type such as `memory`, or its GUID", SECTION_NAMES.values()),
        parse_addresses(physical_address),
        moment(request, "since", since),
        moment(request, "until", until),
        prefixes,
    )


FilterOf = Annotated[Filter, Depends(parse_filter)]


CursorText = Annotated[str | None, Query(description="Cursor of a page, from `next` or `Link`; with the filters of that list")]


async def _page_request(request: Request, filters: FilterOf, cursor: CursorText = None) -> PageRequest[Filter]:
    return page_request(filters, cursor, (int, int), ages_of(request))


PageRequestOf = Annotated[PageRequest[Filter], Depends(_page_request)]


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


async def _bucket(bucket: Annotated[str, Query(description="minute, hour, day, a number of seconds, or all: one bucket")] = "hour") -> int:
    if bucket in _UNITS:
        return _UNITS[bucket] * 1000
    seconds = int(bucket) if bucket.isdecimal() and len(bucket) < 10 else 0
    if not 0 < seconds <= _LONGEST_BUCKET_S:
        raise ProblemError(invalid_parameter("bucket", f"expected {', '.join(_UNITS)}, or a number of seconds up to {_LONGEST_BUCKET_S}"))
    return seconds * 1000


BucketOf = Annotated[int, Depends(_bucket)]
"""Milliseconds."""


_GroupTexts = Annotated[
    RepeatedTexts,
    Query(
        description=f"One to {MAX_GROUPS} fields; repeat the parameter or separate them by commas",
        json_schema_extra={"items": {"type": "string", "enum": list(FIELDS)}, "maxItems": MAX_GROUPS},
    ),
]


async def _group_by(group_by: _GroupTexts = ("action",)) -> tuple[Field, ...]:
    names = [name for text in group_by for name in text.split(",")]
    for name in names:
        if name not in FIELDS:
            detail = f"unknown field `{truncate_text(name, 60)}`{suggestion(name, FIELDS)}; expected one to three of {', '.join(FIELDS)}"
            raise ProblemError(invalid_parameter("group_by", detail))
    fields = tuple(field for name in names for field in FIELDS if field == name)
    if len(set(fields)) != len(fields) or len(fields) > MAX_GROUPS:
        raise ProblemError(invalid_parameter("group_by", f"expected one to {MAX_GROUPS} different fields of {', '.join(FIELDS)}"))
    return fields


GroupByOf = Annotated[tuple[Field, ...], Depends(_group_by)]


def filled_buckets(counts: Sequence[BucketCount], filters: Filter, bucket_ms: int, now_ms: int) -> range:
    """Return the starts of all buckets from `since` or the first decision to `until` or now. Raises ProblemError if they are many."""
    first = filters.since_ms if filters.since_ms is not None else counts[0].bucket_ms if counts else now_ms
    end = filters.until_ms if filters.until_ms is not None else max(now_ms, counts[-1].bucket_ms if counts else 0) + 1
    starts = range(first // bucket_ms * bucket_ms, end, bucket_ms)
    if len(starts) > MAX_COUNTS:
        raise ProblemError(too_many_counts(MAX_COUNTS))
    return starts
