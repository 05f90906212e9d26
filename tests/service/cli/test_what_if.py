"""Option `--what-if` of `decide`."""

from __future__ import annotations

import json

from tests.service.support.application import EVENT, run

VAGUE = json.dumps({"notification": "sea", "status_block": EVENT["status_block"], "host": {"kernel": "6.12.107"}}).encode()


def test_the_page_has_a_condition_for_each_action_and_the_smallest_change() -> None:
    done = run("decide", "-", "--what-if", given=VAGUE, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    page = done.stdout.decode()
    assert page.startswith("SIGNAL  linux-6.12.107 with the assumed facts")
    assert "Actions of all 60 combinations" in page
    assert "page: free, free_pcp, swap_cache clean, page_cache clean" in page
    assert "HANDLED with page = free" in page


def test_json_is_that_of_the_http_interface_without_an_id() -> None:
    done = run("decide", "-", "--what-if", "--json", "--policy", "linux-7.3.4", "--policy", "uniform", given=VAGUE)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(found["id"], found["policy"]["name"]) for found in answers] == [(None, "linux-7.3.4"), (None, "uniform")]


def test_the_status_is_that_of_the_action_with_the_assumed_facts() -> None:
    assert run("decide", "-", "--what-if", "--fail-on", "signal", given=VAGUE).returncode == 3
    assert run("decide", "-", "--what-if", "--fail-on", "panic", given=VAGUE).returncode == 0


def test_lines_have_no_alternatives() -> None:
    done = run("decide", "--ndjson", "-", "--what-if", given=VAGUE)
    assert done.returncode == 2
    assert b"no `--what-if`" in done.stderr
