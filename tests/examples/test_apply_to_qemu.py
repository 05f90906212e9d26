"""Example that applies decisions to QEMU, against a QMP server on a Unix socket."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest

from ras_triage import Event, decide, resolve_policy
from ras_triage.models.decision import MemoryFailure
from tests.paths import ROOT
from tests.service.support.application import run

FOLDER: Final = ROOT / "examples" / "qemu"
README: Final = (FOLDER / "README.md").read_text(encoding="utf-8")
SHOWN: Final[list[tuple[str, str]]] = re.findall(r"```console\n\$ (.*)\n((?:.*\n)*?)```", README)

COMMAND: Final = "inject-ghes-v2-error"
GREETING: Final = {"QMP": {"version": {"qemu": {"major": 11, "minor": 1, "micro": 3}, "package": "of a test"}, "capabilities": ["oob"]}}
EVENT: Final = {"event": "RTC_CHANGE", "data": {"offset": 0}, "timestamp": {"seconds": 0, "microseconds": 0}}
UNACKNOWLEDGED: Final = "OSPM does not acknowledge previous error, so can not record CPER for current error anymore"

Message = dict[str, Any]


def failure(text: str, kind: str = "GenericError") -> Message:
    return {"error": {"class": kind, "desc": text}}


class Qemu:
    """A QEMU as QMP shows it: a greeting, negotiation of capabilities, then commands, with an event in between."""

    def __init__(self, *, ras: bool = True, machine: str = "virt-11.1", commands: tuple[str, ...] = ("query-commands", COMMAND)) -> None:
        self.commands = commands
        self.properties = {"ras": ras, "type": f"{machine}-machine"}
        self.injected: list[bytes] = []
        self.answers: Iterator[Message] = iter(())
        """Of the next injections, before those that succeed."""
        self.negotiated = False

    def answer(self, command: str, arguments: Message) -> Message:
        if not self.negotiated:
            self.negotiated = command == "qmp_capabilities"
            return {"return": {}} if self.negotiated else failure("Expecting capabilities negotiation", "CommandNotFound")
        match command:
            case "query-commands":
                return {"return": [{"name": name} for name in self.commands]}
            case "query-version":
                return {"return": GREETING["QMP"]["version"]}
            case "qom-get":
                assert arguments["path"] == "/machine"
                return {"return": self.properties[arguments["property"]]}
            case _ if command == COMMAND:
                answer = next(self.answers, {"return": {}})
                self.injected += [base64.b64decode(arguments["cper"])] if "return" in answer else []
                return answer
        return failure(f"The command {command} has not been found", "CommandNotFound")

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                send_message(connection, GREETING)
                for request in messages(connection):
                    if self.negotiated:
                        send_message(connection, EVENT)
                    identity = {"id": request["id"]} if "id" in request else {}
                    send_message(connection, {**self.answer(request["execute"], request.get("arguments", {})), **identity})


def send_message(connection: socket.socket, message: Message) -> None:
    connection.sendall(json.dumps(message).encode() + b"\r\n")


def messages(connection: socket.socket) -> Iterator[Message]:
    """Yield the objects that a client sends; nothing separates them (QMP specification 2.1)."""
    text = ""
    while received := connection.recv(1 << 16):
        text += received.decode()
        while text:
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:].lstrip()
            yield message


@contextmanager
def running(qemu: Qemu, path: Path) -> Iterator[str]:
    """Serve a QEMU on a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        Thread(target=qemu.serve, args=(listener,), daemon=True).start()
        yield str(path)


def apply(given: object, path: str, *options: str) -> tuple[int, str, str]:
    command = [sys.executable, str(FOLDER / "apply_to_qemu.py"), path, *options]
    text = given if isinstance(given, str) else json.dumps(given)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def decided(name: str) -> dict[str, Any]:
    decision: dict[str, Any] = json.loads(run("decide", "--json", f"docs/examples/{name}.json").stdout)
    return decision


@pytest.fixture(scope="module")
def announced() -> dict[str, Any]:
    """A decision with a record for the `gpio` source of a guest."""
    return decided("guest-announced")


@pytest.fixture(scope="module")
def record(announced: dict[str, Any]) -> bytes:
    (block,) = [step["status_block"] for step in announced["plan"] if step["kind"] == "record_guest_error"]
    return base64.b64decode(block)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "qmp.sock"


def test_the_record_of_a_plan_is_injected(announced: dict[str, Any], record: bytes, path: Path) -> None:
    qemu = Qemu()
    (printed,) = [shown for command, shown in SHOWN if "apply_to_qemu" in command]
    with running(qemu, path) as address:
        assert apply(announced, address) == (0, printed, "")
    assert qemu.injected == [record]
    assert len(record) == 172


def test_what_qemu_cannot_do_is_said_with_the_reason(path: Path) -> None:
    qemu = Qemu()
    with running(qemu, path) as address:
        status, printed, _ = apply(decided("guest-qemu"), address)
    assert status == 3
    recorded, abort = printed.splitlines()
    assert recorded == "record_guest_error: record for 0x40fa6000 injected; the plan says `sea`, QEMU notifies by `gpio`"
    assert abort == "inject_abort: not applied: QEMU injects an abort only for a SIGBUS of its own, under KVM"
    assert len(qemu.injected) == 1


@pytest.mark.parametrize("kind", ["inject_serror", "exit_to_vmm", "vmm_exits"])
def test_a_step_without_a_command_is_not_applied(kind: str, path: Path) -> None:
    qemu = Qemu()
    with running(qemu, path) as address:
        status, printed, _ = apply({"plan": [{"kind": "log", "what": "of the host"}, {"kind": kind, "vm": "vm-1"}]}, address)
    assert (status, qemu.injected) == (3, [])
    assert printed.startswith(f"{kind}: not applied: ")
    assert f"| `{kind}` |" in README


def test_a_record_waits_until_the_last_one_is_acknowledged(announced: dict[str, Any], record: bytes, path: Path) -> None:
    qemu = Qemu()
    qemu.answers = iter([failure(UNACKNOWLEDGED)] * 3)
    with running(qemu, path) as address:
        assert apply(announced, address)[0] == 0
    assert qemu.injected == [record]


def test_an_error_of_qemu_is_printed_as_it_is(announced: dict[str, Any], path: Path) -> None:
    qemu = Qemu()
    qemu.answers = iter([failure("GHES QMP error inject is not compiled in")])
    with running(qemu, path) as address:
        assert apply(announced, address) == (1, "", f"{address}: GHES QMP error inject is not compiled in\n")


@pytest.mark.parametrize(
    ("qemu", "reason"),
    [
        (Qemu(commands=("query-commands",)), "QEMU 11.1 has no `inject-ghes-v2-error`; expected 10.2 or later"),
        (Qemu(ras=False), "the guest has no error source; expected -machine virt,ras=on"),
        (Qemu(machine="virt-10.1"), "the machine is `virt-10.1-machine`; expected -machine virt of 10.2 or later"),
        (Qemu(machine="pc-q35-11.1"), "the machine is `pc-q35-11.1-machine`; expected -machine virt of 10.2 or later"),
    ],
    ids=["too old", "ras=off", "old machine type", "another machine"],
)
def test_a_qemu_that_would_inject_nothing_is_refused(qemu: Qemu, reason: str, announced: dict[str, Any], path: Path) -> None:
    with running(qemu, path) as address:
        status, printed, message = apply(announced, address)
    assert (status, printed, qemu.injected) == (1, "", [])
    assert message.startswith(f"{address}: {reason}")


def test_a_socket_that_nobody_serves_is_named(announced: dict[str, Any], path: Path) -> None:
    status, printed, message = apply(announced, str(path))
    assert (status, printed) == (1, "")
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1


def test_a_socket_without_a_greeting_ends_the_program(announced: dict[str, Any], path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        status, printed, message = apply(announced, str(path))
    assert (status, printed) == (1, "")
    assert message == f"{path}: no QMP greeting; expected a QMP socket that no other client uses\n"


@pytest.mark.parametrize("given", ["", "{", "[]", "{}", '{"plan": 1}'])
def test_an_input_that_is_no_decision_is_refused(given: str, path: Path) -> None:
    status, printed, message = apply(given, str(path))
    assert (status, printed) == (2, "")
    assert message.startswith("standard input: ")


def test_a_record_that_is_not_base64_is_not_sent(path: Path) -> None:
    qemu = Qemu()
    step = {"kind": "record_guest_error", "vm": "vm-1", "notification": "gpio", "status_block": "*", "ipa": "0x40fa6000"}
    with running(qemu, path) as address:
        status, _, message = apply({"plan": [step]}, address)
    assert (status, qemu.injected) == (2, [])
    assert message.startswith("standard input: `status_block` is not base64: ")


def test_one_guest_of_several_is_chosen(announced: dict[str, Any], record: bytes, path: Path) -> None:
    step = next(step for step in announced["plan"] if step["kind"] == "record_guest_error")
    both = {"plan": [step, {**step, "vm": "vm-2", "status_block": base64.b64encode(b"of another guest").decode()}]}
    assert apply(both, str(path)) == (
        2,
        "",
        "standard input: the plan has steps for several guests; expected --vm with one of vm-1, vm-2\n",
    )
    qemu = Qemu()
    with running(qemu, path) as address:
        assert apply(both, address, "--vm", "vm-1")[0] == 0
    assert qemu.injected == [record]


def test_a_real_guest_did_with_the_record_what_is_decided_for_it(record: bytes) -> None:
    log = (FOLDER / "guest.log").read_text(encoding="utf-8")
    page = {"physical_address": "0x40fa6000", "state": "free"}
    event = {"notification": {"type": "gpio", "source_id": 1}, "status_block": base64.b64encode(record).decode(), "host": {"pages": [page]}}
    (kernel,) = re.findall(r"Linux version (\d+\.\d+\.\d+)", log)
    decision = decide(Event.model_validate(event), resolve_policy(f"linux-{kernel}"))
    (step,) = [step for step in decision.plan if isinstance(step, MemoryFailure)]
    assert f"Memory failure: {step.pfn:#x}: recovery action for {step.page_type}: {str(step.result).capitalize()}\n" in log


def test_what_the_page_shows_of_the_guests_log_is_what_is_printed() -> None:
    (command, shown) = next((command, shown) for command, shown in SHOWN if command.startswith("ras-triage import"))
    printed, position = run(*command.split()[1:], COLUMNS="80", PYTHONIOENCODING="utf-8").stdout.decode(), 0
    for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE):
        found = printed.find(part, position)
        assert found >= 0, part
        position = found + len(part)
