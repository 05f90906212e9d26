"""Timestamps on the wire: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache


def now_ms() -> int:
    """Return the time in milliseconds since 1970, by the system clock."""
    return time.time_ns() // 1_000_000


@lru_cache(maxsize=64)
def rfc3339(milliseconds: int) -> str:
    """Return a timestamp such as `2026-11-22T10:00:00.000Z`."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_rfc3339(text: str) -> int:
    """Return a timestamp in milliseconds since 1970. Raises ValueError, also for one without a time zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("time zone is missing")
    return round(moment.timestamp() * 1000)
