"""Times in UTC, within the years 1 to 9999 that `datetime` has."""

from __future__ import annotations

from datetime import UTC, datetime


def to_utc(moment: datetime) -> datetime:
    """Return an aware moment in UTC. Raises ValueError where it lies outside the years 1 to 9999 there."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"`{moment.isoformat()}` is outside the years 1 to 9999 in UTC") from None


def utc_text(moment: datetime) -> str:
    """Return RFC 3339 text in UTC, such as `2026-11-22T10:00:00Z`. Raises ValueError as `to_utc` does."""
    return to_utc(moment).isoformat().replace("+00:00", "Z")
