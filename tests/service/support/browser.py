"""Chromium, driven by Playwright: one browser, a fresh profile for each page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.tools import missing_programs, require

CHROMIUM: Final = "chromium"
TIMEOUT_MS: Final = 60_000
"""For a machine that is busy with other tests, too."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for as long as the context lasts. It must end before the module does: it keeps an event loop running in this thread."""
    require(missing_programs(CHROMIUM), CHROMIUM)
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])


class Watched:
    """A page of the service, and what must not happen on it: errors, violations of the policy, requests to anything else."""

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.faults: list[str] = []
        self.expected: list[str] = []
        """Parts of faults that a test provokes."""
        page.set_default_timeout(TIMEOUT_MS)
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"exception: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text} {message.location.get('url', '')}")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.faults.append(f"external request: {request.url}")

    def open(self, place: str = "") -> Page:
        """Go to a place of the page, as `decisions?action=panic`, and return it when its heading is there."""
        self.page.goto(f"{self.origin}/#/{place}")
        self.page.locator("h1").wait_for()
        return self.page

    def require_accessible(self) -> None:
        """Fail on what axe finds serious or critical."""
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        serious = [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found if one["impact"] in ("serious", "critical")]
        assert serious == []

    def unexpected_faults(self) -> list[str]:
        """Faults that the test did not expect."""
        return [fault for fault in self.faults if not any(part in fault for part in self.expected)]


@contextmanager
def watched_page(browser: Browser, origin: str, **options: Any) -> Iterator[Watched]:
    """A page in a profile of its own; at its end nothing unexpected must have happened."""
    context = browser.new_context(**options)
    watched = Watched(context.new_page(), origin)
    try:
        yield watched
    finally:
        context.close()
    assert watched.unexpected_faults() == []
