"""`query`, `show` and `watch` against a running service."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ras_triage.service.client import Client
from tests.paths import ROOT
from tests.service.support.application import EVENT, run
from tests.service.support.server_process import Service, interruptible, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        with Client(service.url) as client:
            for number in range(30):
                client.decide({**EVENT, "id": f"e-{number}", "source": f"node-{number % 3}"})
            client.decide({"source": "quiet", "notification": "polled"})
        yield service


def ask(server: Service, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return run(*arguments, RAS_TRIAGE_URL=server.url, **environment)


def lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_query_gives_all_that_fits_newest_first(server: Service) -> None:
    done = ask(server, "query", "--source", "node-1", "--action", "signal", "--physical-address", "0x56edd040", "--json")

    assert (done.returncode, done.stderr) == (0, b"")
    assert [one["event_id"] for one in lines(done.stdout)] == [f"e-{number}" for number in range(28, 0, -3)]
    assert lines(done.stdout)[0]["physical_addresses"] == ["0x56edd040"]
    assert lines(ask(server, "query", "--source", "nobody", "--json").stdout) == []
    assert len(lines(ask(server, "query", "--json", "--limit", "4").stdout)) == 4
    assert len(lines(ask(server, "query", "--json").stdout)) == 31


@pytest.mark.parametrize("columns", ["80", "140"])
def test_a_list_keeps_within_its_width_and_shows_ids_whole(server: Service, columns: str) -> None:
    page = ask(server, "query", "--limit", "5", COLUMNS=columns).stdout.decode()

    newest = lines(ask(server, "query", "--limit", "5", "--json").stdout)
    assert max(map(len, page.splitlines())) <= int(columns)
    assert all(one["id"] in page for one in newest)
    assert "polled no record" in page
    assert "sea recoverable memory" in page
    assert ask(server, "query", "--source", "nobody").stdout == b"no decisions\n"


def test_counts_are_grouped_as_asked(server: Service) -> None:
    (stats,) = lines(ask(server, "query", "--stats", "--group-by", "source,action", "--bucket", "day", "--json").stdout)

    groups = [group for bucket in stats["buckets"] for group in bucket["groups"]]
    assert sum(group["count"] for group in groups) == 31
    assert {group["source"] for group in groups} == {"node-0", "node-1", "node-2", "quiet"}
    page = ask(server, "query", "--stats", "--bucket", "day").stdout.decode()
    assert re.search(r"signal +30", page)


def test_a_decision_is_shown_as_decide_shows_it(server: Service) -> None:
    (newest,) = lines(ask(server, "query", "--source", "node-2", "--limit", "1", "--json").stdout)
    shown = ask(server, "show", newest["id"], COLUMNS="100")
    event = ask(server, "show", newest["id"], "--event").stdout

    assert shown.returncode == 0
    assert shown.stdout == run("decide", "-", given=event, COLUMNS="100").stdout
    assert json.loads(event)["id"] == newest["event_id"]
    assert json.loads(ask(server, "show", newest["id"], "--json").stdout)["id"] == newest["id"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "00000000-0000-7000-8000-000000000000"], "not found"),
        (["query", "--since", "yesterday"], "`--since`"),
        (["query", "--stats", "--group-by", "colour"], "`--group-by`"),
        (["query", "--group-by", "action"], "`--group-by` and `--bucket` need `--stats`"),
        (["query", "--stats", "--limit", "3"], "`--limit` and `--stats` exclude each other"),
        (["query", "--limit", "0"], "invalid limit `0`"),
        (["watch", "--after", "nonsense"], "ast-"),
    ],
)
def test_what_the_service_refuses_is_exit_2_with_its_words(server: Service, arguments: list[str], complaint: str) -> None:
    done = ask(server, *arguments)

    assert done.returncode == 2
    assert done.stdout == b""
    assert complaint.lower() in done.stderr.decode().lower()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.parametrize("as_json", [True, False])
def test_watching_tells_decisions_as_they_are_made_and_where_to_go_on(server: Service, as_json: bool) -> None:
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "watch", "--server", server.url, "--source", "watched", "--after", "0"]
    with (
        subprocess.Popen(
            [*command, *(["--json"] if as_json else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=interruptible,  # noqa: PLW1509 - it only sets a signal
        ) as process,
        Client(server.url) as client,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        for number in range(3):
            answer = client.decide({**EVENT, "source": "watched", "id": f"{as_json}-{number}"})
            line = process.stdout.readline().decode()
            while answer.id not in line:  # what an earlier run of this test left
                line = process.stdout.readline().decode()
            assert "signal" in line
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().decode()

    assert process.returncode == 130
    assert re.search(r"resume with `--after \d+`", told)
    assert "Traceback" not in told


def test_a_reader_that_goes_away_is_no_failure(server: Service) -> None:
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "query", "--json", "--server", server.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
