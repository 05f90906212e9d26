"""Commands as processes: input, output, exit status."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, encode_record, from_status_block
from tests.paths import ROOT
from tests.service.support.application import BLOCK, EVENT, NOTHING_TO_QUEUE, Call, run
from tests.service.support.server_process import interruptible

LINE = json.dumps(EVENT).encode()


@pytest.fixture
def event_file(tmp_path: Path) -> str:
    path = tmp_path / "event.json"
    path.write_bytes(LINE)
    return str(path)


def test_an_event_is_decided_as_a_dry_run_over_http_decides_it(event_file: str, call: Call) -> None:
    done = run("decide", event_file, "--json")

    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout == call("POST", "/v1/decisions?dry_run=true", json=EVENT).content + b"\n"


def test_two_processes_with_other_hash_seeds_give_equal_bytes(event_file: str) -> None:
    outputs = {run(*command, PYTHONHASHSEED=seed).stdout for seed in ("1", "2", "3") for command in [("decide", event_file, "--json")]}

    assert len(outputs) == 1


@pytest.mark.parametrize(
    "given",
    [
        BLOCK,
        BLOCK.hex().encode(),
        BLOCK.hex(" ", 4).upper().encode() + b"\n",
        b"0x" + BLOCK.hex().encode(),
        base64.b64encode(BLOCK),
        base64.encodebytes(BLOCK),
    ],
    ids=["bytes", "hex", "hex in groups", "0x", "base64", "base64 in lines"],
)
def test_a_status_block_is_detected_in_every_encoding(given: bytes) -> None:
    done = run("decide", "-", "--notification", "sea", "--kernel", "6.12.107", "--json", given=given)

    decision = json.loads(done.stdout)
    assert decision["policy"]["name"] == "linux-6.12.107"
    assert decision["plan"][2]["pfn"] == "0x56edd"
    assert done.stderr == b""


def test_a_record_brings_its_own_notification() -> None:
    record = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["sea"]))
    done = run("decide", "-", "--json", given=record)

    assert json.loads(done.stdout)["rationale"][0]["given"]["notification"] == "sea"
    assert done.stderr == b""


def test_bytes_without_a_notification_are_taken_as_an_interrupt_and_it_says_so() -> None:
    done = run("decide", "-", "--json", given=BLOCK)

    assert json.loads(done.stdout)["rationale"][0]["given"]["notification"] == "gsiv"
    assert b"`gsiv` assumed" in done.stderr


def test_options_outrank_the_event(event_file: str) -> None:
    decision = json.loads(run("decide", event_file, "--kernel", "7.3.4", "--notification", "irq", "--json").stdout)

    assert decision["policy"]["name"] == "linux-7.3.4"
    assert decision["rationale"][0]["given"]["notification"] == "external"


@pytest.mark.parametrize("command", ["decide", "import"])
def test_a_notification_type_may_be_written_in_any_letter_case(command: str) -> None:
    answers = {run(command, "-", "--json", "--notification", name, given=BLOCK).stdout for name in ("external", "EXTERNAL", "irq", "IRQ")}

    assert len(answers) == 1
    assert b'"notification":"external"' in answers.pop()


def test_several_policies_give_one_line_each_in_order(event_file: str) -> None:
    done = run("decide", event_file, "--policy", "linux-5.10.209", "--policy", "uniform", "--compare", "linux-7.3.4", "--json")

    assert [json.loads(line)["policy"]["name"] for line in done.stdout.splitlines()] == ["linux-5.10.209", "uniform", "linux-7.3.4"]


def test_a_policy_file_is_used_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text('name = "ours"\nbase = "linux-6.12.107"\n[flags]\nsea_kills_when_nothing_queued = false\n')
    given = json.dumps(NOTHING_TO_QUEUE).encode()

    decision = json.loads(run("decide", "-", "--policy-file", str(file), "--policy", "ours", "--json", given=given).stdout)
    assert decision["policy"]["name"] == "ours"
    assert decision["action"] == "handled"


@pytest.mark.parametrize(
    ("arguments", "given", "complaint"),
    [
        (["decide", "/nonexistent"], b"", "`/nonexistent`: no such file or directory"),
        (["decide", "-"], b"", "unrecognised input"),
        (["decide", "-"], b"hello, world", "unrecognised input"),
        (["decide", "-"], b'{"notification": "x"}', "`/notification`"),
        (["decide", "-"], b'{"notification"', "invalid JSON"),
        (["decide", "-"], b"CPER and no more", "malformed bytes"),
        (["decide", "-", "--policy", "nonsense"], LINE, "unknown policy"),
        (["decide", "-", "--kernel", "nonsense"], LINE, "unknown policy"),
        (["decide", "-", "--notification", "nonsense"], LINE, "`nonsense`"),
        (["decide", "-", "--policy-file", "/nonexistent"], LINE, "no such file"),
        (["decide", "-", "--ndjson", "--compare", "uniform"], LINE, "at most one `--policy`"),
        (["decode", "-"], BLOCK[:-1], "malformed bytes"),
        (["policies", "nonsense"], b"", "unknown policy"),
        (["nonsense"], b"", "unknown value `nonsense`; expected one of decide, decode"),
        ([], b"", "required"),
    ],
)
def test_bad_input_is_exit_2_and_a_word_on_standard_error(arguments: list[str], given: bytes, complaint: str) -> None:
    done = run(*arguments, given=given)

    assert done.returncode == 2
    assert done.stdout == b""
    assert complaint in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_lines_are_answered_in_order_and_a_bad_one_fails_in_its_place() -> None:
    def line(source: str) -> bytes:
        return json.dumps({**EVENT, "source": source}).encode()

    done = run("decide", "--ndjson", "-", given=b"\n".join([line("a"), b'{"x": 1}', line("b"), b"", b"{", b"\xff\0", line("c")]))

    answers: list[dict[str, Any]] = [json.loads(answer) for answer in done.stdout.splitlines()]
    assert done.returncode == 2
    assert [answer.get("source") or answer["type"].rpartition(":")[2] for answer in answers] == [
        "a",
        "invalid-event",
        "b",
        "invalid-json",
        "invalid-json",
        "c",
    ]


def test_lines_that_are_all_good_are_exit_0_and_dry() -> None:
    done = run("decide", "--ndjson", "-", given=LINE + b"\n" + LINE)

    assert done.returncode == 0
    assert [json.loads(answer)["id"] for answer in done.stdout.splitlines()] == [None, None]
    assert len(set(done.stdout.splitlines())) == 1


def test_a_line_without_end_is_refused_and_the_next_is_decided() -> None:
    done = run("decide", "--ndjson", "-", given=b"{" + b" " * (9 << 20) + b"}\n" + LINE)

    refused, decided = map(json.loads, done.stdout.splitlines())
    assert refused["type"].endswith("payload-too-large")
    assert decided["action"] == "signal"


def test_answers_come_while_the_input_is_still_open() -> None:
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "decide", "--ndjson", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(3):
            process.stdin.write(LINE + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["action"] == "signal"


def test_a_reader_that_goes_away_is_no_failure(tmp_path: Path) -> None:
    lines = tmp_path / "events.ndjson"
    lines.write_bytes((LINE + b"\n") * 2000)
    with subprocess.Popen(
        [sys.executable, "-m", "ras_triage.service.cli.main", "decide", "--ndjson", str(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_decode_explains_as_http_does(call: Call) -> None:
    headers = {"content-type": "application/octet-stream"}

    assert run("decode", "-", "--json", given=BLOCK).stdout == call("POST", "/v1/decode", content=BLOCK, headers=headers).content + b"\n"
    hexadecimal = json.loads(run("decode", "-", "--json", given=BLOCK.hex().encode()).stdout)
    assert hexadecimal == {**json.loads(run("decode", "-", "--json", given=LINE).stdout), "encoding": "hexadecimal"}
    assert hexadecimal == call("POST", "/v1/decode", json={"status_block": BLOCK.hex()}).json()


def test_policies_answer_as_http_does(call: Call) -> None:
    for arguments, path in [
        ((), ""),
        (("uniform",), "/uniform"),
        (("linux-6.1.100", "--diff", "linux-6.1.192"), "/linux-6.1.100/diff/linux-6.1.192"),
    ]:
        assert json.loads(run("policies", *arguments, "--json").stdout) == call("GET", f"/v1/policies{path}").json()


def test_the_demonstration_shows_two_kernels_that_disagree() -> None:
    done = run("demo", COLUMNS="100")

    page = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(r"action +≠ HANDLED +≠ SIGNAL", page)
    assert "since 6.12.63" in page


def test_the_demonstration_stays_open_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "ras_triage.service.cli.main", "demo", "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, preexec_fn=interruptible) as process:  # noqa: PLW1509 - no threads here
        assert process.stdout is not None
        lines = (line.decode() for line in process.stdout)
        (url,) = re.findall(r"http://\S+", next(line for line in lines if line.startswith("The page: ")))
        page = httpx.get(url, headers={"accept": "text/html"}, timeout=60)
        decisions = httpx.get(f"{url}v1/decisions", timeout=60).json()["decisions"]
        process.send_signal(signal.SIGINT)

    assert page.headers["content-type"].startswith("text/html")
    assert len(decisions) == 2
    assert process.returncode == 0


def test_the_version_is_told() -> None:
    assert run("--version").stdout.startswith(b"ras-triage ")


@pytest.mark.parametrize("columns", ["80", "140"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["decide", "-"],
        ["decide", "-", "--compare", "linux-5.10.209", "--compare", "uniform"],
        ["decode", "-"],
        ["policies"],
        ["policies", "linux-7.3.4"],
        ["policies", "linux-6.1.100", "--diff", "uniform"],
    ],
)
def test_a_page_keeps_within_its_width_and_has_no_colour_outside_a_terminal(arguments: list[str], columns: str) -> None:
    done = run(*arguments, given=LINE, COLUMNS=columns)

    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert max(map(len, lines)) <= int(columns)
    assert "\x1b" not in done.stdout.decode()


def test_a_page_can_be_written_where_there_is_only_ascii() -> None:
    done = run("decide", "-", "--compare", "uniform", given=LINE, PYTHONIOENCODING="ascii")

    assert done.returncode == 0


def test_json_starts_without_what_only_a_server_or_a_page_needs() -> None:
    heavy = ("fastapi", "uvicorn", "rich", "starlette")
    loaded = f"import sys, ras_triage.service.cli.main; print([name for name in {heavy} if name in sys.modules])"

    assert subprocess.check_output([sys.executable, "-c", loaded], cwd=ROOT) == b"[]\n"


@pytest.mark.parametrize("given", [BLOCK, BLOCK.hex().encode(), base64.b64encode(BLOCK)], ids=["bytes", "hexadecimal", "base64"])
def test_a_notification_that_is_assumed_has_its_alternative_as_in_an_import(given: bytes) -> None:
    done = run("decide", "-", "--kernel", "6.12.107", "--json", given=given)
    decided = json.loads(done.stdout)
    imported = json.loads(run("import", "-", "--kernel", "6.12.107", "--json", given=given).stdout.splitlines()[0])

    assert b"notification type not given, `gsiv` assumed; give it with `--notification`" in done.stderr
    assert [(other["when"], other["action"]) for other in decided["alternatives"]] == [({"notification.type": "sea"}, "signal")]
    assert [warning["code"] for warning in decided["warnings"]] == ["assumed_asynchronous"]
    assert (decided["alternatives"], decided["warnings"]) == (imported["decision"]["alternatives"], imported["decision"]["warnings"])


def test_a_notification_that_is_given_has_no_alternative() -> None:
    done = run("decide", "-", "--kernel", "6.12.107", "--notification", "gsiv", "--json", given=BLOCK)
    assert (json.loads(done.stdout)["alternatives"], done.stderr) == ([], b"")
    assumed = json.dumps({**EVENT, "notification": "gsiv", "assumed": ["/notification/type"]}).encode()
    assert json.loads(run("decide", "-", "--json", given=assumed).stdout)["alternatives"] != []
    assert json.loads(run("decide", "-", "--notification", "gsiv", "--json", given=assumed).stdout)["alternatives"] == []


def test_a_record_whose_notification_type_an_event_does_not_have_is_assumed_too() -> None:
    record = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["pei"]))
    decision = json.loads(run("decide", "-", "--json", "--kernel", "6.12.107", given=record).stdout)
    assert [warning["code"] for warning in decision["warnings"]] == ["assumed_asynchronous"]
    told = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["nmi"]))
    assert json.loads(run("decide", "-", "--json", "--kernel", "6.12.107", given=told).stdout)["warnings"] == []


def test_hexadecimal_is_named_in_the_decision_and_what_could_be_either_is_refused() -> None:
    record = encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["sea"]))
    for given in (BLOCK, record):
        decision = json.loads(run("decide", "-", "--json", given=given.hex().encode()).stdout)
        assert {"fact": "status_block", "assumed": "the text is hexadecimal, not base64"} in decision["assumptions"]
    for command in ("decide", "decode"):
        refused = run(command, "-", given=b"dead beef")
        assert refused.returncode == 2
        assert b"could be 4 bytes in hexadecimal or 6 bytes in base64, and neither looks like a CPER record or a status" in refused.stderr


def test_a_file_may_have_a_cloud_event() -> None:
    data = {name: value for name, value in EVENT.items() if name != "source"}
    wrapped = {"specversion": "1.0", "id": "1", "source": "node-17", "type": "t", "data": data}
    plain, decided = (run("decide", "-", "--json", given=json.dumps(one).encode()).stdout for one in (EVENT, wrapped))
    assert decided == plain
    (line, _) = run("import", "-", "--json", given=json.dumps(wrapped).encode()).stdout.splitlines()
    assert (json.loads(line)["event"]["id"], json.loads(line)["event"]["source"]) == ("1", "node-17")
