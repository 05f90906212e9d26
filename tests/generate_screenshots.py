"""Generator of the pictures of the web page: `make screenshots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import httpx
from playwright.sync_api import Browser

from ras_triage.service.cli.demo_run import _event
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.paths import ROOT
from tests.service.support.application import NDJSON, ndjson
from tests.service.support.browser import chromium, watched_page
from tests.service.support.page_events import page_events

PICTURES: Final = ROOT / "build" / "screenshots"
EVENTS: Final = 400
WINDOWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 860}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 860}},
    "narrow": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}
SOURCE: Final = "rack1-node01"
SETTLE_MS: Final = 1500
"""After the last request: the live feed keeps a connection open, so that the network is never idle."""


def store_examples(url: str) -> str:
    """Send the events of a small fleet and the facts of a host. Returns the id of one decision."""
    event = _event("6.12.107")
    httpx.put(f"{url}/v1/hosts/{SOURCE}", json=event["host"], timeout=60).raise_for_status()
    httpx.post(f"{url}/v1/decisions/batch", content=ndjson(page_events(EVENTS)), headers=NDJSON, timeout=60).raise_for_status()
    without_host = {name: value for name, value in event.items() if name != "host"} | {"source": SOURCE}
    httpx.post(f"{url}/v1/decisions", json=without_host, timeout=60).raise_for_status()
    decided: str = httpx.post(f"{url}/v1/decisions", json=event, timeout=60).json()["id"]
    return decided


def take(browser: Browser, url: str, places: Mapping[str, str]) -> None:
    """Write a picture of each place in each window."""
    for window, options in WINDOWS.items():
        with watched_page(browser, url, **options) as watched:
            for name, place in places.items():
                page = watched.open(place)
                page.wait_for_timeout(SETTLE_MS)
                page.screenshot(path=PICTURES / f"{name}-{window}.png", full_page=True)


def main() -> None:
    """Write the pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with running(Settings()) as url, chromium() as browser:
        decided = store_examples(url)
        places = {
            "overview": "",
            "decisions": "decisions",
            "decision": f"decisions/{decided}",
            "try": "try",
            "hosts": "hosts",
            "host": f"hosts/{SOURCE}",
            "policies": "policies",
            "difference": "policies?name=linux-6.12.42&compare=linux-6.12.43",
        }
        take(browser, url, places)
    print(f"pictures: {PICTURES}")


if __name__ == "__main__":
    main()
