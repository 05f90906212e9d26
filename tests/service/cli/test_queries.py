"""`query`, `show` and `watch` against a running service."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ras_triage.service.cli.commands.remote import show
from ras_triage.service.cli.main import main
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


def on_terminal(*arguments: str) -> str:
    """Return what a command prints on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ras_triage.service.cli.main", *arguments]
    environment = {**os.environ, "COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    subprocess.run(command, cwd=ROOT, stdout=theirs, env=environment, timeout=60, check=True)
    os.close(theirs)
    try:
        return os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)


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


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_a_table_has_a_line_for_each_decision_within_its_width(server: Service, columns: str) -> None:
    page = ask(server, "query", "--limit", "5", "--format", "table", COLUMNS=columns).stdout.decode()

    newest = lines(ask(server, "query", "--limit", "5", "--json").stdout)
    heading, *rows = page.splitlines()
    assert max(map(len, page.splitlines())) <= int(columns)
    assert heading.split()[:2] == ["decided", "action"]
    assert [row.split()[-1] for row in rows] == [one["id"][: len(rows[0].split()[-1])] for one in newest]
    assert ("sea recoverable memory" in page) == (columns != "60")
    assert ("linux-6.12.107" in page) == (columns == "140")
    assert ask(server, "query", "--source", "nobody", "--format", "table").stdout == b"no decisions\n"


def test_on_a_terminal_the_list_is_a_table_and_ids_of_it_can_be_shown(server: Service) -> None:
    page = on_terminal("query", "--limit", "3", "--server", server.url)
    heading, *rows = page.splitlines()
    assert re.match(r"decided +action +source +error +address +id", heading)
    for row, one in zip(rows, lines(ask(server, "query", "--limit", "3", "--json").stdout), strict=True):
        shown = ask(server, "show", row.split()[-1], "--json")
        assert json.loads(shown.stdout)["id"] == one["id"], shown.stderr


def test_in_a_pipe_the_list_has_columns_with_tabs(server: Service) -> None:
    done = ask(server, "query", "--limit", "2", "--since", "1h")
    (newest, second) = lines(ask(server, "query", "--limit", "2", "--json").stdout)
    assert [line.split("\t") for line in done.stdout.decode().splitlines()] == [
        [newest["decided_at"], newest["id"], "handled", "quiet", "polled", "-", "-", "-", "uniform"],
        [second["decided_at"], second["id"], "signal", "node-2", "sea", "recoverable", "memory", "0x56edd040", "linux-6.12.107"],
    ]
    assert done.stderr == b""


def test_a_list_that_is_cut_without_being_asked_to_says_so(server: Service) -> None:
    done = ask(server, "query")
    assert len(done.stdout.splitlines()) == 20
    assert done.stderr == b"ras-triage: the newest 20 decisions are shown; more with `--limit`\n"
    assert ask(server, "query", "--source", "node-1").stderr == b""


def test_the_formats_have_the_same_decisions(server: Service) -> None:
    query = ("query", "--source", "node-1", "--format")
    known = lines(ask(server, "query", "--source", "node-1", "--json").stdout)
    assert lines(ask(server, *query, "ndjson").stdout) == known
    assert json.loads(ask(server, *query, "json").stdout) == known
    rows = list(csv.DictReader(io.StringIO(ask(server, *query, "csv").stdout.decode())))
    assert len(known) == 10
    assert [{**row, "policy": {"name": row["policy"], "digest": row["policy_digest"]}} for row in rows] == [
        {
            **one,
            "policy_digest": one["policy"]["digest"],
            "sections": " ".join(one["sections"]),
            "physical_addresses": " ".join(one["physical_addresses"]),
        }
        for one in known
    ]
    assert json.loads(ask(server, "query", "--source", "nobody", "--format", "json").stdout) == []


def test_counts_have_the_formats_of_lists(server: Service) -> None:
    query = ("query", "--stats", "--bucket", "day", "--group-by", "source,action", "--source", "node-1", "--format")
    (stats,) = lines(ask(server, *query, "json").stdout)
    start = stats["buckets"][0]["start"]
    assert lines(ask(server, *query, "ndjson").stdout) == [{"start": start, "source": "node-1", "action": "signal", "count": 10}]
    assert ask(server, *query, "csv").stdout.decode() == f"start,source,action,count\r\n{start},node-1,signal,10\r\n"
    assert ask(server, *query[:-1]).stdout.decode() == f"{start}\tnode-1\tsignal\t10\n"


@pytest.mark.parametrize(
    ("option", "count"), [("--since=1h", 31), ("--until=1h", 0), ("--until=2026-11-22", 0), ("--since=2020-01-01", 31)]
)
def test_times_are_ages_dates_and_instants(server: Service, option: str, count: int) -> None:
    assert len(lines(ask(server, "query", "--json", option).stdout)) == count


def test_filters_take_several_values_and_prefixes(server: Service) -> None:
    assert len(lines(ask(server, "query", "--json", "--action", "signal,panic", "--source", "node-*").stdout)) == 30
    assert len(lines(ask(server, "query", "--json", "--source", "node-0,quiet").stdout)) == 11


def test_counts_are_grouped_as_asked(server: Service) -> None:
    (stats,) = lines(ask(server, "query", "--stats", "--group-by", "source,action", "--bucket", "day", "--json").stdout)

    groups = [group for bucket in stats["buckets"] for group in bucket["groups"]]
    assert sum(group["count"] for group in groups) == 31
    assert {group["source"] for group in groups} == {"node-0", "node-1", "node-2", "quiet"}
    page = ask(server, "query", "--stats", "--bucket", "day", "--format", "table").stdout.decode()
    assert re.search(r"signal +30", page)


def test_a_decision_is_shown_as_decide_shows_it(server: Service) -> None:
    (newest,) = lines(ask(server, "query", "--source", "node-2", "--limit", "1", "--json").stdout)
    shown = ask(server, "show", newest["id"], COLUMNS="100")
    event = ask(server, "show", newest["id"], "--event").stdout

    assert shown.returncode == 0
    assert shown.stdout == run("decide", "-", given=event, COLUMNS="100").stdout
    assert json.loads(event)["id"] == newest["event_id"]
    assert json.loads(ask(server, "show", newest["id"], "--json").stdout)["id"] == newest["id"]


def test_a_decision_is_shown_by_the_beginning_of_its_id(server: Service) -> None:
    decisions = lines(ask(server, "query", "--json").stdout)
    whole = decisions[7]["id"]
    for beginning in (whole[:35], whole[:28].upper(), whole[:28].replace("-", "")):
        assert json.loads(ask(server, "show", beginning, "--json").stdout)["id"] == whole
    assert json.loads(ask(server, "show", whole[:30], "--event").stdout)["id"] == decisions[7]["event_id"]


def test_an_ambiguous_beginning_lists_some_candidates(server: Service) -> None:
    decisions = lines(ask(server, "query", "--json").stdout)
    done = ask(server, "show", decisions[0]["id"][:4])
    told = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert told[0] == f"ras-triage: `{decisions[0]['id'][:4]}` is the beginning of several ids; expected more of one of them:"
    assert [line.split()[0] for line in told[1:-1]] == [one["id"] for one in decisions[:10]]
    assert told[-1] == "  ... and more"


def test_a_search_for_an_id_that_does_not_reach_all_decisions_says_so(
    server: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oldest = lines(ask(server, "query", "--json").stdout)[-1]["id"]
    for searched, complains in ((1000, False), (5, True)):
        monkeypatch.setattr(show, "_SCANNED", searched)
        assert main(["show", oldest[:34], "--server", server.url]) == (2 if complains else 0)
        shown = capsys.readouterr().err
        assert (f"only the newest 5 decisions of the time in `{oldest[:34]}` were searched" in shown) == complains


@pytest.mark.parametrize("beginning", ["0000", "ffffffffffff", "0192f0c1-7c5e", "x", "01a2-", "%"])
def test_a_beginning_that_no_id_has_is_not_found(server: Service, beginning: str) -> None:
    done = ask(server, "show", beginning)
    assert done.returncode == 2
    assert f"no decision `{beginning}`" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "00000000-0000-7000-8000-000000000000"], "not found"),
        (["show", ""], "argument ID: empty id; expected the id of a decision, or its beginning"),
        (["query", "--since", "yesterday"], "argument --since: invalid time `yesterday`; expected an RFC 3339 time"),
        (["query", "--json", "--format", "csv"], "not allowed with"),
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
