"""The root of the service."""

from __future__ import annotations

import pytest

from ras_triage.service.api.version import installed_version
from tests.service.support.application import Call


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_a_program_is_told_what_this_is_and_where_everything_is(call: Call, accept: str | None) -> None:
    answer = call("GET", "/", headers={} if accept is None else {"Accept": accept})
    document = answer.json()

    assert (document["name"], document["version"]) == ("ras-triage", installed_version())
    assert "accept" in answer.headers["vary"].lower()
    for name, path in document["links"].items():
        assert call("GET", path).status_code == 200, name


def test_a_browser_gets_the_page(call: Call) -> None:
    answer = call("GET", "/", headers={"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text.startswith("<!doctype html>")
    assert "accept" in answer.headers["vary"].lower()


def test_a_path_that_does_not_exist_is_still_a_problem(call: Call) -> None:
    assert call("GET", "/nothing").json()["detail"] == "no resource at `/nothing`; see `/docs`"
