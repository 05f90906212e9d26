"""Lists and statistics: completeness, order and filters."""

from __future__ import annotations

import csv
import io
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, Call, client

URL = "/v1/decisions"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

VENDOR = "e4b1f0c2-7a3d-4c55-9d0e-6f2a81b3c7d4"
"""A section type that nobody has a name for."""

UNLISTED = {"severity": 7, "sections": [{"type": VENDOR, "payload": "AAAA"}]}

PLAN: list[tuple[int, dict[str, Any]]] = [
    *((0, {"source": "tied", "notification": "polled", "id": f"tied-{number}"}) for number in range(25)),
    (60, {**EVENT, "source": "far", "id": "signal"}),
    (61, {"source": "far", "id": "panic", "notification": "sea", "status_block": {"severity": "fatal", "sections": [{"type": "memory"}]}}),
    (3600, {"source": "far", "id": "quiet", "notification": "gpio", "policy": "linux-6.12.107"}),
    (7200, {"source": "irq", "id": "door", "notification": "irq", "status_block": UNLISTED}),
    (90_000, {"notification": "polled"}),
]
"""Seconds after noon, and the event that is decided then."""


def make_app(store: str) -> FastAPI:
    return create_app(Settings(store=store))


@pytest.fixture(scope="module", params=["memory", "sqlite"])
def call(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """A service, over either store, that has decided what is planned, at the times that are planned."""
    store = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path_factory.mktemp('lists') / 'store.db'}"
    app = make_app(store)
    with client(app) as call:
        for seconds, event in PLAN:
            at = int((NOON + timedelta(seconds=seconds)).timestamp() * 1000)
            app.state.runtime.intake._clock_ms = lambda at=at: at
            assert call("POST", URL, json=event).status_code == 201
        yield call


def listed(answer: httpx.Response) -> list[str | None]:
    assert answer.status_code == 200
    return [one["event_id"] for one in answer.json()["decisions"]]


EVERYTHING = [event.get("id") for _, event in reversed(PLAN)]


@pytest.mark.parametrize("limit", [1, 2, 7, 24, 25, 26, 28, 29, 30, 1000])
def test_pages_lead_through_ties_without_a_gap_or_a_repeat(call: Call, limit: int) -> None:
    found: list[str | None] = []
    cursor: str | None = None
    while True:
        answer = call("GET", URL, params={"limit": limit, **({"cursor": cursor} if cursor else {})})
        page = listed(answer)
        assert 0 < len(page) <= limit
        found += page
        cursor = answer.json()["next"]
        if cursor is None:
            assert "link" not in answer.headers
            break

    assert found == EVERYTHING


def test_the_link_leads_to_the_next_page_with_all_that_was_asked(call: Call) -> None:
    answer = call("GET", URL, params={"source": "tied", "limit": 10, "since": "2026-11-23T12:00:00Z"})
    found = listed(answer)
    while "link" in answer.headers:
        target, _, relation = answer.headers["link"].partition("; ")
        assert relation == 'rel="next"'
        asked = parse_qs(urlsplit(target.strip("<>")).query)
        assert asked["source"] == ["tied"]
        assert asked["cursor"] == [answer.json()["next"]]
        answer = call("GET", target.strip("<>"))
        found += listed(answer)

    assert found == [f"tied-{number}" for number in reversed(range(25))]


def test_what_is_decided_between_two_pages_does_not_move_them(call: Call) -> None:
    first = call("GET", URL, params={"source": "moved"})
    ids = [call("POST", URL, json={"source": "moved", "notification": "polled", "id": f"m-{number}"}).json()["id"] for number in range(4)]
    first = call("GET", URL, params={"source": "moved", "limit": 2})
    call("POST", URL, json={"source": "moved", "notification": "polled", "id": "m-later"})
    second = call("GET", URL, params={"source": "moved", "limit": 2, "cursor": first.json()["next"]})

    assert [one["id"] for page in (first, second) for one in page.json()["decisions"]] == ids[::-1]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"source": "far"}, ["quiet", "panic", "signal"]),
        ({"source": "FAR"}, []),
        ({"source": ""}, []),
        ({"action": "panic"}, ["door", "panic"]),
        ({"action": "signal"}, ["signal"]),
        ({"action": "inject"}, []),
        ({"policy": "linux-6.12.107"}, ["quiet", "signal"]),
        ({"policy": "nonsense"}, []),
        ({"notification": "gpio"}, ["quiet"]),
        ({"notification": "external", "source": "irq"}, ["door"]),
        ({"notification": "irq", "source": "irq"}, ["door"]),
        ({"notification": "IRQ", "source": "irq"}, ["door"]),
        ({"notification": "GPIO"}, ["quiet"]),
        ({"severity": "fatal"}, ["panic"]),
        ({"severity": "1"}, ["panic"]),
        ({"severity": "77"}, []),
        ({"section": "memory"}, ["panic", "signal"]),
        ({"section": "A5BC1114-6F64-4EDE-B863-3E83ED7C83B1"}, ["panic", "signal"]),
        ({"section": "00000000-0000-0000-0000-000000000001"}, []),
        ({"severity": "7"}, ["door"]),
        ({"severity": "007"}, ["door"]),
        ({"section": "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"}, ["panic", "signal"]),
        ({"section": VENDOR}, ["door"]),
        ({"section": VENDOR.upper()}, ["door"]),
        ({"section": "memory", "severity": "recoverable"}, ["signal"]),
        ({"physical_address": "0x56edd040"}, ["signal"]),
        ({"physical_address": str(0x56EDD040)}, ["signal"]),
        ({"physical_address": "0x56edd041"}, []),
        ({"source": "far", "action": "panic", "notification": "gpio"}, []),
        ({"source": "far", "since": "2026-11-23T12:01:01Z"}, ["quiet", "panic"]),
        ({"source": "far", "until": "2026-11-23T12:01:01Z"}, ["signal"]),
        ({"since": "2026-11-23T12:01:00Z", "until": "2026-11-23T13:01:01+01:00"}, ["signal"]),
        ({"since": "2026-11-23T13:00:00Z", "until": "2026-11-23T13:00:00Z"}, []),
        ({"source": "x' or 1=1 --"}, []),
        ({"source": "f%r"}, []),
        ({"action": "panic,signal"}, ["door", "panic", "signal"]),
        ({"action": ["panic", "signal"], "source": "far"}, ["panic", "signal"]),
        ({"action": "panic,panic"}, ["door", "panic"]),
        ({"source": "irq,far"}, ["door", "quiet", "panic", "signal"]),
        ({"source": ["irq", "nobody"]}, ["door"]),
        ({"source": "fa*"}, ["quiet", "panic", "signal"]),
        ({"source": "fa*,ir*,irq"}, ["door", "quiet", "panic", "signal"]),
        ({"source": "fax*"}, []),
        ({"source": "*", "action": "signal,panic"}, ["door", "panic", "signal"]),
        ({"notification": "gpio,irq"}, ["door", "quiet"]),
        ({"severity": "fatal,7"}, ["door", "panic"]),
        ({"section": f"memory,{VENDOR}"}, ["door", "panic", "signal"]),
        ({"section": ["memory", "A5BC1114-6F64-4EDE-B863-3E83ED7C83B1"]}, ["panic", "signal"]),
        ({"physical_address": "0x56edd040,0x1"}, ["signal"]),
        ({"policy": "linux-6.12.107,nonsense"}, ["quiet", "signal"]),
        ({"source": "far", "since": "2026-11-23", "until": "2026-11-24"}, ["quiet", "panic", "signal"]),
        ({"source": "far", "until": "2026-11-23"}, []),
    ],
)
def test_a_filter_lists_what_it_says(call: Call, asked: dict[str, str], expected: list[str]) -> None:
    assert listed(call("GET", URL, params=asked)) == expected


def test_a_list_shows_of_a_decision_what_it_was_found_by(call: Call) -> None:
    (one,) = call("GET", URL, params={"physical_address": "0x56edd040"}).json()["decisions"]

    whole = call("GET", f"{URL}/{one['id']}").json()
    assert {name: one[name] for name in ("id", "decided_at", "event_key", "policy", "action", "certainty", "source")} == {
        name: whole[name] for name in ("id", "decided_at", "event_key", "policy", "action", "certainty", "source")
    }
    assert one["sections"] == ["memory"]
    assert one["physical_addresses"] == ["0x56edd040"]
    assert (one["notification"], one["severity"], one["decided_at"]) == ("sea", "recoverable", "2026-11-23T12:01:00.000Z")


def test_names_that_are_not_known_are_refused_with_the_nearest_one(call: Call) -> None:
    detail = call("GET", URL, params={"action": "signal,panics"}).json()["detail"]
    assert "unknown value `panics`; did you mean `panic`?; expected one of `handled`, `signal`" in detail
    assert "`sauce`; did you mean `source`?" in call("GET", f"{URL}/stats", params={"group_by": "sauce"}).json()["detail"]
    assert "`1 h`; expected an RFC 3339 time" in call("GET", URL, params={"since": "1 h"}).json()["detail"]
    assert "`recoverabel`; did you mean `recoverable`?" in call("GET", URL, params={"severity": "recoverabel"}).json()["detail"]
    assert "`memroy`; did you mean `memory`?" in call("GET", URL, params={"section": "memroy"}).json()["detail"]


def test_a_time_zone_whose_plus_was_not_escaped_is_refused_with_the_reason(call: Call) -> None:
    refused, spaced = (call("GET", f"{URL}?since={time}").json()["detail"] for time in ("2026-11-29T20:00:00+01:00", "2026-11-29%2020:00"))
    assert "in a URL, `+` is `%2B`" in refused
    assert "%2B" not in spaced
    assert call("GET", f"{URL}?since=2026-11-29T20:00:00%2B01:00").status_code == 200


@pytest.mark.parametrize("name", ["rack,1", "rack*", "rack,*", "a,", ",", "*", "DOMAIN\\rack"])
def test_a_source_is_found_by_its_name_whatever_characters_it_has(call: Call, name: str) -> None:
    call("POST", URL, json={"source": name, "notification": "polled", "id": f"odd {name}"})

    assert f"odd {name}" in listed(call("GET", URL, params={"source": name}))


def test_an_age_means_the_same_time_on_every_page() -> None:
    now = int(NOON.timestamp() * 1000)
    app = create_app(Settings(store="memory:"), clock_ms=lambda: now)
    with client(app) as call:
        for number in range(6):
            call("POST", URL, json={"source": "aged", "notification": "polled", "id": str(number)})
            now += 60_000
        asked = {"since": "5m", "until": "1m", "limit": 2}
        first = call("GET", URL, params=asked)
        now += 180_000
        second = call("GET", first.headers["link"].partition(">")[0].strip("<"))
        other = call("GET", URL, params={**asked, "since": "6m", "cursor": first.json()["next"]})

        assert listed(first) + listed(second) == ["4", "3", "2", "1"]
        assert other.json()["errors"][0]["parameter"] == "cursor"
        assert listed(call("GET", URL, params=asked)) == ["5", "4"]


@pytest.mark.parametrize(
    "changed", [{"source": "far"}, {"source": "tied,far"}, {"action": "handled"}, {"since": "2026-11-23"}, {"source": None}]
)
def test_a_cursor_is_bound_to_the_filters_of_its_list(call: Call, changed: dict[str, Any]) -> None:
    asked = {"source": "tied", "limit": 10}
    cursor = call("GET", URL, params=asked).json()["next"]
    answer = call("GET", URL, params={name: value for name, value in {**asked, **changed, "cursor": cursor}.items() if value is not None})

    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "cursor")
    assert "other filters" in answer.json()["detail"]
    assert call("GET", URL, params={**asked, "limit": 3, "cursor": cursor}).status_code == 200


def test_a_cursor_of_release_0_1_still_leads_on(call: Call) -> None:
    at = int((NOON + timedelta(seconds=61)).timestamp() * 1000)
    cursor = urlsafe_b64encode(f"{at}.27".encode()).decode().rstrip("=")

    assert listed(call("GET", URL, params={"source": "far", "cursor": cursor})) == ["signal"]


# CSV.


@pytest.mark.parametrize("accept", [{}, {"accept": "text/csv"}, {"accept": "application/json;q=0.5, text/csv;q=0.9"}])
def test_a_list_is_csv_where_it_is_asked_for(call: Call, accept: dict[str, str]) -> None:
    params = {"source": "far", "limit": 2} | ({} if accept else {"format": "csv"})
    answer = call("GET", URL, params=params, headers=accept)
    first, second = csv.DictReader(io.StringIO(answer.text, newline=""))

    shown = call("GET", URL, params={"source": "far"}).json()["decisions"]
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert [first["id"], second["id"]] == [one["id"] for one in shown[:2]]
    assert (second["policy"], second["policy_digest"], second["sections"], second["physical_addresses"]) == (
        "uniform",
        shown[1]["policy"]["digest"],
        "memory",
        "",
    )
    following = call("GET", answer.headers["link"].partition(">")[0].strip("<"), headers=accept)
    assert [row["event_id"] for row in csv.DictReader(io.StringIO(following.text, newline=""))] == ["signal"]


@pytest.mark.parametrize(
    "headers", [{}, {"accept": "*/*"}, {"accept": "text/html, application/json, text/csv"}, {"accept": "text/csv;q=0"}]
)
def test_a_list_is_json_where_csv_is_not_preferred(call: Call, headers: dict[str, str]) -> None:
    assert call("GET", URL, params={"limit": 1}, headers=headers).headers["content-type"] == "application/json"
    assert call("GET", URL, params={"limit": 1, "format": "json"}, headers={"accept": "text/csv"}).json()["decisions"]


def test_counts_as_csv_have_a_row_for_each_group(call: Call) -> None:
    asked = {**WINDOW, "source": "far", "group_by": "action,policy", "format": "csv", "fill": "true", "until": "2026-11-23T15:00:00Z"}

    assert call("GET", f"{URL}/stats", params=asked).text.splitlines() == [
        "start,action,policy,count",
        "2026-11-23T12:00:00.000Z,panic,uniform,1",
        "2026-11-23T12:00:00.000Z,signal,linux-6.12.107,1",
        "2026-11-23T13:00:00.000Z,handled,linux-6.12.107,1",
        "2026-11-23T14:00:00.000Z,,,0",
    ]


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "MS4y.", "LTEuMg", "MS4tMg", "\u00e4", "A" * 4000])
def test_a_cursor_that_never_was_one_is_refused(call: Call, cursor: str) -> None:
    answer = call("GET", URL, params={"cursor": cursor})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "cursor"


# Counts.


def counted(answer: httpx.Response) -> list[tuple[str, list[tuple[Any, ...]]]]:
    """Start of each bucket, and its groups as the values of their members."""
    assert answer.status_code == 200
    stats = answer.json()
    for bucket in stats["buckets"]:
        assert bucket["count"] == sum(group["count"] for group in bucket["groups"])
    return [(bucket["start"], [tuple(group.values()) for group in bucket["groups"]]) for bucket in stats["buckets"]]


WINDOW = {"until": "2026-11-24T00:00:00Z", "since": "2026-11-23T12:00:00Z"}


def test_counts_fall_into_spans_that_begin_where_clocks_say(call: Call) -> None:
    asked = {**WINDOW, "source": "far"}

    assert counted(call("GET", f"{URL}/stats", params={**asked, "bucket": "hour"})) == [
        ("2026-11-23T12:00:00.000Z", [("panic", 1), ("signal", 1)]),
        ("2026-11-23T13:00:00.000Z", [("handled", 1)]),
    ]
    assert [start for start, _ in counted(call("GET", f"{URL}/stats", params={**asked, "bucket": "minute"}))] == [
        "2026-11-23T12:01:00.000Z",
        "2026-11-23T13:00:00.000Z",
    ]
    assert [start for start, _ in counted(call("GET", f"{URL}/stats", params={**asked, "bucket": "day"}))] == ["2026-11-23T00:00:00.000Z"]
    assert len(counted(call("GET", f"{URL}/stats", params={**asked, "bucket": "1"}))) == 3
    assert [start for start, _ in counted(call("GET", f"{URL}/stats", params={**asked, "bucket": "all"}))] == ["1970-01-01T00:00:00.000Z"]


def test_empty_buckets_are_there_when_they_are_asked_for(call: Call) -> None:
    asked = {"source": "far", "bucket": "hour", "fill": "true"}
    between = [("2026-11-23T12:00:00.000Z", 2), ("2026-11-23T13:00:00.000Z", 1)]

    def buckets(**more: str) -> list[tuple[str, int]]:
        return [(bucket["start"], bucket["count"]) for bucket in call("GET", f"{URL}/stats", params={**asked, **more}).json()["buckets"]]

    assert buckets(until="2026-11-23T14:00:00Z") == between
    assert buckets(since="2026-11-23T10:30:00Z", until="2026-11-23T14:00:00.001Z") == [
        ("2026-11-23T10:00:00.000Z", 0),
        ("2026-11-23T11:00:00.000Z", 0),
        *between,
        ("2026-11-23T14:00:00.000Z", 0),
    ]
    assert buckets(action="inject", since="2026-11-23T10:00:00Z", until="2026-11-23T11:00:00Z") == [("2026-11-23T10:00:00.000Z", 0)]


def test_empty_buckets_end_now_and_are_not_too_many() -> None:
    now = int(NOON.timestamp() * 1000)
    with client(create_app(Settings(store="memory:"), clock_ms=lambda: now)) as call:
        call("POST", URL, json={"source": "far", "notification": "polled"})
        now += 2 * 3_600_000
        filled = call("GET", f"{URL}/stats", params={"fill": "true"}).json()["buckets"]
        many = call("GET", f"{URL}/stats", params={"fill": "true", "bucket": "1", "since": "1d"})

    assert [bucket["count"] for bucket in filled] == [1, 0, 0]
    assert many.json()["type"] == "urn:ras-triage:problem:too-many-counts"


def test_counts_are_grouped_by_up_to_three_fields(call: Call) -> None:
    by_source = counted(
        call("GET", f"{URL}/stats", params={**WINDOW, "bucket": "day", "group_by": "source", "until": "2026-11-23T14:00:00Z"})
    )
    assert ("far", 3) in by_source[0][1]
    assert ("tied", 25) in by_source[0][1]
    both = counted(call("GET", f"{URL}/stats", params={**WINDOW, "bucket": "day", "group_by": "policy,action", "source": "far"}))
    assert both[0][1] == [("linux-6.12.107", "handled", 1), ("linux-6.12.107", "signal", 1), ("uniform", "panic", 1)]
    for group_by in ("action,notification,severity", ["action", "notification,severity"], ["action", "notification", "severity"]):
        three = counted(call("GET", f"{URL}/stats", params={**WINDOW, "bucket": "day", "group_by": group_by, "source": "far"}))
        assert three[0][1] == [("handled", "gpio", None, 1), ("panic", "sea", "fatal", 1), ("signal", "sea", "recoverable", 1)]


@pytest.mark.parametrize("field", ["source", "action", "policy", "notification", "severity", "section", "physical_address"])
def test_everything_can_be_counted_by(call: Call, field: str) -> None:
    ((_, groups),) = counted(call("GET", f"{URL}/stats", params={**WINDOW, "source": "far", "bucket": "day", "group_by": field}))

    assert groups
    assert all(len(group) == 2 for group in groups)


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({"bucket": "week"}, "bucket"),
        ({"bucket": "-1"}, "bucket"),
        ({"bucket": "9" * 30}, "bucket"),
        ({"bucket": ""}, "bucket"),
        ({"group_by": ""}, "group_by"),
        ({"group_by": "action,action"}, "group_by"),
        ({"group_by": "source,action,policy,section"}, "group_by"),
        ({"group_by": ["source", "source"]}, "group_by"),
        ({"group_by": "sauce"}, "group_by"),
        ({"since": "noon"}, "since"),
        ({"since": "2026-11-31"}, "since"),
        ({"since": "1 h"}, "since"),
        ({"since": ["1h", "2h"]}, "since"),
        ({"until": "2026-11-23T12:00:00"}, "until"),
        ({"action": "panics"}, "action"),
        ({"notification": "owl"}, "notification"),
        ({"severity": "grave"}, "severity"),
        ({"severity": str(1 << 32)}, "severity"),
        ({"section": "memories"}, "section"),
        ({"physical_address": "0x1_0"}, "physical_address"),
        ({"action": "nonsense"}, "action"),
        ({"action": "PANIC"}, "action"),
        ({"action": ""}, "action"),
        ({"notification": "nonsense"}, "notification"),
        ({"severity": "nonsense"}, "severity"),
        ({"severity": "-1"}, "severity"),
        ({"section": "nonsense"}, "section"),
        ({"section": "a5bc1114-6f64-4ede-b863"}, "section"),
        ({"action": "panic,"}, "action"),
        ({"action": ["panic", "panics"]}, "action"),
        ({"severity": "fatal,grave"}, "severity"),
        ({"source": ",".join(map(str, range(51)))}, "source"),
        ({"fill": "maybe"}, "fill"),
        ({"fill": ["true", "true"]}, "fill"),
        ({"format": "xml"}, "format"),
        ({"nonsense": "1"}, "nonsense"),
        ({"physical_address": str(1 << 64)}, "physical_address"),
    ],
)
def test_a_question_that_is_none_is_refused_with_its_parameter(call: Call, asked: dict[str, Any], parameter: str) -> None:
    answer = call("GET", f"{URL}/stats", params=asked)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_more_counts_than_one_answer_holds_are_refused_with_what_helps(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ras_triage.service.http.routes.decisions.MAX_COUNTS", 2)
    answer = call("GET", f"{URL}/stats", params={"bucket": "1", "source": "far"})

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:ras-triage:problem:too-many-counts"
