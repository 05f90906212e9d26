"""One decision in Chromium: its bytes, its way through the stages, its plan."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from ras_triage.service.cli.demo_run import _event
from tests.service.support.browser import Watched


@pytest.fixture
def story(watched: Watched, url: str) -> Page:
    identity = httpx.post(f"{url}/v1/decisions", json=_event("6.12.107"), timeout=60).json()["id"]
    return watched.open(f"decisions/{identity}")


def test_a_decision_says_what_happens_and_why(watched: Watched, story: Page) -> None:
    expect(story.locator(".verdict")).to_have_text("signal")
    expect(story.locator(".steps").first).to_contain_text("SIGBUS (BUS_MCEERR_AR) to thread 4711 of process 4711")
    expect(story.locator(".stage", has=story.get_by_role("heading", name="memory"))).to_contain_text("dirty LRU page: recovered")
    expect(story.locator(".stage", has=story.get_by_role("heading", name="guest"))).to_contain_text("not reached")
    expect(story.locator(".reasons")).to_contain_text("ghes_handle_arm_hw_error()")
    expect(story.get_by_role("img", name="4 KiB lost, from 0xffffbc6d1000")).to_have_count(2)
    watched.require_accessible()


def test_a_field_shows_its_bytes_and_bytes_show_their_field(story: Page) -> None:
    field = story.locator(".field-row", has_text="error_infos/0/physical_fault_address")
    field.focus()
    expect(field).to_contain_text("0x5cf5b040")
    assert story.locator(".byte.on").all_inner_texts() == ["40", "b0", "f5", "5c", "00", "00", "00", "00"]

    story.locator(".byte").nth(16).hover()
    expect(story.locator(".field-row.on")).to_contain_text("severity")
    expect(story.get_by_role("group", name="Bytes")).to_be_visible()


def test_a_list_leads_to_a_decision_and_back(watched: Watched) -> None:
    page = watched.open("decisions?action=translate")
    page.locator("tbody a").first.click()
    expect(page.locator(".steps").first).to_contain_text("guest memory of vm-1")
    expect(page.get_by_role("img", name="from host address")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("combobox", name="Action")).to_have_value("translate")


def test_an_unknown_decision_is_explained(watched: Watched) -> None:
    watched.expected.append("status of 404")
    page = watched.open("decisions/nothing")
    expect(page.get_by_role("alert")).to_contain_text("nothing")
