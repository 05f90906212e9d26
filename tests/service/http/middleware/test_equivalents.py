"""HEAD and trailing slashes at a running service."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Final

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT, client

VOLATILE: Final = {"date", "x-request-id", "transfer-encoding"}
"""Headers that differ between any two responses, or belong to the connection."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(store="memory:")) as url:
        httpx.put(f"{url}/v1/hosts/x", json={"kernel": "6.12.107"})
        yield url


@pytest.fixture(scope="module")
def decision(url: str) -> str:
    identity: str = httpx.post(f"{url}/v1/decisions", json=EVENT).json()["id"]
    return identity


def paths() -> list[str]:
    return sorted(path for path, operations in create_app().openapi()["paths"].items() if "get" in operations)


def headers(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VOLATILE}


@pytest.mark.parametrize("path", [path for path in paths() if not path.endswith("/stream")])
def test_head_has_the_status_and_headers_of_get_and_no_body(url: str, decision: str, path: str) -> None:
    where = url + path.format(identity=decision, name="uniform", a="uniform", b="linux-6.12.107", source="x")
    with httpx.Client() as connection:
        got, head = connection.get(where), connection.head(where)
        again = connection.get(where)

    assert (head.status_code, head.content) == (got.status_code, b"")
    changing = {"content-length": ""} if path == "/metrics" else {}
    assert headers(head) | changing == headers(got) | changing
    assert again.status_code == got.status_code, "the connection goes on"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/v1/nothing", "/v1/decisions/nothing", "/v1/policies?nonsense=1"])
def test_head_of_other_pages_and_of_problems_is_that_of_get(url: str, path: str) -> None:
    got, head = httpx.get(url + path), httpx.head(url + path)

    assert (head.status_code, head.content, headers(head)) == (got.status_code, b"", headers(got))


def test_head_of_an_event_stream_ends_at_once_and_leaves_no_stream_open() -> None:
    app = create_app()
    with client(app) as call:
        answer = call("HEAD", "/v1/decisions/stream")
        assert app.state.runtime.streams.statistics == (0, 0)

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_head_of_an_event_stream_of_a_server_ends_at_once(url: str) -> None:
    begun = monotonic()

    assert httpx.head(f"{url}/v1/decisions/stream").headers["content-type"].startswith("text/event-stream")
    assert monotonic() - begun < 5


def test_head_where_get_is_not_possible_is_not_allowed(url: str) -> None:
    answer = httpx.head(f"{url}/v1/decode")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_head_needs_the_scope_of_get() -> None:
    with client(create_app(Settings(host="0.0.0.0"))) as call:
        assert call("HEAD", "/v1/policies").status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/decisions", "/v1/decisions/stats", "/v1/hosts", "/v1/policies", "/v1/policies/uniform", "/v1/store", "/healthz", "/docs"]
)
def test_a_trailing_slash_makes_no_difference(url: str, path: str) -> None:
    answers = [httpx.get(f"{url}{path}{slash}", params={}) for slash in ("", "/", "/?")]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].content == answers[1].content == answers[2].content


def test_a_trailing_slash_makes_no_difference_to_a_request_with_a_body_and_parameters(url: str) -> None:
    assert httpx.post(f"{url}/v1/decisions/", json=EVENT).status_code == 201
    assert httpx.post(f"{url}/v1/decisions/?dry_run=true", json=EVENT).json()["id"] is None
    assert httpx.post(f"{url}/v1/decisions/batch/", json=[EVENT]).status_code == 200
    assert httpx.get(f"{url}/v1/decisions/?nonsense=1").status_code == 422


def test_a_source_may_end_with_a_slash(url: str) -> None:
    httpx.put(f"{url}/v1/hosts/rack/", json={"kernel": "5.15.200"})

    assert httpx.get(f"{url}/v1/hosts/rack/").json()["source"] == "rack/"
    assert httpx.get(f"{url}/v1/hosts/rack").status_code == 404
    assert httpx.delete(f"{url}/v1/hosts/").status_code == 405, "that of the list"


def test_a_trailing_slash_does_not_lead_past_the_limits() -> None:
    with client(create_app(Settings(max_in_flight=0))) as call:
        assert call("GET", "/healthz/").status_code == 200
        assert call("POST", "/v1/decisions/batch/", json=[EVENT]).status_code == 503
    with client(create_app(Settings(host="0.0.0.0"))) as call:
        assert call("POST", "/v1/decode/").status_code == 401
