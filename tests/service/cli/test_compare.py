"""Command `compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.paths import ROOT
from tests.recorded_events import random_events
from tests.service.support.application import NOTHING_TO_QUEUE, ndjson, run

LOG = ROOT / "docs" / "examples" / "dmesg.txt"
POLICIES = ("--policy", "linux-6.12.42", "--policy", "linux-6.12.43")


def test_errors_that_kernels_decide_differently_are_counted_with_an_example(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(ndjson([NOTHING_TO_QUEUE, {"notification": "polled"}]))
    done = run("compare", *POLICIES, str(tmp_path / "events"), str(LOG))
    assert done.returncode == 0, done.stderr
    page = " ".join(done.stdout.decode().split())
    assert "linux-6.12.42 → linux-6.12.43 3 errors compared, 1 decided differently" in page
    assert "1 exceptions.nothing_queued handled → signal" in page
    assert "line 1 (node-17, sea, memory): handled → signal" in page


def test_the_policies_replace_those_of_the_events_and_their_kernels() -> None:
    event = {**NOTHING_TO_QUEUE, "policy": "uniform"}
    changes = compared([event])["changes"]
    assert [(one["before"], one["after"]) for one in changes["actions"]] == [("handled", "signal")]


def test_json_has_both_policies_and_all_counts() -> None:
    found = compared(random_events(), "--policy", "linux-6.1.100", "--policy", "linux-7.3.4")
    assert (found["before"]["name"], found["after"]["name"]) == ("linux-6.1.100", "linux-7.3.4")
    changes = found["changes"]
    assert changes["compared"] == len(random_events())
    assert changes["changed"] == sum(one["changed"] for one in changes["actions"])
    assert all(one["changed"] == one["count"] for one in changes["actions"] if one["before"] != one["after"])


def test_a_policy_compared_with_itself_changes_nothing() -> None:
    found = compared(random_events(), "--policy", "linux-6.1.100", "--policy", "linux-6.1.100")
    assert found["changes"]["changed"] == 0


@pytest.mark.parametrize("count", [1, 3])
def test_other_than_two_policies_are_refused(count: int) -> None:
    done = run("compare", *["--policy", "uniform"] * count, "-", given=b"")
    assert done.returncode == 2
    assert f"`--policy`: expected two policies, as in `--policy linux-6.1.100 --policy linux-7.3.4`; got {count}" in done.stderr.decode()


def test_an_unknown_policy_is_refused_before_files_are_read() -> None:
    done = run("compare", "--policy", "uniform", "--policy", "linux-x", "absent.txt")
    assert done.returncode == 2
    assert b"`x` is not a kernel release" in done.stderr
    assert b"absent.txt" not in done.stderr


def test_what_cannot_be_read_is_listed_and_has_its_own_status(tmp_path: Path) -> None:
    (tmp_path / "events").write_bytes(ndjson([NOTHING_TO_QUEUE]) + b"{broken\n")
    done = run("compare", *POLICIES, str(tmp_path / "events"), str(tmp_path / "absent"))
    assert done.returncode == 1
    assert b"events, line 2" in done.stderr
    assert b"absent" in done.stderr
    assert b"1 error compared" in done.stdout


def test_an_error_that_cannot_be_decided_is_listed_and_has_its_own_status() -> None:
    event = {**NOTHING_TO_QUEUE, "host": {"vms": [{"id": "v", "pid": 1, "vmm": "unheard-of"}]}}
    done = run("compare", *POLICIES, "-", given=ndjson([event, NOTHING_TO_QUEUE]))
    assert done.returncode == 1
    assert b"not decided: -, line 1" in done.stderr
    assert b"unheard-of" in done.stdout


def compared(events: list[dict[str, Any]], *policies: str) -> Any:
    done = run("compare", "--json", *(policies or POLICIES), "-", given=ndjson(events))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
