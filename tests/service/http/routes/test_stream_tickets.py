"""Event streams opened with a ticket, in the manner of a browser's EventSource."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.server.reload import use
from ras_triage.service.security import tickets
from ras_triage.service.security.keys import create, file_entry
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT, client
from tests.service.support.server_process import serving
from tests.service.support.service_with_keys import ServiceWithKeys, serving_with_keys

PAGE = "https://dashboard.example"

BROWSER = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Origin": PAGE, "Sec-Fetch-Mode": "cors"}
"""What an EventSource of a page of another origin sends: never `Authorization`."""


@pytest.fixture(scope="module")
def service() -> Iterator[ServiceWithKeys]:
    with serving_with_keys(Settings(cors_origins=(PAGE,))) as service:
        yield service


def new_ticket(service: ServiceWithKeys, scope: str = "read") -> str:
    answer = httpx.post(f"{service.url}/v1/decisions/stream-tickets", headers={"Origin": PAGE, **service.keys[scope]})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.json()["valid_s"] == 60
    ticket: str = answer.json()["ticket"]
    return ticket


def decide(service: ServiceWithKeys, source: str, *identities: str) -> None:
    for identity in identities:
        event = {"source": source, "id": identity, "notification": "polled"}
        httpx.post(f"{service.url}/v1/decisions", json=event, headers=service.keys["decide"]).raise_for_status()


def told(service: ServiceWithKeys, count: int, last: str | None = None, **parameters: str) -> list[ServerSentEvent]:
    """What an EventSource with this URL is told until it loses the connection; `last` is what it sends when it opens it again."""
    headers = BROWSER if last is None else {**BROWSER, "Last-Event-ID": last}
    found: list[ServerSentEvent] = []
    with (
        httpx.Client(timeout=20) as browser,
        connect_sse(browser, "GET", f"{service.url}/v1/decisions/stream", params=parameters, headers=headers) as source,
    ):
        assert source.response.headers["access-control-allow-origin"] == PAGE
        for event in source.iter_sse():
            found += [event] if event.data else []
            if len(found) == count:
                break
    return found


def test_a_page_follows_decisions_with_a_ticket_and_reconnects_with_the_same_url(service: ServiceWithKeys) -> None:
    ticket = new_ticket(service)
    decide(service, "followed", "a", "b", "c", "d", "e")

    first = told(service, 2, ticket=ticket, last_event_id="0", source="followed")
    second = told(service, 3, first[-1].id, ticket=ticket, last_event_id="0", source="followed")

    assert [event.json()["event_id"] for event in first + second] == ["a", "b", "c", "d", "e"]


def test_a_new_event_source_resumes_where_its_parameter_says(service: ServiceWithKeys) -> None:
    decide(service, "resumed", "a", "b", "c")
    (seen,) = told(service, 1, ticket=new_ticket(service), last_event_id="0", source="resumed")
    missed = told(service, 2, ticket=new_ticket(service), last_event_id=seen.id, source="resumed")

    assert [event.json()["event_id"] for event in missed] == ["b", "c"]


@pytest.mark.parametrize("last", ["", "-1", "x", "9" * 40])
def test_a_parameter_that_is_no_event_id_is_refused(service: ServiceWithKeys, last: str) -> None:
    answer = httpx.get(f"{service.url}/v1/decisions/stream", params={"last_event_id": last}, headers=service.keys["read"])

    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "last_event_id")


@pytest.mark.parametrize("ticket", ["", "rtt_", "rtt_" + "x" * 43, "x"])
def test_an_unknown_ticket_is_refused(service: ServiceWithKeys, ticket: str) -> None:
    answer = httpx.get(f"{service.url}/v1/decisions/stream", params={"ticket": ticket}, headers=BROWSER)

    assert (answer.status_code, answer.json()["type"]) == (401, "urn:ras-triage:problem:unauthenticated")
    assert answer.json()["detail"] == "unknown or expired ticket; request a new one with POST `/v1/decisions/stream-tickets`"
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["access-control-allow-origin"] == PAGE, "so that the page can tell it from a lost connection"


def test_a_ticket_is_for_the_event_stream_alone(service: ServiceWithKeys) -> None:
    ticket = new_ticket(service)
    for method, path in (("GET", "/v1/decisions"), ("GET", "/v1/decisions/stats"), ("POST", "/v1/decisions"), ("GET", "/v1/store")):
        assert httpx.request(method, f"{service.url}{path}", params={"ticket": ticket}).status_code == 401
    as_a_key = httpx.get(f"{service.url}/v1/decisions/stream", headers={"Authorization": f"Bearer {ticket}"})

    assert as_a_key.status_code == 401


def test_a_key_that_may_not_read_gets_no_ticket(service: ServiceWithKeys) -> None:
    for headers, status in ((service.keys["decide"], 403), ({}, 401)):
        assert httpx.post(f"{service.url}/v1/decisions/stream-tickets", headers=headers).status_code == status


def test_a_key_in_the_header_needs_no_valid_ticket(service: ServiceWithKeys) -> None:
    assert httpx.head(f"{service.url}/v1/decisions/stream?ticket=x", headers=service.keys["read"]).status_code == 200


def test_a_ticket_expires_and_its_open_stream_goes_on(monkeypatch: pytest.MonkeyPatch, service: ServiceWithKeys) -> None:
    monkeypatch.setattr(tickets, "LIFETIME_S", 0.3)
    ticket = new_ticket(service)
    parameters = {"ticket": ticket, "notification": "sei"}
    with httpx.stream("GET", f"{service.url}/v1/decisions/stream", params=parameters, headers=BROWSER, timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": ras-triage"
        time.sleep(2.2)  # two checks of the permission
        again = httpx.get(f"{service.url}/v1/decisions/stream", params=parameters, headers=BROWSER)
        httpx.post(f"{service.url}/v1/decisions", json={"notification": "sei"}, headers=service.keys["decide"])

        assert any(line.startswith("data: ") for line in lines)
    assert again.status_code == 401


def test_a_revoked_key_ends_the_streams_of_its_tickets_and_makes_them_invalid() -> None:
    with serving_with_keys(Settings(cors_origins=(PAGE,))) as service:
        ticket = new_ticket(service)
        parameters = {"ticket": ticket}
        with httpx.stream("GET", f"{service.url}/v1/decisions/stream", params=parameters, headers=BROWSER, timeout=20) as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": ras-triage"
            service.revoke("read")
            assert not any(line.startswith("data:") for line in lines), "it ends"

        refused = httpx.get(f"{service.url}/v1/decisions/stream", params=parameters, headers=BROWSER)
    assert (refused.status_code, refused.json()["detail"]) == (401, "unknown or revoked API key")


def test_a_reload_keeps_the_tickets() -> None:
    service = ServiceWithKeys()
    app = create_app(Settings(host="0.0.0.0"), service.store)
    with client(app) as call:
        ticket = call("POST", "/v1/decisions/stream-tickets", headers=service.keys["read"]).json()["ticket"]
        settings = Settings(host="0.0.0.0", rate_limit=1000)
        use(app, settings, app.state.security.reloaded(app.state.settings, settings))

        assert call("HEAD", f"/v1/decisions/stream?ticket={ticket}").status_code == 200


def test_without_authentication_the_same_page_works_until_a_key_is_created() -> None:
    service = ServiceWithKeys()
    keyless = TemporaryStore()
    app = create_app(Settings(), keyless)
    with client(app) as call:
        ticket = call("POST", "/v1/decisions/stream-tickets").json()["ticket"]
        assert call("HEAD", f"/v1/decisions/stream?ticket={ticket}").status_code == 200
        keyless.add_api_key(service.store.api_keys()[0])
        time.sleep(1.1)

        assert call("HEAD", f"/v1/decisions/stream?ticket={ticket}").status_code == 401


def test_a_ticket_is_in_no_line_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_LOG_LEVEL", "debug")
    key, shown = create("page", ("read",), 0)
    (tmp_path / "keys.toml").write_text(file_entry(key))
    with serving("--store", "memory:", "--keys-file", str(tmp_path / "keys.toml")) as service:
        ticket = httpx.post(f"{service.url}/v1/decisions/stream-tickets", headers={"Authorization": f"Bearer {shown}"}).json()["ticket"]
        for query in (f"ticket={ticket}", f"ticket={ticket}&nonsense=1", f"ticket={ticket}&since=x"):
            httpx.head(f"{service.url}/v1/decisions/stream?{query}")
        httpx.get(f"{service.url}/v1/nothing?ticket={ticket}")
        deadline = time.monotonic() + 10
        while not any("status=404" in line for line in service.log) and time.monotonic() < deadline:
            time.sleep(0.02)

        assert any("route=/v1/decisions/stream " in line and "status=200" in line for line in service.log)
        assert not any(ticket[4:] in line for line in service.log)


def test_streams_are_not_buffered_by_proxies(service: ServiceWithKeys) -> None:
    stream = httpx.head(f"{service.url}/v1/decisions/stream", headers=service.keys["read"])
    batch = httpx.post(f"{service.url}/v1/decisions/batch", json=[EVENT], headers=service.keys["decide"])
    imported = httpx.post(f"{service.url}/v1/import", json=EVENT, headers=service.keys["decide"])
    single = httpx.post(f"{service.url}/v1/decisions", json=EVENT, headers=service.keys["decide"])

    assert [answer.headers.get("x-accel-buffering") for answer in (stream, batch, imported, single)] == ["no", "no", "no", None]
