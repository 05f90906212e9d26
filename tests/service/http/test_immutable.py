"""Decisions in the caches of clients: location, validators, conditional requests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(store="memory:")) as url:
        yield url


@pytest.fixture(scope="module")
def created(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/decisions", json={**EVENT, "id": "located"})


def test_a_new_decision_says_where_it_is(url: str, created: httpx.Response) -> None:
    assert (created.status_code, created.headers["location"]) == (201, f"/v1/decisions/{created.json()['id']}")
    assert httpx.get(url + created.headers["location"]).json() == created.json()


def test_a_repeat_and_a_dry_run_create_nothing_and_have_no_location(url: str, created: httpx.Response) -> None:
    repeat = httpx.post(f"{url}/v1/decisions", json={**EVENT, "id": "located"})
    dry_run = httpx.post(f"{url}/v1/decisions?dry_run=true", json=EVENT)

    assert (repeat.json()["id"], repeat.json()["repeat"]) == (created.json()["id"], True)
    assert [(answer.status_code, "location" in answer.headers) for answer in (repeat, dry_run)] == [(200, False)] * 2


@pytest.mark.parametrize("ending", ["", "/event"])
def test_what_a_client_has_is_not_sent_again(url: str, created: httpx.Response, ending: str) -> None:
    where = url + created.headers["location"] + ending
    first = httpx.get(where)
    etag = first.headers["etag"]
    assert etag.startswith('"'), "a strong validator"

    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = httpx.get(where, headers={"If-None-Match": condition})
        assert (again.status_code, again.content) == (304, b"")
        assert {name: again.headers[name] for name in ("etag", "cache-control", "vary")} == {
            name: first.headers[name] for name in ("etag", "cache-control", "vary")
        }
    for condition in ('"other"', etag.strip('"'), "", f'"x{etag[1:]}'):
        assert httpx.get(where, headers={"If-None-Match": condition}).content == first.content
    assert httpx.head(where, headers={"If-None-Match": etag}).status_code == 304


def test_different_documents_have_different_validators(url: str, created: httpx.Response) -> None:
    other = httpx.post(f"{url}/v1/decisions", json={**EVENT, "id": "other"}).headers["location"]
    paths = (created.headers["location"], f"{created.headers['location']}/event", other)

    assert len({httpx.get(url + path).headers["etag"] for path in paths}) == 3


def test_a_decision_stays_in_the_cache_of_its_reader_and_in_no_other(url: str, created: httpx.Response) -> None:
    headers = httpx.get(url + created.headers["location"]).headers

    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert headers["vary"] == "Authorization"


def test_what_changes_and_what_is_refused_is_not_cached(url: str) -> None:
    for path in ("/v1/decisions", "/v1/decisions/nothing", "/v1/decisions/nothing/event", "/v1/store"):
        answer = httpx.get(url + path, headers={"If-None-Match": "*"})
        assert (answer.status_code in (200, 404), answer.headers["cache-control"]) == (True, "no-store")
