"""Timestamps on the wire: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

TIME_FORMS: Final = (
    "an RFC 3339 time such as `2026-11-22T10:00:00Z`, a date such as `2026-11-22` (UTC), or an age such as `15m`, `1h` or `7d`"
)
"""Forms that `parse_time` reads, for messages."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_AGE: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


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


def is_age(text: str) -> bool:
    """Return whether a text is an age, such as `1h`, which means another time later."""
    return _AGE.fullmatch(text) is not None


def parse_time(text: str, now_ms: int) -> int:
    """Return a time of TIME_FORMS in milliseconds since 1970: an age before `now_ms`, or the start of a date. Raises ValueError."""
    if age := _AGE.fullmatch(text):
        return max(now_ms - int(age[1]) * _UNIT_MS[age[2]], 0)
    return parse_rfc3339(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
