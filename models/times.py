"""Conversion of times to UTC, within the `datetime` range of years 1 to 9999."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_utc(moment: datetime) -> datetime:
    """Return a time in UTC. Raises ValueError if it is outside the years 1 to 9999 there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"`{moment.isoformat()}` is outside the years 1 to 9999 in UTC") from None


def unix_ms(moment: datetime) -> int:
    """Return a time in milliseconds since 1970, UTC."""
    return (to_utc(moment) - _EPOCH) // timedelta(milliseconds=1)


def utc_text(moment: datetime) -> str:
    """Return RFC 3339 text in UTC, such as `2026-11-22T10:00:00Z`. Raises ValueError like `to_utc`."""
    return to_utc(moment).isoformat().replace("+00:00", "Z")
