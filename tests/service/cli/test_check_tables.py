"""Command `check-tables`: counts, digest and exit status of a policy's decision grid."""

from __future__ import annotations

import json
from pathlib import Path

from ras_triage.policies.decision_grid import committed_grids
from tests.service.support.application import run

OURS = 'name = "ours"\nbase = "linux-6.12.107"\n\n[flags]\nsea_kills_when_nothing_queued = false\n'


def test_a_grid_that_is_committed_is_compared_with_it() -> None:
    done = run("check-tables", "linux-6.12.107", "--json")
    found, committed = json.loads(done.stdout), committed_grids()["linux-6.12.107"]
    assert done.returncode == 0
    assert {name: found[name] for name in ("digest", "points", "actions")} == committed
    assert (found["committed"], found["faults"], sum(found["totals"].values())) == ("same", [], found["points"])


def test_a_custom_policy_is_checked_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(OURS, encoding="utf-8")
    done = run("check-tables", "ours", "--policy-file", str(file), COLUMNS="160")
    assert done.returncode == 0
    assert "not committed" in done.stdout.decode()
    assert "Every point has exactly one outcome." in done.stdout.decode()


def test_an_unknown_policy_is_bad_input() -> None:
    done = run("check-tables", "linux-6.12.107", "uniforn")
    assert done.returncode == 2
    assert b"uniforn" in done.stderr
    assert done.stdout == b""
