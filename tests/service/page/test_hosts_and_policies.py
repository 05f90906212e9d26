"""Hosts and policies in Chromium."""

from __future__ import annotations

import httpx
from playwright.sync_api import expect

from tests.service.support.application import EVENT
from tests.service.support.browser import Watched


def test_a_host_has_its_facts_and_versions_and_its_pages_are_forgotten_after_a_restart(watched: Watched, url: str) -> None:
    for size in (4096, 65536):
        httpx.put(f"{url}/v1/hosts/restarted", json={**EVENT["host"], "page_size": size}, timeout=60).raise_for_status()
    event = {name: value for name, value in EVENT.items() if name != "host"} | {"source": "restarted"}
    httpx.post(f"{url}/v1/decisions", json=event, timeout=60).raise_for_status()

    page = watched.open("hosts")
    page.get_by_role("link", name="restarted").first.click()
    expect(page.locator(".facts")).to_contain_text("64 KiB")
    page.get_by_role("navigation", name="Versions").get_by_role("link", name="1").click()
    expect(page.locator(".facts")).to_contain_text("4 KiB")
    expect(page.get_by_role("cell", name="0x56ed0000")).to_be_visible()
    watched.require_accessible()
    page.get_by_role("button", name="Forget after restart…").click()
    page.get_by_role("button", name="Forget them").click()
    expect(page.get_by_text("No poisoned pages")).to_be_visible()
    assert httpx.get(f"{url}/v1/poisoned-pages/restarted").json()["pages"] == []


def test_two_releases_are_compared(watched: Watched) -> None:
    page = watched.open("policies")
    expect(page.get_by_role("heading", name="Releases that changed a behaviour")).to_be_visible()
    page.get_by_label("Policy", exact=True).fill("linux-6.12.42")
    page.get_by_label("Compare with").fill("linux-6.12.43")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("region", name="Differences of")).to_contain_text("sea_kills_when_nothing_queued")
    assert page.url.endswith("#/policies?name=linux-6.12.42&compare=linux-6.12.43")
    watched.require_accessible()
    page.get_by_role("link", name="6.12.43", exact=True).click()
    expect(page.get_by_role("region", name="Behaviours of linux-6.12.43")).to_contain_text("recorded")
