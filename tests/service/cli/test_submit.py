"""`submit`: order, resume, interruption, refused events."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.submission import SubmissionCounts, read_events, resume_output, submitted_input
from ras_triage.service.client import Client
from tests.paths import ROOT
from tests.service.support.application import EVENT, run
from tests.service.support.server_process import Service, interruptible, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Seven hundred events that nothing but their place in this file tells apart."""
    return write(tmp_path / "events.ndjson", [{**EVENT, "source": f"{tmp_path.name}-{number % 7}"} for number in range(700)])


def write(path: Path, events: list[Any]) -> Path:
    path.write_bytes(b"".join((event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n" for event in events))
    return path


def submit(server: Service, *arguments: str | Path, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    return run("submit", *map(str, arguments), given=given, RAS_TRIAGE_URL=server.url, **environment)


def answers(lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


def identities(lines: bytes) -> list[str]:
    return [answer["id"] for answer in answers(lines)]


def test_a_dry_run_decides_and_keeps_nothing(server: Service, events: Path, tmp_path: Path) -> None:
    done, again = (submit(server, "--dry-run", events) for _ in range(2))

    assert (done.returncode, done.stderr) == (0, b"ras-triage: 700 decided: signal 700\n")
    assert done.stdout == again.stdout
    assert [(answer["index"], answer["id"]) for answer in answers(done.stdout)] == [(number, None) for number in range(700)]
    refused = submit(server, "--dry-run", events, "--output", tmp_path / "out")
    assert refused.returncode == 2
    assert b"`--dry-run` and `--output` exclude each other" in refused.stderr


def test_a_view_of_summaries_can_be_resumed(server: Service, events: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.write_bytes(b"".join(submit(server, "--view", "summary", events).stdout.splitlines(keepends=True)[:600]))
    done = submit(server, "--view", "summary", events, "--output", output)

    assert b"600 from an earlier run" in done.stderr
    found = answers(output.read_bytes())
    assert [answer["index"] for answer in found] == list(range(700))
    assert set(found[-1]) == {"index", "event_id", "id", "repeat", "action", "certainty", "event_key"}


def test_a_file_is_decided_line_by_line_in_order_and_kept(server: Service, events: Path) -> None:
    done = submit(server, events)

    decided = answers(done.stdout)
    assert done.returncode == 0
    assert [answer["source"] for answer in decided] == [json.loads(line)["source"] for line in events.read_bytes().splitlines()]
    assert len(set(identities(done.stdout))) == 700
    assert done.stderr == b"ras-triage: 700 decided: signal 700\n"
    shown = json.loads(run("show", decided[-1]["id"], "--json", "--server", server.url).stdout)
    assert {"index": 699, "event_id": None, **shown} == decided[-1]


def test_a_file_that_is_sent_again_is_recognised_event_by_event(server: Service, events: Path) -> None:
    first, again = submit(server, events), submit(server, events)

    assert identities(again.stdout) == identities(first.stdout)
    assert b"700 decided (700 repeats)" in again.stderr


def test_it_goes_on_behind_the_whole_answers_that_are_there(server: Service, events: Path, tmp_path: Path) -> None:
    whole = submit(server, events).stdout
    out = tmp_path / "answers.ndjson"
    lines = whole.splitlines(keepends=True)
    for kept in (0, 499, 500, 700):
        out.write_bytes(b"".join(lines[:kept]) + (lines[kept][:50] if kept < 700 else b""))
        done = submit(server, events, "--output", out)

        assert done.returncode == 0
        assert done.stdout == b""
        assert identities(out.read_bytes()) == identities(whole)
        assert out.read_bytes().startswith(b"".join(lines[:kept]))
        assert (f"{kept} from an earlier run" in done.stderr.decode()) == (kept > 0)


def test_answers_for_other_events_are_not_gone_on_with(server: Service, events: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.ndjson"
    submit(server, events, "--output", out)
    before = out.read_bytes()

    other = write(tmp_path / "other.ndjson", [{**EVENT, "source": "other"}] * 700)
    done = submit(server, other, "--output", out)
    assert (done.returncode, out.read_bytes()) == (2, before)
    assert "its last result is not for event 700" in done.stderr.decode()

    shorter = write(tmp_path / "shorter.ndjson", [EVENT])
    done = submit(server, shorter, "--output", out)
    assert (done.returncode, out.read_bytes()) == (2, before)
    assert "it has 700 results, the input 1 event" in done.stderr.decode()


@pytest.mark.parametrize("content", [b"precious\n", b"precious", b"[1, 2]\n", b'{"a": 1}\n', b"\0" * 100])
def test_a_file_that_is_no_answers_is_left_alone(tmp_path: Path, content: bytes) -> None:
    letters = tmp_path / "letters"
    letters.write_bytes(content)

    with pytest.raises(ProblemError, match="line 1 is not a result"), resume_output(letters, SubmissionCounts()):
        pass
    assert letters.read_bytes() == content


def test_a_bad_event_has_its_problem_in_its_place(server: Service, tmp_path: Path) -> None:
    pretty = json.dumps(EVENT).encode().replace(b", ", b",\r")
    file = write(tmp_path / "events.ndjson", [EVENT, b"nonsense", b"", {"notification": "sea", "unknown": 1}, pretty])
    done = submit(server, file)

    assert done.returncode == 2
    assert [answer.get("action") or answer["type"].rpartition(":")[2] for answer in answers(done.stdout)] == [
        "signal",
        "invalid-json",
        "invalid-event",
        "signal",
    ]
    assert "2 refused: invalid-json 1, invalid-event 1" in done.stderr.decode()


def test_an_array_is_decided_element_by_element(server: Service, tmp_path: Path) -> None:
    array, lines = tmp_path / "events.json", tmp_path / "events.ndjson"
    events = [{**EVENT, "source": f"array-{number}"} for number in range(3)]
    array.write_text("\n " + json.dumps(events, indent=2))
    write(lines, events)

    assert [answer["event_key"] for answer in answers(submit(server, array).stdout)] == [
        answer["event_key"] for answer in answers(submit(server, lines).stdout)
    ]


def test_standard_input_is_decided_but_cannot_be_gone_on_with(server: Service, tmp_path: Path) -> None:
    line = json.dumps(EVENT).encode()
    out = tmp_path / "answers.ndjson"
    assert len(answers(submit(server, "-", given=line + b"\n" + line).stdout)) == 2
    assert submit(server, "-", "--output", out, given=line).returncode == 0

    again = submit(server, "-", "--output", out, given=line)
    assert again.returncode == 2
    assert "input from a pipe cannot be resumed" in again.stderr.decode()


def test_an_interruption_keeps_what_was_answered_and_says_how_to_go_on(server: Service, events: Path, tmp_path: Path) -> None:
    out = tmp_path / "answers.ndjson"
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "submit", "-", "--linger", "60", "--output", str(out)]
    command += ["--server", server.url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, preexec_fn=interruptible) as process:  # noqa: PLW1509
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(events.read_bytes())
        process.stdin.flush()
        while not out.exists() or out.read_bytes().count(b"\n") < 500:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().decode()

    assert process.returncode == 130
    assert len(answers(out.read_bytes())) == 500
    assert "500 decided" in told
    assert "from its beginning" in told
    assert "Traceback" not in told


def test_a_service_that_is_not_there_is_exit_1_at_once(events: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    done = run("submit", str(events), "--server", url)

    assert done.returncode == 1
    assert f"no response from `{url}`" in done.stderr.decode()
    assert "run the same command again" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["/nonexistent"], "no such file"),
        (["-", "--server", "ftp://x"], "expected http:// or https://"),
        (["-", "--server", "http://x:y"], "invalid URL"),
        (["-", "--token-file", "/nonexistent"], "no such file"),
        (["-", "--token-file", "/dev/null"], "`/dev/null`: invalid token"),
        (["-", "--ca-file", "/nonexistent"], "`/nonexistent`: no such file"),
        (["-", "--ca-file", "/dev/null"], "`/dev/null`: no certificate in PEM"),
        (["-", "--output", "/nonexistent/x"], "no such file"),
    ],
)
def test_what_cannot_be_begun_is_exit_2(arguments: list[str], complaint: str) -> None:
    done = run("submit", *arguments)

    assert done.returncode == 2
    assert complaint in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_token_that_is_none_is_exit_2_and_is_not_shown() -> None:
    done = run("submit", "-", RAS_TRIAGE_TOKEN="rt_1_secret and more")

    assert done.returncode == 2
    assert "`RAS_TRIAGE_TOKEN`: invalid token" in done.stderr.decode()
    assert "secret" not in done.stderr.decode()


class _Page(BaseHTTPRequestHandler):
    """What a proxy that wants somebody to log in answers to everything."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>\nlog in\n</html>\n")

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.mark.parametrize("command", [["submit", "-"], ["query"], ["query", "--stats"], ["show", "x"], ["show", "x", "--json"], ["watch"]])
def test_what_is_no_service_is_exit_1_and_its_page_is_no_result(command: list[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as page:
        Thread(target=page.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        done = run(*command, "--server", f"http://127.0.0.1:{page.server_port}", given=json.dumps(EVENT).encode())
        page.shutdown()

    assert (done.returncode, done.stdout) == (1, b"")
    assert "unexpected media type `text/html`" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_full_disk_for_the_answers_is_told(server: Service, events: Path) -> None:
    done = submit(server, events, "--output", "/dev/full")

    assert done.returncode == 1
    assert "no space left on device" in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_leaves_nothing_behind(server: Service, events: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "submit", str(events), "--server", server.url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, cwd=ROOT, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)

    assert process.returncode == 0
    assert b"done" in shown
    assert shown.rstrip().endswith(b"signal 700")


def test_a_service_that_is_killed_and_comes_back_on_the_way_loses_and_doubles_nothing(tmp_path: Path) -> None:
    events = write(tmp_path / "events.ndjson", [{**EVENT, "source": f"s-{number}"} for number in range(3000)])
    out = tmp_path / "answers.ndjson"
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service:
        command = [
            sys.executable,
            "-m",
            "ras_triage.service.cli.main",
            "submit",
            str(events),
            "--output",
            str(out),
            "--server",
            service.url,
        ]
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
            for wanted in (100, 1100, 2300):
                while not out.exists() or out.read_bytes().count(b"\n") < wanted:
                    assert process.poll() is None
                service.kill()
                service.start()
            assert process.wait(120) == 0
        with Client(service.url) as client:
            kept = {one.id: one.source for one in client.decisions(page_size=1000)}

    given = answers(out.read_bytes())
    assert [answer["source"] for answer in given] == [f"s-{number}" for number in range(3000)]
    assert {answer["id"]: answer["source"] for answer in given} == kept
    assert len(kept) == 3000


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


class LivePipe:
    """`submit` with a pipe that stays open."""

    def __init__(self, server: Service, *options: str) -> None:
        command = [sys.executable, "-m", "ras_triage.service.cli.main", "submit", "-", "--server", server.url, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)

    def send(self, *sources: str, end: bytes = b"\n") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n".join(json.dumps({**EVENT, "source": source}).encode() for source in sources) + end)
        self.process.stdin.flush()

    def is_quiet(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], seconds)[0]

    def receive(self) -> str:
        assert self.process.stdout is not None
        source: str = json.loads(self.process.stdout.readline())["source"]
        return source

    def __enter__(self) -> LivePipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate(timeout=30)


def test_events_of_a_live_pipe_are_decided_while_it_stays_open(server: Service) -> None:
    with LivePipe(server, "--linger", "0.2") as pipe:
        for round_ in ("a", "b"):
            pipe.send(f"{round_}-1", f"{round_}-2")
            assert not pipe.is_quiet(20)
            assert [pipe.receive(), pipe.receive()] == [f"{round_}-1", f"{round_}-2"]
        pipe.send("c", end=b"")  # the line is not complete, so it waits for its end
        assert pipe.is_quiet(0.6)
    assert pipe.process.returncode == 0


def test_without_the_option_a_live_pipe_waits_a_second(server: Service) -> None:
    with LivePipe(server) as pipe:
        pipe.send("a")
        pipe.receive()
        started = monotonic()
        pipe.send("b")
        assert pipe.receive() == "b"
        assert 0.9 < monotonic() - started < 10


def test_events_that_keep_coming_do_not_delay_the_first() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        events = read_events(stream, 0.1)
        seen: list[bytes | None] = []
        while None not in seen:
            assert len(seen) < 1000
            pipe.write(b"{}\n")
            seen.append(next(events))
            sleep(0.01)
    assert 1 <= len(seen) - 1 <= 20


def test_a_file_is_sent_in_the_same_groups_however_slowly_it_is_read(tmp_path: Path) -> None:
    with submitted_input(str(write(tmp_path / "events.ndjson", [EVENT] * 3))) as source:
        assert source.key is not None
        assert None not in list(read_events(source.stream, None))


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "soon", "86401"])
def test_a_linger_that_is_no_time_is_refused(seconds: str) -> None:
    done = run("submit", "-", f"--linger={seconds}")
    assert done.returncode == 2
    assert f"invalid time `{seconds}`; expected seconds from 0 to 86400" in done.stderr.decode()
