"""Conversion of times to UTC, within the `datetime` range of years 1 to 9999."""

from __future__ import annotations

from datetime import UTC, datetime


def to_utc(moment: datetime) -> datetime:
    """Return a time in UTC. Raises ValueError if it is outside the years 1 to 9999 there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"`{moment.isoformat()}` is outside the years 1 to 9999 in UTC") from None


def utc_text(moment: datetime) -> str:
    """Return RFC 3339 text in UTC, such as `2026-11-22T10:00:00Z`. Raises ValueError like `to_utc`."""
    return to_utc(moment).isoformat().replace("+00:00", "Z")
