"""Shell and overview in Chromium."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Browser, expect

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT
from tests.service.support.browser import Watched, watched_page


def test_the_overview_shows_what_was_decided(watched: Watched) -> None:
    page = watched.open()
    assert page.title() == "Overview · ras-triage"
    expect(page.locator(".tile").first).to_contain_text("120")
    expect(page.get_by_role("img", name="120 decisions over time")).to_be_visible()
    for action in ("handled", "signal", "panic"):
        expect(page.locator(".legend")).to_contain_text(action)
    expect(page.locator(".ranking li")).to_have_count(20)
    expect(page.locator(".facts")).to_contain_text("Waiting to be stored")
    watched.require_accessible()


def test_a_range_of_time_is_in_the_url_and_survives_reload(watched: Watched) -> None:
    page = watched.open()
    page.get_by_role("link", name="7 days").click()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    page.reload()
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    page.go_back()
    expect(page.get_by_role("link", name="24 hours")).to_have_attribute("aria-current", "true")


def test_the_feed_shows_new_decisions_and_waits_while_paused(watched: Watched, url: str) -> None:
    page = watched.open()
    expect(page.get_by_role("status")).to_have_text("following")
    page.locator(".chart").wait_for()
    first = page.locator(".feed li").first
    httpx.post(f"{url}/v1/decisions", json=EVENT | {"source": "seen-at-once"})
    expect(first).to_contain_text("seen-at-once")
    place = page.locator(".feed").evaluate("feed => [feed.offsetTop, feed.offsetHeight]")

    page.get_by_role("button", name="Pause").click()
    httpx.post(f"{url}/v1/decisions", json=EVENT | {"source": "seen-later"})
    expect(page.get_by_role("status")).to_have_text("paused, 1 new")
    expect(first).to_contain_text("seen-at-once")
    page.get_by_role("button", name="Pause").click()
    expect(first).to_contain_text("seen-later")
    assert page.locator(".feed").evaluate("feed => [feed.offsetTop, feed.offsetHeight]") == place, "nothing moves"


def test_a_service_without_decisions_says_what_to_do(browser: Browser) -> None:
    with running(Settings()) as url, watched_page(browser, url) as watched:
        page = watched.open()
        expect(page.get_by_text("No decisions in the last 24 hours")).to_be_visible()
        watched.require_accessible()
        page = watched.open("decisions")
        expect(page.get_by_text("No decisions yet")).to_be_visible()


def test_a_service_that_stops_is_reported_and_can_be_asked_again(browser: Browser) -> None:
    with running(Settings()) as url, watched_page(browser, url) as watched:
        watched.expected += ["ERR_FAILED", "Failed to load resource"]
        page = watched.open()
        page.route("**/v1/decisions?**", lambda route: route.abort())
        watched.open("decisions")
        expect(page.get_by_role("alert")).to_contain_text("service not reachable")
        page.unroute("**/v1/decisions?**")
        page.get_by_role("button", name="Retry").click()
        expect(page.get_by_text("No decisions yet")).to_be_visible()


def test_a_page_that_does_not_exist_leads_back(watched: Watched) -> None:
    page = watched.open("nothing")
    page.get_by_role("link", name="Go to the overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_the_page_is_used_with_the_keyboard_alone(watched: Watched) -> None:
    page = watched.open()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="Decisions", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Decisions", level=1)).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_have_enough_contrast(browser: Browser, url: str, scheme: str) -> None:
    with watched_page(browser, url, color_scheme=scheme) as watched:
        for place in ("", "decisions"):
            watched.open(place).locator("tbody tr:visible, .feed li").first.wait_for()
            watched.require_accessible()


def test_nothing_is_wider_than_a_phone(browser: Browser, url: str) -> None:
    with watched_page(browser, url, viewport={"width": 390, "height": 844}) as watched:
        for place in ("", "decisions", "policies"):
            page = watched.open(place)
            page.locator("tbody tr:visible, .feed li").first.wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") == 390, place
            assert page.locator("#nav").evaluate("nav => nav.scrollWidth <= nav.clientWidth"), "every link is in sight"
