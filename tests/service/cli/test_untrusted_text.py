"""Escaping of untrusted text in the output of every command.

Arguments are found in the parser. What else a command takes in is in `FEEDS`, and a command without an entry there fails a test.
"""

from __future__ import annotations

import ast
import json
import os
import pty
import sqlite3
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.cper_record import NOTIFICATION_TYPES, encode_record, from_status_block
from ras_triage.service.api.event_json import read_event
from ras_triage.service.cli.main import main
from ras_triage.service.cli.parser import build_parser
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.responses import decide_event, decision_json, wrap_decision
from ras_triage.service.http.openapi_document.examples import EXAMPLES
from ras_triage.service.security.keys import create
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support import scripted_server
from tests.service.support.application import EVENT
from tests.service.support.scripted_server import Asked, head
from tests.service.support.stored_decisions import entry
from tests.service.support.visible_text import is_visible

ATTACK = (
    "[red]:boom:\x1b]0;owned\x07\x1b[31m\x08\x7f\x9b31m\x85\r\nras-triage:forged\u2028forged\u2029"
    "\u202e\u2066\u200f\u061c\u200b\ufeff\xad\ue000\U000e0041[/red]"
)
"""Markup, control sequences in 7 and 8 bits, line ends of every kind, bidirectional controls, and what has no glyph."""


@dataclass
class Printed:
    """What a command printed."""

    status: int
    out: bytes
    err: bytes

    def check(self) -> Printed:
        """Fail where text from outside drives the terminal, begins a line of its own, or is taken for markup."""
        for stream in (self.out, self.err):
            text = stream.decode()
            for line in text.replace("\r\n", "\n").split("\n"):  # CSV ends its lines so
                assert is_visible(line.replace("\t", "")), line  # columns have tabs between them
                assert not line.startswith(("forged", "ras-triage:forged")), text
            assert ":boom:" in text or "owned" not in text
            assert "[red]" in text or "owned" not in text
        assert b"Traceback" not in self.err, self.err.decode()
        return self


Run = Callable[..., Printed]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def run_command(*arguments: str) -> Printed:
        capfdbinary.readouterr()
        try:
            status = main(arguments)
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return Printed(status, *capfdbinary.readouterr())

    return run_command


# Arguments


def commands(parser: ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], ArgumentParser]]:
    """Every command, with the words that it is called by."""
    below = [action for action in parser._actions if isinstance(action, _SubParsersAction)]
    if not below:
        yield words, parser
    for action in below:
        for name, command in action.choices.items():
            yield from commands(command, (*words, name))


COMMANDS = dict(commands(build_parser()))

OPTIONS = [
    (words, action.option_strings[-1] if action.option_strings else action.dest)
    for words, command in COMMANDS.items()
    for action in command._actions
    if action.nargs != 0
]

NEEDED = {
    ("decide",): ["event.json"],
    ("decode",): ["event.json"],
    ("import",): ["event.json"],
    ("export",): ["event.json", "--to", "event"],
    ("syndrome",): ["0xbe000411"],
    ("serve",): ["--keys-file", "missing.toml"],
    ("keys", "create"): ["--name", "x", "--scope", "read"],
    ("keys", "revoke"): ["x"],
    ("submit",): ["events.ndjson"],
    ("show",): ["x"],
    ("query",): ["--stats"],
    ("store", "purge"): ["--older-than", "1"],
}
"""What a command cannot do without, so that it comes as far as it can; `serve` never comes as far as to answer."""

REFUSAL = {"type": f"x{ATTACK}", "title": f"title {ATTACK}", "status": 422, "detail": f"detail {ATTACK}",
           "errors": [{"pointer": f"/{ATTACK}", "detail": ATTACK}, {"pointer": "", "detail": ATTACK}]}  # fmt: skip


def refuse(asked: Asked) -> None:
    asked.send(head("application/problem+json", "422 No") + json.dumps(REFUSAL, ensure_ascii=False).encode())


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with scripted_server.serving(refuse) as url:
        yield url


@pytest.fixture
def files(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text(json.dumps(EVENT), encoding="utf-8")
    (tmp_path / "events.ndjson").write_text(json.dumps(EVENT) + "\n", encoding="utf-8")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("attack", [ATTACK, "\udcff\udc9b"], ids=["text", "bytes that are not UTF-8"])
@pytest.mark.parametrize(("words", "option"), OPTIONS, ids=[" ".join((*words, option)) for words, option in OPTIONS])
def test_an_argument_is_quoted_with_escapes(run: Run, refusing: str, words: tuple[str, ...], option: str, attack: str) -> None:
    needed = [word for word in NEEDED.get(words, []) if option.startswith("--") or word.startswith("--")]
    given = [option, attack] if option.startswith("--") else [attack]
    server = ["--server", refusing] if option != "--server" and any(name == "--server" for known, name in OPTIONS if known == words) else []
    for more in ([], ["--json"] if "--json" in COMMANDS[words]._option_string_actions else []):
        run(*words, *needed, *server, *more, *given).check()


@pytest.mark.parametrize(
    "arguments",
    [
        [ATTACK],
        ["decide", "x", ATTACK],
        ["decide", f"--{ATTACK}"],
        ["decide", "x", f"--no{ATTACK}"],
        ["keys", ATTACK],
        ["query", f"--p={ATTACK}"],
    ],
)
def test_what_the_parser_complains_about_is_quoted_with_escapes(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).check().status == 2


# What else comes from outside


def _attacked(content: Any) -> Any:
    """JSON with an attack in every text, names included."""
    if isinstance(content, dict):
        return {name: _attacked(member) for name, member in content.items()}
    if isinstance(content, list):
        return [_attacked(member) for member in content]
    return f"{content}{ATTACK}" if isinstance(content, str) else content


def _document(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


HOSTILE_EVENT = {
    **EVENT,
    "id": ATTACK,
    "source": f"node {ATTACK}",
    "host": {**EVENT["host"], "tasks": [{"pid": 103, "name": ATTACK}]},
}

BLOCK = encode_structured(
    {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040", "fru_text": "\x1b[31m\x9b\r\nforged"}]}
)

LOG = (
    "[    1.000000] Linux version 6.12.107 \x1b[31m\u202e\n[   12.000642] Memory failure: 0x56edd: \x1b]0;owned\x07 [red]:boom: recovery\n"
    "[   12.000643] {1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 1\n"
    "[   12.000644] {1}[Hardware Error]: event severity: \x9b31m\u2028forged\n"
)

REDFISH = {
    "@odata.type": "#LogEntry.v1_15_0.LogEntry",
    "Id": ATTACK,
    "Message": ATTACK,
    "EntryType": "Event",
    "DiagnosticDataType": "CPER",
    "CPER": {"NotificationType": ATTACK},
    "AdditionalDataURI": ATTACK,
}


def toml(text: str) -> str:
    """A TOML string."""
    return '"' + "".join(f"\\U{ord(char):08X}" for char in text) + '"'


POLICY = f"""
name = {toml("mine" + ATTACK)}
base = "linux-6.12.107"
notes = [{toml(ATTACK)}]
"""


class Place:
    """A folder with input files, and a service to ask."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def file(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    @property
    def inputs(self) -> list[str]:
        """A file of each kind, some of them with names that are attacks themselves."""
        return [
            self.file(f"{ATTACK.replace(chr(47), '')}.json", _document(HOSTILE_EVENT)),
            self.file(os.fsdecode(b"\xff\x1b[31m.log"), LOG),
            self.file("redfish.json", _document(REDFISH)),
            self.file("record.bin", encode_record(from_status_block(BLOCK, NOTIFICATION_TYPES["sea"]))),
            self.file("trace.txt", f"x-1 [000] .... 1.0: mc_event: 1 Corrected error: {ATTACK} on {ATTACK}\n"),
            self.file("journal.json", _document({"MESSAGE": f"mce: [Hardware Error]: {ATTACK}", "_TRANSPORT": "kernel"})),
            self.file("qmp.json", _document({"execute": "inject-ghes-v2-error", "arguments": {"cper": ATTACK}})),
            self.file("torn.json", _document(HOSTILE_EVENT)[:-40]),
            self.file("keys.json", _document({ATTACK: 1, "notification": ATTACK})),
            _database(self.folder / "ras-mc_event.db"),
        ]


def _database(path: Path) -> str:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mc_event (id INTEGER PRIMARY KEY, timestamp TEXT, err_type TEXT, err_msg TEXT, label TEXT)")
        database.execute("CREATE TABLE devlink_event (id INTEGER PRIMARY KEY, timestamp TEXT, dev_name TEXT, msg TEXT)")
        for table, columns in (("mc_event", "err_type, err_msg, label"), ("devlink_event", "timestamp, dev_name, msg")):
            database.execute(f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?)", [ATTACK] * 3)
        database.commit()
    return str(path)


Feed = Callable[[Place], Iterator[list[str]]]


def feed_decide(place: Place) -> Iterator[list[str]]:
    for path in place.inputs:
        for more in ([], ["--json"], ["--ndjson"], ["--compare", "uniform"], ["--what-if"]):
            yield ["decide", path, *more]


def feed_decode(place: Place) -> Iterator[list[str]]:
    for path in (*place.inputs, place.file("block.bin", BLOCK)):
        yield ["decode", path]
        yield ["decode", path, "--json"]


def feed_import(place: Place) -> Iterator[list[str]]:
    for path in place.inputs:
        yield ["import", path]
    yield ["import", *place.inputs]
    yield ["import", *place.inputs, "--json"]
    yield ["import", *place.inputs, "--summary"]
    yield ["import", *place.inputs, "--summary", "--json"]
    yield ["import", *place.inputs, "--submit", "--server", place.url]


def feed_export(place: Place) -> Iterator[list[str]]:
    for form in ("event", "redfish", "qmp", "qemu_argument", "ghes_inject"):
        yield ["export", *place.inputs, "--to", form]


def feed_syndrome(place: Place) -> Iterator[list[str]]:
    yield ["syndrome", "--ndjson", place.file("questions", _document({"value": ATTACK}) + b"\n" + _document({ATTACK: 1}))]


def feed_policies(place: Place) -> Iterator[list[str]]:
    policy = place.file("policy.toml", POLICY)
    for more in ([], [f"mine{ATTACK}"], [f"mine{ATTACK}", "--diff", "uniform"], [ATTACK]):
        yield ["policies", *more, "--policy-file", policy]
        yield ["policies", *more, "--policy-file", policy, "--json"]
    yield ["policies", "--policy-file", place.file("torn.toml", f"{ATTACK}")]
    case = {
        "name": ATTACK,
        "event": {"notification": "sea"},
        "expect": {"rules": [ATTACK], "without": [ATTACK], "plan": [{ATTACK: ATTACK}]},
    }
    for content in ({"policy": f"mine{ATTACK}", "cases": [case]}, {"policy": ATTACK, "cases": [case]}, {ATTACK: 1}):
        table = place.file("table.yaml", _document(content))
        yield ["policies", "test", table, "--policy-file", policy]
        yield ["policies", "test", table, "--policy-file", policy, "--json"]
    vmm = f"name = {toml(ATTACK)}\nsummary = {toml(ATTACK)}\nmirrors = {toml(ATTACK)}\n[exits]\nsignal = {toml(ATTACK)}\n"
    yield ["policies", "--vmm-file", place.file("vmm.toml", vmm)]
    yield ["policies", "--vmm-file", place.file("vmm.toml", vmm), "--json"]
    yield ["policies", "--vmm-file", place.file("unknown.toml", f"{toml(ATTACK)} = 1")]


def feed_check_tables(place: Place) -> Iterator[list[str]]:
    policy = place.file("policy.toml", POLICY)
    yield ["check-tables", f"mine{ATTACK}", "--policy-file", policy]
    yield ["check-tables", f"mine{ATTACK}", "--policy-file", policy, "--json"]
    yield ["check-tables", ATTACK]


def feed_compare(place: Place) -> Iterator[list[str]]:
    events = place.file("events.ndjson", _document(EVENT) + b"\n" + _document({ATTACK: 1}))
    for policies in (["linux-6.12.42", "uniform"], ["uniform", ATTACK]):
        named = [word for policy in policies for word in ("--policy", policy)]
        yield ["compare", *named, events]
        yield ["compare", *named, events, "--json"]


def feed_serve(place: Place) -> Iterator[list[str]]:
    yield ["serve", "--keys-file", place.file("keys.toml", f'[[key]]\nid = "x"\nname = {toml(ATTACK)}\n')]
    yield ["serve", "--keys-file", place.file("other.toml", f"{toml(ATTACK)} = 1")]
    yield ["serve", "--config", place.file("config.toml", f"{toml(ATTACK)} = 1")]
    yield ["serve", "--host", ATTACK]


def feed_config(place: Place) -> Iterator[list[str]]:
    told = toml(ATTACK)
    good = f"oidc_audience = {told}\noidc_issuer = 'https://x.example'\nkeys_file = {told}\noidc_scope_claim = {told}\n"
    for index, text in enumerate((good, f"{told} = 1", f"store = {told}", f"port = {told}", 'keys_file = "a\\u0000b"', ATTACK)):
        for more in ([], ["--json"]):
            yield ["config", "--config", place.file(f"{index}.toml", text), *more]


def feed_keys_create(place: Place) -> Iterator[list[str]]:
    yield ["keys", "create", "--name", ATTACK, "--scope", "read", "--store", f"sqlite:///{place.folder}/keys.db"]
    yield ["keys", "create", "--name", ATTACK, "--scope", "read", "--hash-only"]


def _keys(place: Place) -> str:
    path = place.folder / "store.db"
    if not path.exists():
        with closing(SqliteStore(path)) as store:
            store.add_api_key(create(ATTACK, ["read"], 0)[0])
    return f"sqlite:///{path}"


def feed_keys_list(place: Place) -> Iterator[list[str]]:
    yield ["keys", "list", "--store", _keys(place)]
    yield ["keys", "list", "--store", _keys(place), "--json"]


def feed_keys_revoke(place: Place) -> Iterator[list[str]]:
    yield ["keys", "revoke", ATTACK, "--store", _keys(place)]


def feed_submit(place: Place) -> Iterator[list[str]]:
    events = place.file("events.ndjson", _document(EVENT))
    yield ["submit", events, "--server", place.url]
    yield ["submit", events, "--server", place.url, "--output", place.file("answers.ndjson", "")]
    yield ["submit", place.file("array.json", f"[{ATTACK}"), "--server", place.url]


def feed_query(place: Place) -> Iterator[list[str]]:
    for more in ([], *(["--format", form] for form in ("table", "json", "ndjson", "csv"))):
        yield ["query", "--server", place.url, *more]
        yield ["query", "--stats", "--server", place.url, *more]


def feed_replay(place: Place) -> Iterator[list[str]]:
    for more in ([], ["--json"]):
        yield ["replay", "--after", "uniform", "--server", place.url, *more]


def feed_show(place: Place) -> Iterator[list[str]]:
    for more in ([], ["--json"]):
        yield ["show", "x", "--server", place.url, *more]


def feed_watch(place: Place) -> Iterator[list[str]]:
    for more in ([], ["--json"]):
        yield ["watch", "--server", place.url, *more]


def feed_demo(_: Place) -> Iterator[list[str]]:
    yield ["demo"]


def feed_completion(_: Place) -> Iterator[list[str]]:
    yield ["completion", ATTACK]


def _damaged_store(place: Place) -> str:
    """A store whose texts are from outside, and where columns and bodies differ."""
    folder = place.folder / ATTACK.replace("/", "")
    folder.mkdir(exist_ok=True)
    path = folder / "store.db"
    if not path.exists():
        with closing(SqliteStore(path)) as store:
            decision = decide_event(read_event(_document(EVENT)), Settings())
            kept = entry(1, source=ATTACK, event_id=ATTACK, event_key=decision.event_key)
            store.append([replace(kept, event=_document(EVENT), decision=decision_json(decision))])
    return f"sqlite:///{path}"


def feed_store_check(place: Place) -> Iterator[list[str]]:
    for more in ([], ["--json"], ["--repair"]):
        yield ["store", "check", "--store", _damaged_store(place), *more]
    yield ["store", "check", "--store", f"sqlite:///{place.file('other.db', ATTACK)}"]


def feed_store_accept_loss(place: Place) -> Iterator[list[str]]:
    for more in ([], ["--json"]):
        yield ["store", "accept-loss", "--store", _damaged_store(place), *more]
    yield ["store", "accept-loss", "--store", f"{_damaged_store(place)}{ATTACK}"]


def feed_store_purge(place: Place) -> Iterator[list[str]]:
    yield ["store", "purge", "--older-than", "0", "--store", _damaged_store(place)]
    yield ["store", "purge", "--older-than", "0", "--store", f"{_damaged_store(place)}{ATTACK}"]


FEEDS: dict[tuple[str, ...], Feed] = {
    ("decide",): feed_decide,
    ("decode",): feed_decode,
    ("import",): feed_import,
    ("export",): feed_export,
    ("syndrome",): feed_syndrome,
    ("policies",): feed_policies,
    ("check-tables",): feed_check_tables,
    ("compare",): feed_compare,
    ("serve",): feed_serve,
    ("config",): feed_config,
    ("keys", "create"): feed_keys_create,
    ("keys", "list"): feed_keys_list,
    ("keys", "revoke"): feed_keys_revoke,
    ("submit",): feed_submit,
    ("query",): feed_query,
    ("replay",): feed_replay,
    ("show",): feed_show,
    ("watch",): feed_watch,
    ("demo",): feed_demo,
    ("completion",): feed_completion,
    ("store", "check"): feed_store_check,
    ("store", "accept-loss"): feed_store_accept_loss,
    ("store", "purge"): feed_store_purge,
}


def test_every_command_is_fed() -> None:
    assert FEEDS.keys() == COMMANDS.keys()


# The service that is asked


ANSWER = json.loads(wrap_decision(decision_json(decide_event(read_event(_document(EVENT)), Settings()))))
SUMMARY = {
    "id": "0199", "decided_at": "2026-11-22T10:00:00.000Z", "source": "node-17", "event_id": "e-1", "event_key": "sha256:1",
    "policy": {"name": "uniform", "digest": "sha256:2"}, "action": "signal", "certainty": "certain", "notification": "sea",
    "severity": "recoverable", "sections": ["memory"], "physical_addresses": ["0x56edd040"],
}  # fmt: skip
BUCKET = {"start": "2026", "count": 1, "groups": [{"action": "signal", "count": 1}]}
STATS = {"bucket_s": 60, "group_by": ["action"], "buckets": [BUCKET]}
REPLAY = json.loads((EXAMPLES / "createReplay.json").read_bytes())["upgrade"]["response"]["body"]
FREE = (
    "source",
    "id",
    "decided_at",
    "reasons",
    "detail",
    "code",
    "fact",
    "assumed",
    "what",
    "rule",
    "outcome",
    "mirrors",
    "since",
    "name",
    "digest",
)
"""Members of a decision that may have any text."""


def _attack_free(content: Any, member: str = "") -> Any:
    if isinstance(content, dict):
        return {name: _attack_free(inner, name) for name, inner in content.items()}
    if isinstance(content, list):
        return [_attack_free(inner, member) for inner in content]
    return f"{content}{ATTACK}" if isinstance(content, str) and member in FREE else content


def _events(asked: Asked) -> bytes:
    """A stream that tells something, and is refused when it is taken up again."""
    if "last-event-id" in asked.headers:
        return head("application/problem+json", "422 No") + _document(REFUSAL)
    stream = b'retry: 1\n\nid: 1\nevent: decision\ndata: %b\n\nid: 2\nevent: purged\ndata: {"decisions":1}\n\n'
    return head("text/event-stream") + stream % _document(_attacked(SUMMARY)).replace(b"\r", b"")


HOSTILE_ANSWERS: dict[str, Callable[[Asked], bytes]] = {
    "/readyz": lambda _: head() + b"{}",
    "/v1/decisions": lambda _: head() + _document({"decisions": [_attacked(SUMMARY)], "next": None}),
    "/v1/decisions/stats": lambda _: head() + _document(_attacked(STATS) | {"group_by": ["action", ATTACK]}),
    "/v1/decisions/stream": _events,
    "/v1/replays": lambda _: head() + _document({**_attack_free(REPLAY), "state": "failed", "error": ATTACK}),
    "/v1/decisions/x": lambda _: head() + _document(_attack_free(ANSWER)).replace(b"{", b"\n{\r\t"),
    "/v1/decisions/batch": lambda asked: head("application/x-ndjson") + _document({**_attack_free(ANSWER), "event_key": ATTACK}) + b"\n"
                                         + (_document(REFUSAL) + b"\n") * (asked.body.count(b"\n") - 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def hostile_service() -> Iterator[str]:
    with scripted_server.serving(lambda asked: asked.send(HOSTILE_ANSWERS[asked.path](asked))) as url:
        yield url


@pytest.mark.parametrize("words", FEEDS, ids=" ".join)
def test_what_a_command_takes_in_is_shown_with_escapes(run: Run, tmp_path: Path, hostile_service: str, words: tuple[str, ...]) -> None:
    quoted = 0
    for arguments in FEEDS[words](Place(tmp_path, hostile_service)):
        printed = run(*arguments).check()
        quoted += b"owned" in printed.out + printed.err
    assert quoted or words == ("demo",)


@pytest.mark.parametrize("content", [b"x\x1b[31m", b"[1]", b'{"action":1}', b'{"action":"x","repeat":1}', b'{"type":1}', b"null"])
def test_a_line_that_is_no_answer_ends_a_run_without_being_written(run: Run, tmp_path: Path, content: bytes) -> None:
    place = Place(tmp_path, "")
    events = place.file("events.ndjson", _document(EVENT))
    answers = {"/readyz": head() + b"{}", "/v1/decisions/batch": head("application/x-ndjson") + content + b"\n"}
    with scripted_server.serving(lambda asked: asked.send(answers[asked.path])) as url:
        submitted = run("submit", events, "--server", url, "--output", "answers").check()
        imported = run("import", events, "--submit", "--server", url).check()
    assert (submitted.status, imported.status) == (1, 1)
    assert (tmp_path / "answers").read_bytes() == b""


def test_a_problem_without_measure_is_cut(run: Run) -> None:
    long = "x" * 900_000
    problem = {"type": "x", "title": long, "status": 422, "detail": long, "errors": [{"pointer": "/x", "detail": "y"}] * 5000}
    answer = head(status="422 No") + _document(problem)
    with scripted_server.serving(lambda asked: asked.send(answer)) as url:
        printed = run("show", "x", "--server", url).check()
    assert len(printed.err) < 20_000


def test_a_defect_is_told_with_escapes(run: Run, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    run("policies")
    try:
        raise ValueError(ATTACK)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    sys.stderr.flush()
    told = capfdbinary.readouterr().err.decode()
    assert "ValueError: [red]" in told
    assert all(map(is_visible, told.split("\n")))


def _on_a_terminal(*arguments: str) -> bytes:
    """What a command prints where standard output is a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "ras_triage.service.cli.main", *arguments]
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, timeout=60, check=False)
    os.close(slave)
    try:
        return os.read(master, 1 << 16)
    finally:
        os.close(master)


def test_an_event_is_written_as_it_was_sent_but_for_a_terminal(run: Run) -> None:
    event = b'{"source":\r\n\t"\x9b\xc2\x9b\x1b[31m"}'
    answer = head() + event
    with scripted_server.serving(lambda asked: asked.send(answer)) as url:
        assert run("show", "x", "--event", "--server", url).out == event
        shown = _on_a_terminal("show", "x", "--event", "--server", url)
    assert shown.split(b"\r\n") == [rb'{"source":\r', rb'        "\x9b\x9b\x1b[31m"}', b""]


def test_binary_records_are_not_written_to_a_terminal(run: Run, tmp_path: Path) -> None:
    event = Place(tmp_path, "").file("event.json", _document(EVENT))
    assert run("export", event, "--to", "cper").out.startswith(b"CPER")
    assert b"`--to cper` writes binary data: redirect" in _on_a_terminal("export", event, "--to", "cper")


# Secrets


@pytest.mark.parametrize(
    "url",
    ["http://user:swordfish@127.0.0.1:9", "user:swordfish@127.0.0.1", "ftp://user:swordfish@127.0.0.1", "http://user:swordfish@127.0.0.1:x",
     "http://user:sword//swordfish@127.0.0.1:9", "http://user:sword@swordfish@127.0.0.1:9", "http://user:swordfish@[::1"],
)  # fmt: skip
def test_a_password_in_the_url_of_a_service_is_not_printed(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RAS_TRIAGE_URL", url)
    printed = run("show", "x").check()
    assert printed.status in (1, 2)
    assert b"sword" not in printed.out + printed.err


def test_a_key_where_it_does_not_belong_is_printed_without_its_secret(run: Run, refusing: str) -> None:
    shown = create("somebody", ["read"], 0)[1]
    secret = shown.split("_", 2)[2].encode()
    problem = {"type": "x", "title": "no", "status": 422, "detail": shown, "errors": [{"pointer": shown, "detail": shown}] * 2}
    answer = head(status="422 No") + _document(problem)
    with scripted_server.serving(lambda asked: asked.send(answer)) as url:
        echoing = [run("show", "x", "--server", url), run("show", "x", "--server", url, "--json")]
    for printed in (*echoing, run("show", "x", "--server", shown), run("decide", shown), run("show", shown, "--server", refusing)):
        printed.check()
        assert printed.status in (1, 2)
        assert secret not in printed.out + printed.err


# The rule that makes it so


def test_nothing_but_one_module_prints() -> None:
    found = set()
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if call in {"print", "input"} or call.startswith(("sys.stdout.", "sys.stderr.")):
                found.add((path.relative_to(ROOT).as_posix(), call))
    assert {(path, call) for path, call in found if path != "service/cli/output.py"} == {
        ("service/cli/main.py", "sys.stdout.fileno"),
        ("service/cli/commands/export.py", "sys.stdout.isatty"),
        ("service/http/server/reload.py", "sys.stderr.isatty"),
    }
