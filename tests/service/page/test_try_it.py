"""What a person tries, in Chromium: nothing is stored."""

from __future__ import annotations

import json

import httpx
from playwright.sync_api import expect

from ras_triage.service.cli.demo_run import _RECORD
from tests.paths import ROOT
from tests.service.support.browser import Watched


def test_two_policies_decide_side_by_side_as_one_types(watched: Watched, url: str) -> None:
    before = httpx.get(f"{url}/v1/store").json()["decisions"]
    page = watched.open("try")
    first, second = page.locator(".outcome").first, page.locator(".outcome").last
    expect(first).to_have_attribute("data-action", "signal")
    expect(second).to_contain_text("uniform")
    watched.require_accessible()

    event = (ROOT / "docs" / "examples" / "corrected-abort.json").read_text(encoding="utf-8")
    page.get_by_role("textbox", name="Input").fill(event)
    expect(page.locator(".differs").first).to_have_text("The policies differ: signal and handled.")
    page.reload()
    expect(page.locator(".differs").first).to_have_text("The policies differ: signal and handled.")
    assert json.loads(page.get_by_role("textbox", name="Input").input_value()) == json.loads(event)
    assert httpx.get(f"{url}/v1/store").json()["decisions"] == before


def test_a_record_in_base64_and_a_kernel_log_are_understood(watched: Watched) -> None:
    page = watched.open("try")
    page.get_by_role("textbox", name="Input").fill(_RECORD)
    expect(page.locator(".steps").first).to_contain_text("ARM processor error")
    page.get_by_role("textbox", name="Input").fill("hello")
    expect(page.locator(".result").first).to_contain_text("not read: unknown format")
    page.get_by_label("File, or drop it here").set_input_files(ROOT / "docs" / "examples" / "dmesg.txt")
    expect(page.locator(".outcome").first).to_be_visible()


def test_a_mistake_is_explained_where_it_is(watched: Watched) -> None:
    watched.expected.append("status of 4")
    page = watched.open("try")
    page.get_by_role("textbox", name="Input").fill('{"notification": "seax"}')
    expect(page.get_by_role("alert").first).to_contain_text("seax")


def test_an_event_is_built_in_a_form(watched: Watched) -> None:
    page = watched.open("try")
    page.get_by_text("Build an event in a form").click()
    page.get_by_label("Severity").select_option("fatal")
    page.get_by_role("button", name="Build").click()
    expect(page.locator(".outcome").first).to_have_attribute("data-action", "panic")
