"""Examples that apply plans to a toy machine: the C++ and the Python one against one service."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from time import monotonic
from typing import Any, Final, get_args

import pytest

from ras_triage import Client
from ras_triage.models.decision import Step
from tests.paths import ROOT, VECTORS
from tests.policies.events import block, cxl_event
from tests.service.support import scripted_server
from tests.service.support.application import EVENT, ndjson
from tests.service.support.server_process import Service, serving
from tests.tools import missing_headers, require

SOURCE: Final = ROOT / "examples" / "apply_plan.cpp"
GUIDE: Final = (ROOT / "docs" / "simulators.md").read_text(encoding="utf-8")
STEPS: Final = get_args(get_args(Step)[0])
KINDS: Final = {step.__dataclass_fields__["kind"].default for step in STEPS}

VM: Final = {"id": "vm-1", "pid": 103, "vcpus": [{"index": 0, "tid": 103}]}
CURRENT: Final = {"current": {"pid": 103, "tid": 103}}
NOT_IN_RECORDINGS: Final[list[dict[str, Any]]] = [
    {
        "id": "exit",
        "notification": {"type": "sea", "taken_from": "guest", "syndrome": "0x92000010", "fault_address": "0xffff897d5040"},
        "host": {"kernel": "7.3.4", **CURRENT, "vms": [{**VM, "sea_to_user": True}]},
    },
    {
        "id": "serror",
        "notification": {"type": "sea", "taken_from": "guest", "syndrome": "0x92000013", "fault_address": "0xffff897d5040"},
        "host": {"kernel": "6.12.107", **CURRENT, "vms": [VM]},
    },
    {
        "id": "cxl",
        "notification": "gpio",
        "status_block": base64.b64encode(block(cxl_event())).decode(),
        "host": {"kernel": "7.3.4"},
    },
]
"""Events for the kinds of steps that the recordings do not have."""

Program = list[str]


@dataclass
class Finished:
    status: int
    state: dict[str, Any]
    messages: str


def finish(program: Program, url: str, events: Path) -> Finished:
    done = subprocess.run([*program, url, str(events)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    return Finished(done.returncode, json.loads(done.stdout or "{}"), done.stderr)


def recorded(name: str, every: int = 1) -> Iterator[dict[str, Any]]:
    path = VECTORS / name
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    yield from (json.loads(line) for line in data.splitlines()[::every])


def as_sent(case: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the event of a recording; cases of one boot (`id#n`) are events of one machine."""
    return {**case["event"], "id": case["id"], "source": f"{name} {case['id'].partition('#')[0]}"}


def examples() -> list[dict[str, Any]]:
    names = ("guest-qemu", "guest-announced", "corrected-abort")
    events = [json.loads((ROOT / "docs" / "examples" / f"{name}.json").read_bytes()) for name in names]
    guest = events[0]["host"]
    dies = {**events[0], "host": {**guest, "vms": [{**guest["vms"][0], "vmm": "firecracker"}]}}
    return [{**event, "id": f"example-{number}", "source": f"example-{number}"} for number, event in enumerate([*events, dies])]


CASES: Final = {
    name: list(recorded(name, every))
    for name, every in {"steps-seq-7.3.4.jsonl.gz": 1, "linux-7.3.4.jsonl": 12, "random-6.1.176.jsonl": 12}.items()
}
CASES["hard-6.12.118.jsonl.gz"] = [case for case in recorded("hard-6.12.118.jsonl.gz") if case["observed"]["oops"]]

EVENTS: Final = [as_sent(case, name) for name, cases in CASES.items() for case in cases] + NOT_IN_RECORDINGS + examples()


@pytest.fixture(scope="module")
def python() -> Program:
    return [sys.executable, "examples/apply_plan.py"]


@pytest.fixture(scope="module")
def cpp(pytestconfig: pytest.Config) -> Program:
    """Compile the C++ example as its head says, once for each version of it, without optimisation."""
    require(missing_headers("curl/curl.h", "nlohmann/json.hpp"), "g++, libcurl4-openssl-dev and nlohmann-json3-dev")
    text = SOURCE.read_text(encoding="utf-8")
    (command,) = re.findall(r"^//   (g\+\+ .*)", text, re.MULTILINE)
    built = pytestconfig.cache.mkdir("apply_plan") / hashlib.sha256(text.encode()).hexdigest()
    if not built.exists():
        fresh = built.with_suffix(f".{monotonic()}")
        command = command.replace("-O2", "-O0 -Werror").replace("-o apply_plan", f"-o {fresh}")
        subprocess.run(command.split(), cwd=ROOT, timeout=300, check=True)
        fresh.rename(built)
    return [str(built)]


@pytest.fixture(params=["python", "cpp"])
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.ndjson"


@pytest.fixture(scope="module")
def after_all(service: Service, python: Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    """The machines of the Python example after all events."""
    file = tmp_path_factory.mktemp("events") / "events.ndjson"
    file.write_bytes(ndjson(EVENTS))
    return finish(python, service.url, file), file


def test_both_programs_end_in_the_same_state(service: Service, cpp: Program, after_all: tuple[Finished, Path]) -> None:
    ours, file = after_all
    assert ours.status == 0
    assert ours == finish(cpp, service.url, file)
    assert '"step `' not in json.dumps(ours.state)


def test_the_events_bring_every_kind_of_step(service: Service, after_all: tuple[Finished, Path]) -> None:
    assert after_all[0].status == 0
    with Client(service.url) as client:
        decisions = [client.decide(event) for event in EVENTS]
    assert all(decision.repeat for decision in decisions)
    assert {step.kind for decision in decisions for step in decision.plan} == KINDS


def signals(tasks: dict[str, Any]) -> list[tuple[Any, ...]]:
    return sorted(
        (int(pid), int(one["tid"]), one["code"], one["address"], one["lost"] and one["lost"][1])
        for pid, task in tasks.items()
        for one in task["signals"]
        if one["signal"] == "SIGBUS"
    )


def observed_signals(cases: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted(
        (one["pid"], one["tid"], one["code"], one.get("address"), 1 << one["lsb"] if one.get("lsb") else None)
        for case in cases
        for one in case["observed"]["signals"]
    )


UNCERTAIN: Final = {"race", "retried", "action_required_unseen", "signals_unseen", "beyond", "died"}


def test_processes_get_the_signals_that_the_kernel_sent(after_all: tuple[Finished, Path]) -> None:
    compared = 0
    for case in CASES["linux-7.3.4.jsonl"]:
        if any(case["observed"].get(name) for name in UNCERTAIN) or case["observed"]["panic"]:
            continue
        machine = after_all[0].state[f"linux-7.3.4.jsonl {case['id']}"]
        assert signals(machine["tasks"]) == observed_signals([case]), case["id"]
        compared += len(case["observed"]["signals"])
    assert compared > 5


def test_a_guest_gets_the_record_and_the_exception_of_its_plan(after_all: tuple[Finished, Path]) -> None:
    machine = after_all[0].state["example-0"]
    guest = machine["guests"]["vm-1"]
    assert machine["frames"]["0x56edd"] == {"state": "offline", "content": "lost", "mapped_by": []}
    assert [one["lost"] for one in machine["tasks"]["103"]["signals"]] == [["0xffff40fa6000", 4096]]
    assert guest["records"] == [{"notification": "sea", "bytes": 172, "physical_address": "0x40fa6000"}]
    assert guest["exceptions"] == {"0": [{"exception": "abort", "esr": "0x92000410"}]}
    serror = {"exception": "serror", "esr": "0xbf000000", "pending": 1, "has_esr": 1, "vsesr": "0x1000000"}
    assert after_all[0].state["machine"]["guests"]["vm-1"]["exceptions"] == {"0": [serror]}
    assert after_all[0].state["example-3"]["guests"]["vm-1"]["state"] == "stopped"


def test_a_refused_event_is_explained_and_the_others_are_applied(service: Service, program: Program, file: Path) -> None:
    file.write_bytes(ndjson([{"notification": "seax"}, {**EVENT, "id": "after-a-refused-one"}]) + b"\n{\n")
    done = finish(program, service.url, file)
    assert done.status == 2
    assert list(done.state) == ["node-17"]
    first, place, applied, broken, *_ = done.messages.splitlines()
    assert first.startswith("line 1: urn:ras-triage:problem:invalid-event (422): ")
    assert place.startswith("  `/notification`: ")
    assert "seax" in place
    assert re.fullmatch(r"line 2: signal, depends, \d steps", applied)
    assert broken.startswith("line 3: urn:ras-triage:problem:invalid-json (400): ")


def test_an_event_that_comes_twice_is_applied_once(service: Service, program: Program, file: Path) -> None:
    file.write_bytes(ndjson([{**EVENT, "id": "twice"}] * 2))
    done = finish(program, service.url, file)
    assert done.messages.count("signal, depends") == 2
    assert len(done.state["node-17"]["tasks"]["103"]["signals"]) == 1


def test_a_busy_service_is_asked_again_after_its_time_with_the_same_key(service: Service, program: Program, file: Path) -> None:
    with Client(service.url) as client:
        decision = client.get_json(str(client.decide({**EVENT, "id": "busy"}).id))
    asked: list[tuple[float, str]] = []

    def answer(request: scripted_server.Asked) -> None:
        asked.append((monotonic(), request.headers["idempotency-key"]))
        busy = len(asked) == 1
        request.send(scripted_server.head(status="503 busy", retry_after="1") + b"{}" if busy else scripted_server.head() + decision)

    file.write_bytes(ndjson([EVENT]))
    with scripted_server.serving(answer) as url:
        done = finish(program, url, file)
    (first, key), (second, again) = asked
    assert done.status == 0
    assert done.state["node-17"]["tasks"]["103"]["signals"]
    assert second - first >= 1
    assert key == again
    assert len(key) == 32


def test_a_step_of_a_newer_service_is_reported(service: Service, cpp: Program, file: Path) -> None:
    with Client(service.url) as client:
        decision = json.loads(client.get_json(str(client.decide({**EVENT, "id": "newer"}).id)))
    newer = json.dumps({**decision, "plan": [{"kind": "steps_of_2030"}, *decision["plan"]]}).encode()
    file.write_bytes(ndjson([EVENT]))
    with scripted_server.serving(lambda request: request.send(scripted_server.head() + newer)) as url:
        done = finish(cpp, url, file)
    assert done.status == 0
    assert done.state["node-17"]["log"][0] == "step `steps_of_2030` is not known to this simulator"
    assert done.state["node-17"]["tasks"]["103"]["signals"]


def test_a_file_that_cannot_be_read_is_named(program: Program, file: Path) -> None:
    done = finish(program, "http://127.0.0.1:1", file)
    assert (done.status, done.state) == (2, {})
    assert str(file) in done.messages


def test_a_lost_response_is_asked_for_again_with_the_same_key(service: Service, program: Program, file: Path) -> None:
    with Client(service.url) as client:
        decision = client.get_json(str(client.decide({**EVENT, "id": "lost"}).id))
    asked: list[str] = []

    def answer(request: scripted_server.Asked) -> None:
        asked.append(request.headers["idempotency-key"])
        if len(asked) > 1:
            request.send(scripted_server.head() + decision)

    file.write_bytes(ndjson([EVENT]))
    with scripted_server.serving(answer) as url:
        assert finish(program, url, file).status == 0
    assert len(asked) == 2
    assert len(set(asked)) == 1


def test_a_service_that_stays_unavailable_ends_the_program(program: Program, file: Path) -> None:
    file.write_bytes(ndjson([EVENT]))
    body = b'{"type": "about:blank", "title": "busy", "status": 503, "detail": "until tomorrow"}'
    with scripted_server.serving(lambda request: request.send(scripted_server.head(status="503 busy", retry_after="3600") + body)) as url:
        done = finish(program, url, file)
    assert (done.status, done.state) == (1, {})
    assert "until tomorrow" in done.messages


def test_the_key_of_the_environment_is_sent(program: Program, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_TOKEN", "key-17")
    asked: list[str] = []

    def answer(request: scripted_server.Asked) -> None:
        asked.append(request.headers["authorization"])
        request.send(scripted_server.head(status="401 unauthenticated") + b"{}")

    file.write_bytes(ndjson([EVENT]))
    with scripted_server.serving(answer) as url:
        assert finish(program, url, file).status == 2
    assert asked == ["Bearer key-17"]


# The page for authors of simulators


def rows() -> dict[str, list[str]]:
    """Return the cells of the table of step kinds, by kind."""
    (section,) = re.findall(r"^## Steps\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells[1:]}


def test_the_page_has_a_row_for_each_kind_of_step_with_its_fields() -> None:
    expected = {step.__dataclass_fields__["kind"].default: {field.name for field in fields(step)} - {"kind"} for step in STEPS}
    documented = {kind: set(re.findall(r"`(\w+)`", cells[-1])) for kind, cells in rows().items()}
    assert documented == expected
    assert all(all(cells) for cells in rows().values())


def test_what_the_page_shows_of_a_run_is_what_both_programs_print(python: Program, cpp: Program) -> None:
    (shown,) = re.findall(r"```console\n\$ \./apply_plan .* (\S+\.ndjson)\n((?:.*\n)*?)```", GUIDE)
    for program in (python, cpp):
        with serving("--store", "memory:") as service:
            done = subprocess.run([*program, service.url, shown[0]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        printed, position = done.stderr + done.stdout, 0
        for part in re.split(r"^\.\.\.\n", shown[1], flags=re.MULTILINE):
            found = printed.find(part, position)
            assert found >= 0, part
            position = found + len(part)
