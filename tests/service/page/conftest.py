from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.application import NDJSON, ndjson
from tests.service.support.browser import Watched, chromium, watched_page
from tests.service.support.page_events import page_events


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service with decisions."""
    with running(Settings()) as url:
        body = ndjson(page_events())
        httpx.post(f"{url}/v1/decisions/batch", content=body, headers=NDJSON, timeout=60).raise_for_status()
        yield url


@pytest.fixture
def watched(browser: Browser, url: str) -> Iterator[Watched]:
    with watched_page(browser, url) as watched:
        yield watched
