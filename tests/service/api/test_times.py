"""Tests of times in filters: RFC 3339, dates and ages."""

from __future__ import annotations

import pytest

from ras_triage.service.api.times import is_age, parse_time, rfc3339

NOW = 1_795_860_000_000  # 2026-11-28T10:00:00Z


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000Z"),
        ("2026-11-22T11:00:00.5+01:00", "2026-11-22T10:00:00.500Z"),
        ("2026-11-28", "2026-11-28T00:00:00.000Z"),
        ("90s", "2026-11-28T09:58:30.000Z"),
        ("15m", "2026-11-28T09:45:00.000Z"),
        ("1h", "2026-11-28T09:00:00.000Z"),
        ("7d", "2026-11-21T10:00:00.000Z"),
        ("2w", "2026-11-14T10:00:00.000Z"),
        ("0s", "2026-11-28T10:00:00.000Z"),
    ],
)
def test_a_time_a_date_and_an_age_are_read(text: str, moment: str) -> None:
    assert rfc3339(parse_time(text, NOW)) == moment


def test_an_age_from_before_1970_is_all_of_the_time() -> None:
    assert parse_time("999999999w", NOW) == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "h",
        "1 h",
        "1H",
        "-1h",
        "1.5h",
        "1h30m",
        "1234567890s",
        "\u0661h",
        "2026-11-31",
        "20261128",
        "2026-W48",
        "2026-11-28T10:00:00",
        "now",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text, NOW)


def test_an_age_is_told_from_a_time() -> None:
    assert is_age("1h")
    assert not is_age("2026-11-28")
