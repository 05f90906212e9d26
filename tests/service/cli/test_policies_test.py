"""Command `policies test`: a table of expected decisions, and the rules that it reaches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.service.support.application import run

TABLE = """
policy: ours
cases:
  - name: an abort with a record without an address is retried
    event:
      notification: sea
      status_block: {severity: recoverable, sections: [{type: memory}]}
    expect: {action: handled, rules: [exceptions.nothing_queued], without: [signal, panic]}
  - name: a lost page of a process that was interrupted
    event: &abort
      notification: sea
      status_block: {severity: recoverable, sections: [{type: memory, physical_address: "0x56edd040"}]}
      host: {current: {pid: 103, tid: 104}}
    expect:
      action: signal
      certainty: depends
      plan:
        - {kind: queue_memory_failure, pfn: "0x56edd", flags: [action_required]}
        - {kind: signal, tid: 104, code: BUS_MCEERR_AR}
"""
OURS = 'name = "ours"\nbase = "linux-6.12.107"\n\n[flags]\nsea_kills_when_nothing_queued = false\n'


@pytest.fixture
def ours(tmp_path: Path) -> str:
    path = tmp_path / "ours.toml"
    path.write_text(OURS, encoding="utf-8")
    return str(path)


def test_a_table_that_holds_has_status_0_and_shows_the_rules_it_does_not_reach(ours: str) -> None:
    done = run("policies", "test", "-", "--policy-file", ours, given=TABLE.encode(), COLUMNS="120")
    assert done.returncode == 0, done.stderr
    page = done.stdout.decode()
    assert "2 of 2 cases as expected" in page
    assert "Rules reached: " in page
    assert "exceptions.serror" in page.partition("not reached")[2]


def test_each_difference_is_named_and_the_status_is_1(ours: str) -> None:
    other = TABLE.replace("policy: ours", "policy: linux-6.12.107").replace("tid: 104, code", "tid: 105, code")
    done = run("policies", "test", "-", "--json", "--policy-file", ours, given=other.encode())
    assert done.returncode == 1
    result = json.loads(done.stdout)
    first, second = result["cases"]
    assert (result["policy"], result["failed"]) == ("linux-6.12.107", 2)
    assert first["differences"] == ["action `signal`; expected `handled`", "the plan has a step `signal`"]
    assert second["differences"] == ['no step in `plan` after the one before is `{"kind":"signal","tid":105,"code":"BUS_MCEERR_AR"}`']
    assert "exceptions.nothing_queued" in result["reached"]
    assert not set(result["reached"]) & set(result["unreached"])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("policy: [", "not valid YAML"),
        ("policy: uniform", "`/cases`"),
        ("policy: uniform\ncases: []", "`/cases`"),
        (TABLE.replace("action: handled", "action: handeld"), "`/cases/0/expect/action`"),
        (TABLE.replace("notification: sea", "notification: seax"), "`/cases/0/event/notification"),
        (TABLE.replace("rules:", "rule:"), "`/cases/0/expect/rule`"),
        (TABLE, "unknown policy"),
    ],
)
def test_a_table_that_is_wrong_is_bad_input_with_its_place(table: str, words: str) -> None:
    done = run("policies", "test", "-", given=table.encode())
    assert done.returncode == 2
    assert words in done.stderr.decode()


def test_a_table_needs_the_word_test() -> None:
    done = run("policies", "uniform", "table.yaml")
    assert done.returncode == 2
    assert b"policies test TABLE" in done.stderr


def test_the_table_of_the_page_holds_for_the_policy_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
    policy, table = tmp_path / "ours.toml", tmp_path / "expected.yaml"
    for file, language in ((policy, "toml"), (table, "yaml")):
        (content,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        file.write_text(content, encoding="utf-8")
    done = run("policies", "test", str(table), "--policy-file", str(policy))
    assert (done.returncode, done.stderr) == (0, b"")
