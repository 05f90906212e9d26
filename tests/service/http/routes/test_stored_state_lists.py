"""Lists of the host facts and poisoned pages of all sources."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, Call, client

HOSTS, PAGES = "/v1/hosts", "/v1/poisoned-pages"
NOON = 1_795_435_200_000  # 2026-11-23T12:00:00Z
NAMES = ["rack1-1", "rack1-2", "rack2,a", "spare"]


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    now = NOON
    with client(create_app(Settings(store="memory:"), clock_ms=lambda: now)) as call:
        for number, source in enumerate(NAMES):
            now = NOON + number * 60_000
            assert call("PUT", f"{HOSTS}/{source}", json={"kernel": f"6.12.{number}"}).status_code == 200
            for address in (0x56EDD040, 0x1000 * (number + 1))[: 1 + number % 2]:
                section = {"type": "memory", "physical_address": hex(address)}
                event = {**EVENT, "source": source, "status_block": {"severity": "recoverable", "sections": [section]}, "host": {}}
                assert call("POST", "/v1/decisions", json=event).status_code == 201
        call("PUT", f"{HOSTS}/gone", json={})
        call("DELETE", f"{HOSTS}/gone")
        yield call


def all_pages(call: Call, url: str, rows: str, limit: int, **asked: Any) -> list[dict[str, Any]]:
    """Return the rows of all pages, by `next` and by `Link` in turns."""
    found: list[dict[str, Any]] = []
    answer = call("GET", url, params={"limit": limit, **asked})
    while True:
        assert answer.status_code == 200
        assert answer.json()["damaged"] == 0
        found += answer.json()[rows]
        cursor = answer.json()["next"]
        if cursor is None:
            assert "link" not in answer.headers
            return found
        by_link = call("GET", answer.headers["link"].partition(">")[0].strip("<"))
        answer = call("GET", url, params={"limit": limit, **asked, "cursor": cursor})
        assert answer.json() == by_link.json()


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 1000])
def test_hosts_are_listed_by_name_in_pages(call: Call, limit: int) -> None:
    found = all_pages(call, HOSTS, "hosts", limit)

    assert [host["source"] for host in found] == NAMES
    assert found[1] == {"source": "rack1-2", "version": 1, "changed_at": "2026-11-23T12:01:00.000Z", "bytes": 19}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"source": "spare"}, ["spare"]),
        ({"source": "rack1-*,spare"}, ["rack1-1", "rack1-2", "spare"]),
        ({"source": ["rack2,a", "gone"]}, ["rack2,a"]),
        ({"since": "2026-11-23T12:02:00Z"}, ["rack2,a", "spare"]),
        ({"since": "2m"}, ["rack1-2", "rack2,a", "spare"]),
        ({"source": "rack*", "until": "2026-11-23T12:01:00Z"}, ["rack1-1"]),
        ({"until": "2026-11-23"}, []),
    ],
)
def test_hosts_are_filtered_by_source_and_time(call: Call, asked: dict[str, Any], names: list[str]) -> None:
    assert [host["source"] for host in all_pages(call, HOSTS, "hosts", 1, **asked)] == names


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_poisoned_pages_of_all_sources_are_listed_in_pages(call: Call, limit: int) -> None:
    assert all_pages(call, PAGES, "pages", limit) == [
        {"source": "rack1-1", "physical_address": "0x56edd000", "shift": 12},
        {"source": "rack1-2", "physical_address": "0x2000", "shift": 12},
        {"source": "rack1-2", "physical_address": "0x56edd000", "shift": 12},
        {"source": "rack2,a", "physical_address": "0x56edd000", "shift": 12},
        {"source": "spare", "physical_address": "0x4000", "shift": 12},
        {"source": "spare", "physical_address": "0x56edd000", "shift": 12},
    ]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"physical_address": "0x2fff"}, [("rack1-2", "0x2000")]),
        ({"physical_address": "0x2000,0x4040"}, [("rack1-2", "0x2000"), ("spare", "0x4000")]),
        ({"physical_address": ["0x2000", "0x4040"], "source": "s*"}, [("spare", "0x4000")]),
        ({"source": "rack1-1"}, [("rack1-1", "0x56edd000")]),
        ({"physical_address": "0x3000"}, []),
    ],
)
def test_poisoned_pages_are_filtered_by_source_and_an_address_in_them(
    call: Call, asked: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    pages = all_pages(call, PAGES, "pages", 1, **asked)
    assert [(page["source"], page["physical_address"]) for page in pages] == found


@pytest.mark.parametrize(
    ("url", "header"), [(HOSTS, ["source", "version", "changed_at", "bytes"]), (PAGES, ["source", "physical_address", "shift"])]
)
def test_both_lists_are_csv_where_it_is_asked_for(call: Call, url: str, header: list[str]) -> None:
    answer = call("GET", url, params={"format": "csv"})
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert rows[0] == header
    assert [row[0] for row in rows[1:]] == [row["source"] for row in all_pages(call, url, url.rpartition("-")[2].rpartition("/")[2], 9)]


@pytest.mark.parametrize(
    ("url", "asked", "parameter"),
    [
        (HOSTS, {"action": "panic"}, "action"),
        (HOSTS, {"since": "noon"}, "since"),
        (HOSTS, {"limit": "0"}, "limit"),
        (HOSTS, {"cursor": "MS4y"}, "cursor"),
        (HOSTS, {"cursor": "nonsense"}, "cursor"),
        (PAGES, {"physical_address": "here"}, "physical_address"),
        (PAGES, {"since": "1h"}, "since"),
        (PAGES, {"cursor": "MS4y"}, "cursor"),
        (PAGES, {"limit": ["1", "2"]}, "limit"),
    ],
)
def test_a_question_that_is_none_is_refused_with_its_parameter(call: Call, url: str, asked: dict[str, Any], parameter: str) -> None:
    answer = call("GET", url, params=asked)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize(("url", "asked"), [(HOSTS, {"source": "rack*"}), (HOSTS, {"since": "1d"}), (PAGES, {"source": "rack*"})])
def test_a_cursor_is_bound_to_the_filters_of_its_list(call: Call, url: str, asked: dict[str, str]) -> None:
    cursor = call("GET", url, params={"limit": 1, **asked}).json()["next"]

    assert call("GET", url, params={"cursor": cursor, **asked}).status_code == 200
    assert call("GET", url, params={"cursor": cursor}).json()["errors"][0]["parameter"] == "cursor"
    other = {HOSTS: PAGES, PAGES: HOSTS}[url]
    assert call("GET", other, params={"cursor": cursor}).status_code == 422
