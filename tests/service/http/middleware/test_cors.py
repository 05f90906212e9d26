"""Requests of a browser for pages of other origins, as the Fetch standard makes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.server.reload import use
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT, client
from tests.service.support.service_with_keys import ServiceWithKeys, serving_with_keys

DASHBOARD = "https://dashboard.example"
OTHER = "https://elsewhere.example"

ALLOWED = "access-control-allow-origin"


@pytest.fixture(scope="module")
def listed() -> Iterator[ServiceWithKeys]:
    """A service with keys that admits the dashboard."""
    with serving_with_keys(Settings(cors_origins=(DASHBOARD, "http://localhost:3000"))) as service:
        yield service


@pytest.fixture(scope="module")
def public() -> Iterator[ServiceWithKeys]:
    """A service with keys that admits every origin."""
    with serving_with_keys(Settings(cors_origins=("*",))) as service:
        yield service


@contextmanager
def open_service(*origins: str) -> Iterator[str]:
    with running(Settings(store="memory:", cors_origins=origins)) as url:
        yield url


def preflight(url: str, origin: str, method: str = "POST", headers: str = "authorization,content-type") -> httpx.Response:
    sent = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return httpx.options(url, headers=sent)


def vary(answer: httpx.Response) -> set[str]:
    return {name.strip() for name in answer.headers.get("vary", "").split(",")} - {""}


def test_a_page_of_an_allowed_origin_asks_first_and_then_decides_and_reads(listed: ServiceWithKeys) -> None:
    asked = preflight(f"{listed.url}/v1/decisions", DASHBOARD)
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers[ALLOWED] == DASHBOARD
    assert "POST" in asked.headers["access-control-allow-methods"].split(", ")
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type"
    assert asked.headers["access-control-max-age"] == "600"

    decided = httpx.post(f"{listed.url}/v1/decisions", json=EVENT, headers={"Origin": DASHBOARD, **listed.keys["decide"]})
    assert (decided.status_code, decided.headers[ALLOWED]) == (201, DASHBOARD)
    assert {"ETag", "Link", "Location", "Retry-After", "X-Request-Id"} <= set(decided.headers["access-control-expose-headers"].split(", "))

    read = httpx.get(f"{listed.url}/v1/decisions", headers={"Origin": DASHBOARD, **listed.keys["read"]})
    assert (read.status_code, read.headers[ALLOWED]) == (200, DASHBOARD)


def test_a_page_can_read_why_it_was_refused(listed: ServiceWithKeys) -> None:
    answers = [
        httpx.get(f"{listed.url}/v1/decisions", headers={"Origin": DASHBOARD}),
        httpx.get(f"{listed.url}/v1/decisions", headers={"Origin": DASHBOARD, **listed.keys["decide"]}),
        httpx.get(f"{listed.url}/v1/nothing", headers={"Origin": DASHBOARD}),
        httpx.get(f"{listed.url}/v1/nothing", headers={"Origin": DASHBOARD, "X": "y" * 20_000}),
    ]

    assert [answer.status_code for answer in answers] == [401, 403, 404, 431]
    assert [answer.headers.get(ALLOWED) for answer in answers] == [DASHBOARD] * 4


def test_a_page_can_read_that_the_service_has_a_defect() -> None:
    app = create_app(Settings(cors_origins=(DASHBOARD,)))
    with client(app) as call:
        app.state.security = None
        answer = call("GET", "/v1/policies", headers={"Origin": DASHBOARD})

    assert (answer.status_code, answer.headers[ALLOWED]) == (500, DASHBOARD)


@pytest.mark.parametrize(
    "origin", [OTHER, "null", "https://dashboard.example.", "http://dashboard.example", f"{DASHBOARD}:8443", f"{DASHBOARD}/"]
)
def test_another_origin_is_not_allowed(listed: ServiceWithKeys, origin: str) -> None:
    refused = preflight(f"{listed.url}/v1/decisions", origin)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:ras-triage:problem:cross-origin")
    assert refused.json()["detail"] == f"origin `{origin}` is not allowed; add it to the setting `cors_origins` to admit its pages"
    read = httpx.get(f"{listed.url}/v1/decisions", headers={"Origin": origin, **listed.keys["read"]})

    assert [ALLOWED in answer.headers for answer in (refused, read)] == [False, False]


def test_two_origins_are_none(listed: ServiceWithKeys) -> None:
    headers = [("Origin", DASHBOARD), ("Origin", DASHBOARD), *listed.keys["read"].items()]

    assert ALLOWED not in httpx.get(f"{listed.url}/v1/decisions", headers=headers).headers


def test_every_response_varies_with_the_origin_so_that_caches_keep_pages_apart(listed: ServiceWithKeys) -> None:
    for headers in ({}, {"Origin": DASHBOARD}, {"Origin": OTHER}):
        assert "Origin" in vary(httpx.get(f"{listed.url}/v1/policies", headers=headers))
        assert "Origin" in vary(httpx.get(f"{listed.url}/healthz", headers=headers))
    assert "Origin" in vary(preflight(f"{listed.url}/v1/decisions", DASHBOARD))


def test_credentials_mode_is_never_allowed(listed: ServiceWithKeys, public: ServiceWithKeys) -> None:
    for service in (listed, public):
        for answer in (
            preflight(f"{service.url}/v1/decisions", DASHBOARD),
            httpx.get(f"{service.url}/v1/policies", headers={"Origin": DASHBOARD, **service.keys["read"]}),
        ):
            assert answer.headers[ALLOWED]
            assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_is_in_the_access_log_and_has_an_id(listed: ServiceWithKeys) -> None:
    assert preflight(f"{listed.url}/v1/decisions", DASHBOARD).headers["x-request-id"]


def test_a_preflight_needs_no_credentials_and_no_trusted_host(listed: ServiceWithKeys) -> None:
    for path in ("/v1/decisions", "/v1/decisions/batch", "/v1/hosts/node-1", "/v1/decisions/stream-tickets"):
        assert preflight(f"{listed.url}{path}", DASHBOARD, "PUT").status_code == 204


def test_options_without_a_preflight_is_a_method_that_is_not_allowed(listed: ServiceWithKeys) -> None:
    assert httpx.options(f"{listed.url}/v1/decisions", headers={"Origin": DASHBOARD}).status_code == 405


def test_without_the_setting_no_response_has_a_header_of_cors() -> None:
    with open_service() as url:
        read = httpx.get(f"{url}/v1/policies", headers={"Origin": DASHBOARD})
        refused = preflight(f"{url}/v1/decisions", DASHBOARD)

    assert (read.status_code, refused.status_code) == (200, 403)
    for answer in (read, refused):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "Origin" not in vary(answer)


def test_without_authentication_a_page_of_an_allowed_origin_may_make_changes_and_another_may_not() -> None:
    with open_service(DASHBOARD) as url:
        allowed = httpx.post(f"{url}/v1/decisions", json=EVENT, headers={"Origin": DASHBOARD})
        other = httpx.post(f"{url}/v1/decisions", json=EVENT, headers={"Origin": OTHER})
        rebound = httpx.post(f"{url}/v1/decisions", json=EVENT, headers={"Origin": DASHBOARD, "Host": "rebound.example"})

    assert (allowed.status_code, allowed.headers[ALLOWED]) == (201, DASHBOARD)
    assert (other.status_code, ALLOWED in other.headers) == (403, False)
    assert (rebound.status_code, rebound.headers[ALLOWED]) == (421, DASHBOARD)
    assert rebound.json()["detail"] == "untrusted host `rebound.example`; add it to the setting `trusted_hosts` to admit it"


def test_any_origin_may_use_a_service_that_requires_a_key(public: ServiceWithKeys) -> None:
    asked = preflight(f"{public.url}/v1/decisions", OTHER)
    decided = httpx.post(f"{public.url}/v1/decisions", json=EVENT, headers={"Origin": OTHER, **public.keys["decide"]})
    refused = httpx.post(f"{public.url}/v1/decisions", json=EVENT, headers={"Origin": OTHER})

    assert [answer.status_code for answer in (asked, decided, refused)] == [204, 201, 401]
    assert [answer.headers[ALLOWED] for answer in (asked, decided, refused)] == ["*"] * 3


def test_any_origin_is_not_for_a_service_without_authentication() -> None:
    with open_service("*") as url:
        read = httpx.get(f"{url}/v1/decisions", headers={"Origin": OTHER})
        decided = httpx.post(f"{url}/v1/decisions", json=EVENT, headers={"Origin": OTHER})

    assert (read.status_code, ALLOWED in read.headers) == (200, False), "the browser keeps it from the page"
    assert decided.status_code == 403


def test_a_reload_changes_the_allowed_origins() -> None:
    app = create_app(Settings())
    with client(app) as call:
        before = call("GET", "/v1/policies", headers={"Origin": DASHBOARD})
        settings = Settings(cors_origins=(DASHBOARD,))
        use(app, settings, app.state.security.reloaded(Settings(), settings))
        after = call("POST", "/v1/decode", headers={"Origin": DASHBOARD})

    assert ALLOWED not in before.headers
    assert (after.status_code, after.headers[ALLOWED]) == (422, DASHBOARD)
