"""A page of another origin in Chromium: it decides, follows the stream with a ticket, and notices that a ticket is invalid."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ras_triage.service.config.settings import Settings
from tests.service.support.browser_page import CHROMIUM, BrowserPage
from tests.service.support.service_with_keys import serving_with_keys
from tests.tools import missing_programs, require

DASHBOARD = """
const headers = { Authorization: KEYS.read, "Content-Type": "application/json" };
const event = JSON.stringify({ source: "page", id: "e-1", notification: "polled" });
const decided = await fetch(`${API}/v1/decisions`, { method: "POST", headers: { ...headers, Authorization: KEYS.decide }, body: event });
const { ticket } = await (await fetch(`${API}/v1/decisions/stream-tickets`, { method: "POST", headers })).json();
const follow = (query) => new EventSource(`${API}/v1/decisions/stream?${new URLSearchParams(query)}`);
const stream = follow({ ticket, last_event_id: "0" });
const followed = await new Promise((resolve) => stream.addEventListener("decision", resolve));
stream.close();
const refused = follow({ ticket: "expired" });
await new Promise((resolve) => { refused.onerror = resolve; });
report(JSON.stringify({
  status: decided.status,
  location: decided.headers.get("Location"),
  id: (await decided.json()).id,
  followed: JSON.parse(followed.data).id,
  gives_up: refused.readyState === EventSource.CLOSED,
}));
"""


@pytest.fixture
def page() -> Iterator[BrowserPage]:
    require(missing_programs(CHROMIUM), "chromium")
    page = BrowserPage()
    yield page
    page.close()


def shown(page: BrowserPage, *origins: str) -> str:
    """What the dashboard reports at a service that allows these origins."""
    with serving_with_keys(Settings(cors_origins=origins)) as service:
        keys = {scope: header["Authorization"] for scope, header in service.keys.items()}
        return page.run(f"const API = {json.dumps(service.url)}, KEYS = {json.dumps(keys)}; {DASHBOARD}")


def test_a_dashboard_of_an_allowed_origin_decides_and_follows(page: BrowserPage) -> None:
    report = json.loads(shown(page, page.origin))

    assert (report["status"], report["location"]) == (201, f"/v1/decisions/{report['id']}")
    assert report["followed"] == report["id"]
    assert report["gives_up"], "at 401 an EventSource does not reconnect: the page requests a new ticket"


def test_a_dashboard_of_another_origin_gets_nothing(page: BrowserPage) -> None:
    assert shown(page, "https://dashboard.example") == "TypeError: Failed to fetch"
