"""Files of the page over HTTP."""

from __future__ import annotations

import re

import pytest

from ras_triage.service.page.assets import load_assets
from tests.service.support.application import Call

HTML = {"Accept": "text/html"}


@pytest.mark.parametrize("name", sorted(load_assets()))
def test_every_file_is_sent_with_its_type_and_a_strict_policy(shared_call: Call, name: str) -> None:
    answer = shared_call("GET", f"/page/{name}")

    assert (answer.status_code, answer.content) == (200, load_assets()[name].content)
    assert answer.headers["content-type"] == load_assets()[name].media_type
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_a_file_that_the_browser_has_is_not_sent_again(shared_call: Call) -> None:
    for path, headers in (("/page/app.js", {}), ("/", HTML)):
        etag = shared_call("GET", path, headers=headers).headers["etag"]
        again = shared_call("GET", path, headers=headers | {"If-None-Match": etag})
        assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")


def test_another_name_is_a_problem(shared_call: Call) -> None:
    assert shared_call("GET", "/page/nothing.js").json()["status"] == 404
    assert shared_call("GET", "/page/..%2Fassets.py").json()["status"] == 404


def test_the_page_names_only_relative_addresses_so_that_it_works_under_any_prefix() -> None:
    for name, asset in load_assets().items():
        text = asset.content.decode()
        outside = [link for link in re.findall(r"https?://[^\"' ]+", text) if not link.startswith("http://www.w3.org/")]
        assert outside == [], name
        assert re.findall(r"""(?:href|src)="/|import .*["']/|(?:get|post|request)\(["']/""", text) == [], name


def test_every_module_that_is_imported_exists() -> None:
    assets = load_assets()
    for name, asset in assets.items():
        assert {found for found in re.findall(r'from "\./([^"]+)"', asset.content.decode()) if found not in assets} == set(), name
