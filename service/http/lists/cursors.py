"""Cursors of pages: opaque to clients, and bound to the filters of their list."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar
from zlib import crc32

from pydantic_core import from_json, to_json

from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import ProblemError, invalid_parameter
from ras_triage.service.store.port import Filter, HostFilter, PoisonFilter

F = TypeVar("F", Filter, HostFilter, PoisonFilter)

Value = Any
"""A text or number, as the shape of the position says."""

NO_AGES: Final[Mapping[str, str]] = MappingProxyType({})

_LARGEST: Final = 1 << 53


@frozen
class PageRequest(Generic[F]):
    """Request for a page."""

    filters: F
    position: tuple[Value, ...] | None
    """Of the last row of the page before; None: first page."""
    digest: int
    """Of the filters, with ages as they are written."""
    times: tuple[int | None, ...]
    """Times of `since` and `until` that are ages, in milliseconds since 1970: they are the same for all pages; None: others."""

    def cursor(self, *position: Value) -> str:
        """Return the cursor of the page after a position."""
        return _encode(to_json([position, self.digest, self.times]))


def page_request(filters: F, cursor: str | None, shape: Sequence[type], ages: Mapping[str, str] = NO_AGES) -> PageRequest[F]:
    """Return the request for the page of a cursor. Raises ProblemError for one that is invalid or of a list with other filters.

    `shape`: types of the values of a position. `ages`: parameters that are ages, by the fields of `filters` that have their times.
    """
    without_ages: dict[str, Any] = dict.fromkeys(ages)
    fixed = replace(filters, **without_ages)
    digest = crc32(repr((fixed, sorted(ages.items()))).encode(errors="surrogatepass"))
    names = ("since_ms", "until_ms")
    if cursor is None:
        return PageRequest(filters, None, digest, tuple(getattr(filters, name) if name in ages else None for name in names))
    try:
        position, of_digest, times = _read(cursor, shape)
    except (ValueError, OverflowError):
        raise ProblemError(invalid_parameter("cursor", "expected a cursor from `next` or `Link` of an earlier page")) from None
    if of_digest not in (None, digest):
        detail = "the cursor is of a list with other filters; expected the filters of the page that it is from, or no cursor"
        raise ProblemError(invalid_parameter("cursor", detail))
    known: dict[str, Any] = {name: time for name, time in zip(names, times, strict=True) if name in ages and time is not None}
    return PageRequest(replace(filters, **known), position, digest, times)


def _read(text: str, shape: Sequence[type]) -> tuple[tuple[Value, ...], int | None, tuple[int | None, ...]]:
    """Return position, digest and times of a cursor. Raises ValueError."""
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(data) != text:
        raise ValueError("not canonical")  # the decoder ignores characters that are not base64
    digest: int | None
    position, digest, times = _content(data) if data.startswith(b"[") else (_plain(data), None, [None, None])
    if [type(value) for value in position] != list(shape) or [type(time) in (int, type(None)) for time in times] != [True, True]:
        raise ValueError("not a cursor of this list")
    if not all(0 <= number < _LARGEST for number in (*position, *times) if isinstance(number, int)):
        raise ValueError("out of range")
    return tuple(position), digest, tuple(times)


def _content(data: bytes) -> tuple[list[Value], int, list[int | None]]:
    match from_json(data):
        case [[*position], int(digest), [*times]]:
            return position, digest, times
    raise ValueError("not a cursor")


def _plain(data: bytes) -> list[Value]:
    """Return the position in a cursor of release 0.1: two numbers with a dot."""
    at, _, sequence = data.decode("ascii").partition(".")
    position = [int(at), int(sequence)]
    if b"%d.%d" % tuple(position) != data:
        raise ValueError("not canonical")
    return list(position)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
