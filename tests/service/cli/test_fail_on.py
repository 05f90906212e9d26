"""Exit status for actions that a check in CI does not accept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.support.application import EVENT, run
from tests.service.support.server_process import Service, serving

SIGNAL = json.dumps(EVENT).encode()
HANDLED = json.dumps({"notification": "polled", "source": "quiet"}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ([], 0),
        (["--fail-on", "signal"], 3),
        (["--fail-on", "panic"], 0),
        (["--fail-on", "handled"], 0),
        (["--fail-on", "panic,signal"], 3),
        (["--fail-on", "panic", "--fail-on", "signal"], 3),
    ],
)
def test_the_status_is_3_where_a_decision_has_exactly_such_an_action(server: Service, options: list[str], status: int) -> None:
    for command in (["decide"], ["decide", "--ndjson"], ["import"], ["submit", "--server", server.url]):
        done = run(*command, "-", *options, given=SIGNAL + b"\n")
        assert done.returncode == status, (command, done.stderr)
        assert b"signal" in done.stdout.lower()


def test_one_of_several_decisions_is_enough() -> None:
    assert run("decide", "--ndjson", "-", "--fail-on", "signal", given=HANDLED + b"\n" + SIGNAL).returncode == 3
    compared = run("decide", "-", "--compare", "uniform", "--fail-on", "signal", given=SIGNAL)
    assert compared.returncode == 3


@pytest.mark.parametrize(("command", "status"), [(["decide", "--ndjson"], 2), (["import"], 1)])
def test_an_incomplete_result_has_its_own_status(tmp_path: Path, command: list[str], status: int) -> None:
    (tmp_path / "events").write_bytes(SIGNAL + b"\n{broken\n")
    assert run(*command, str(tmp_path / "events"), "--fail-on", "signal").returncode == status


def test_an_unknown_action_is_refused_with_the_closest_one() -> None:
    done = run("decide", "-", "--fail-on", "panic,signl", given=SIGNAL)
    assert done.returncode == 2
    assert b"unknown action `signl`; expected one of handled, signal, translate, inject, panic; did you mean `signal`?" in done.stderr
