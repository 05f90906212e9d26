"""List of decisions in Chromium: filters, pages, columns, export."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.service.support.browser import Watched


def test_a_filter_is_in_the_url_and_survives_reload_and_back(watched: Watched) -> None:
    page = watched.open("decisions")
    page.get_by_role("combobox", name="Action").select_option("panic")
    page.get_by_role("button", name="Apply").click()
    rows = page.locator("tbody tr")
    expect(page.locator("tbody .badge.signal")).to_have_count(0)
    expect(page.locator("tbody .badge.panic").first).to_be_visible()
    count = rows.count()
    assert page.url.endswith("#/decisions?action=panic")

    page.reload()
    expect(rows).to_have_count(count)
    expect(page.get_by_role("combobox", name="Action")).to_have_value("panic")
    page.go_back()
    expect(page.get_by_role("combobox", name="Action")).to_have_value("")
    expect(rows).to_have_count(50)
    watched.require_accessible()


def test_pages_lead_to_older_decisions_and_back(watched: Watched) -> None:
    page = watched.open("decisions")
    first = page.locator("tbody tr").first
    newest = first.inner_text()
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newest")).to_be_visible()
    assert first.inner_text() != newest
    page.go_back()
    expect(page.get_by_role("link", name="Newest")).to_have_count(0)
    assert first.inner_text() == newest


def test_columns_are_chosen(watched: Watched) -> None:
    page = watched.open("decisions")
    headers = page.get_by_role("columnheader")
    expect(headers.filter(has_text="Policy")).to_be_visible()
    page.get_by_text("Columns").first.click()
    page.get_by_role("checkbox", name="Policy").uncheck()
    expect(headers.filter(has_text="Policy")).to_have_count(0)
    page.get_by_role("checkbox", name="Event id").check()
    expect(headers.filter(has_text="Event id")).to_be_visible()
    page.reload()
    expect(headers.filter(has_text="Event id")).to_be_visible()


def test_what_is_shown_is_exported(watched: Watched) -> None:
    page = watched.open("decisions?action=panic")
    page.locator("tbody tr").first.wait_for()
    count = page.locator("tbody tr").count()
    with page.expect_download() as csv:
        page.get_by_role("link", name="CSV").click()
    lines = csv.value.path().read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + count
    assert "action" in lines[0]
    with page.expect_download() as ndjson:
        page.get_by_role("button", name="NDJSON").click()
    decisions = [json.loads(line) for line in ndjson.value.path().read_text(encoding="utf-8").splitlines()]
    assert {decision["action"] for decision in decisions} == {"panic"}
    assert len(decisions) == count


def test_an_invalid_filter_is_explained(watched: Watched) -> None:
    watched.expected.append("status of 422")
    page = watched.open("decisions?physical_address=0xzz")
    expect(page.get_by_role("alert")).to_contain_text("physical_address")
    watched.require_accessible()


def test_filters_that_match_nothing_can_be_cleared(watched: Watched) -> None:
    page = watched.open("decisions?source=nobody")
    page.get_by_role("link", name="Clear the filters").click()
    expect(page.locator("tbody tr")).to_have_count(50)
