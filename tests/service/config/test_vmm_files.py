"""VMMs of a user's own, from a file to the decision."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ras_triage.policies.catalog.vmms import load_vmm, vmms
from tests.paths import ROOT
from tests.service.support.application import run
from tests.service.support.server_process import Service

OURS = """
name = "ours"
base = "qemu"
summary = "QEMU 11.0 with our patches"
evidence = "target/arm/kvm.c of our tree"
[flags]
waits_for_acknowledgement = true
"""
PENDING = {**json.loads((ROOT / "docs/examples/guest-qemu.json").read_bytes())}
PENDING["host"]["vms"][0]["guest"]["ack_pending"] = ["sea"]


def guest(vmm: str) -> dict[str, Any]:
    """An error of a guest that has not acknowledged its last record, and of a host that had none before."""
    host = PENDING["host"]
    pages = [{**page, "poisoned": False} for page in host["pages"]]
    return {**PENDING, "host": {**host, "vms": [{**host["vms"][0], "vmm": vmm}], "recent": [], "pages": pages}}


def ends(decision: dict[str, Any]) -> bool:
    return any(step["kind"] == "vmm_exits" for step in decision["plan"])


def identity(decision: dict[str, Any]) -> list[str]:
    return [rule["given"]["digest"] for rule in decision["rationale"] if rule["rule"] == "guest.custom_vmm"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vmms") / "ours.toml"
    path.write_text(OURS)
    return path


# Command line


def decide(vmm: str, *options: str) -> dict[str, Any]:
    decision: dict[str, Any] = json.loads(run("decide", "-", "--json", *options, given=json.dumps(guest(vmm)).encode()).stdout)
    return decision


def test_a_vmm_file_changes_the_guest_part_of_a_decision(file: Path) -> None:
    built_in, ours = decide("qemu"), decide("ours", "--vmm-file", str(file))
    assert (ends(built_in), ends(ours)) == (True, False)
    assert (identity(built_in), identity(ours)) == ([], [load_vmm(OURS, ()).digest])
    assert [step for step in ours["plan"] if step["kind"] == "signal"] == [step for step in built_in["plan"] if step["kind"] == "signal"]


def test_other_vmms_decide_the_same_with_a_vmm_file(file: Path) -> None:
    assert decide("qemu", "--vmm-file", str(file)) == decide("qemu")


def test_an_import_uses_a_vmm_file(file: Path) -> None:
    done = run("import", "--json", "--vmm-file", str(file), "-", given=json.dumps(guest("ours")).encode())
    assert b'"guest.custom_vmm"' in done.stdout


def test_an_unknown_vmm_is_named_with_its_place_and_the_known_ones(file: Path) -> None:
    done = run("decide", "-", "--vmm-file", str(file), given=json.dumps(guest("our")).encode())
    assert done.returncode == 2
    text = " ".join(done.stderr.decode().split())
    assert "`/host/vms/0/vmm`: unknown VMM `our`; expected one of `standard`," in text
    assert "`crosvm`, `ours`; did you mean `ours`?" in text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "no such file or directory"),
        (b"\xff", "is not UTF-8 text"),
        (b"name = ", "not valid TOML: "),
        (b'name = "qemu"', "`name`: `qemu` is already in use"),
        (b'name = "ours"\nbase = "qemu"', "`name`: `ours` is already in use"),
        (b'name = "new"\nbase = "quemu"', "`base`: unknown VMM `quemu`"),
        (b'name = "new"\n[flags]\nhandle_sigbus = true', "`flags.handle_sigbus`: unknown behaviour flag; did you mean `handles_sigbus`?"),
        (b'name = "new"\n[flags]\nhandles_sigbus = "yes"', "`flags.handles_sigbus`: expected true or false"),
        (b'name = "new"', "`exits.signal`: missing"),
    ],
)
def test_a_bad_vmm_file_is_exit_2_with_path_and_field(tmp_path: Path, file: Path, text: bytes | None, complaint: str) -> None:
    bad = tmp_path / "bad.toml"
    if text is not None:
        bad.write_bytes(text)
    for command in (["decide", "-"], ["config"]):
        done = run(*command, "--vmm-file", str(file), "--vmm-file", str(bad), given=b"{}")
        message = " ".join(done.stderr.decode().split())
        assert (done.returncode, done.stdout) == (2, b"")
        assert f"`{bad}`" in message
        assert complaint in message


def test_a_bad_policy_file_is_named_with_its_path(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "ours"\n')
    message = run("policies", "--policy-file", str(bad)).stderr.decode()
    assert f"`{bad}`: `base`: missing; expected a string" in message


def test_vmms_are_listed_with_the_policies(file: Path) -> None:
    listed = json.loads(run("policies", "--json", "--vmm-file", str(file)).stdout)["vmms"]
    assert [vmm["name"] for vmm in listed] == [*vmms(), "ours"]
    flags = ["handles_sigbus", "asks_for_early_signals", "waits_for_acknowledgement"]
    assert listed[-1] == {"name": "ours", "digest": load_vmm(OURS, ()).digest, "summary": "QEMU 11.0 with our patches", "flags": flags}
    page = run("policies", "--vmm-file", str(file)).stdout.decode()
    assert "QEMU 11.0 with our patches" in page
    assert listed[-1]["digest"][7:19] in page


def test_the_name_of_a_file_need_not_be_utf_8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.toml"
    Path(os.fsdecode(path)).write_text(OURS)
    assert run("policies", "--vmm-file", os.fsdecode(path)).returncode == 0
    assert run("config", "--vmm-file", os.fsdecode(path)).returncode == 0


# Service


class Running:
    """A service with a settings file that names a VMM file."""

    def __init__(self, folder: Path) -> None:
        self.config, self.vmm = folder / "config.toml", folder / "ours.toml"
        self.write(OURS)
        self.service = Service("--config", str(self.config), "--store", f"sqlite:///{folder / 'store.db'}")

    def write(self, vmm: str | None) -> None:
        self.vmm.write_text(vmm or "")
        self.config.write_text(f'vmm_files = ["{self.vmm}"]\nbatch_workers = 1\n' if vmm else "batch_workers = 1\n")

    def reload(self) -> str:
        before = len(self.service.log)
        self.service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if lines := [line for line in self.service.log[before:] if "reload" in line]:
                return lines[0]
            time.sleep(0.02)
        raise AssertionError("not reloaded")

    def post(self, path: str, **content: Any) -> httpx.Response:
        return httpx.post(f"{self.service.url}{path}", timeout=60, **content)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    found = Running(tmp_path_factory.mktemp("vmm-service"))
    yield found
    found.service.kill()


def test_a_service_decides_with_a_vmm_file(running: Running) -> None:
    built_in, ours = (running.post("/v1/decisions", json=guest(vmm)).json() for vmm in ("qemu", "ours"))
    assert (ends(built_in), ends(ours)) == (True, False)
    assert identity(ours) == [load_vmm(OURS, ()).digest]
    stored = httpx.get(f"{running.service.url}/v1/decisions/{ours['id']}", timeout=20).json()
    assert identity(stored) == identity(ours)
    assert httpx.get(f"{running.service.url}/v1/policies", timeout=20).json()["vmms"][-1]["digest"] == load_vmm(OURS, ()).digest


def test_workers_decide_with_it_as_well(running: Running) -> None:
    lines = b"".join(json.dumps({**guest("ours"), "id": f"e-{number}"}).encode() + b"\n" for number in range(1500))
    answer = running.post("/v1/decisions/batch", content=lines, headers={"content-type": "application/x-ndjson"})
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert len(found) == 1500
    assert {tuple(identity(decision)) for decision in found} == {(load_vmm(OURS, ()).digest,)}


def test_a_service_refuses_an_unknown_vmm_where_it_is_named(running: Running) -> None:
    refused = running.post("/v1/decisions", json=guest("other"))
    assert refused.status_code == 422
    problem = refused.json()
    assert problem["type"] == "urn:ras-triage:problem:invalid-event"
    assert problem["errors"][0]["pointer"] == "/host/vms/0/vmm"
    put = httpx.put(f"{running.service.url}/v1/hosts/unknown-vmm", json=guest("other")["host"], timeout=20)
    assert (put.status_code, put.json()["type"]) == (422, "urn:ras-triage:problem:invalid-host")
    assert put.json()["errors"][0]["pointer"] == "/vms/0/vmm"


def test_a_reload_changes_a_vmm_and_facts_that_name_a_removed_one_are_refused(running: Running) -> None:
    source = {"source": "removed-vmm", "notification": PENDING["notification"], "status_block": PENDING["status_block"]}
    put = httpx.put(f"{running.service.url}/v1/hosts/removed-vmm", json=guest("ours")["host"], timeout=20)
    assert put.status_code in (200, 201)
    try:
        running.write(OURS.replace("waits_for_acknowledgement", "tells_every_page"))
        assert "changed=vmm_files" in running.reload()
        assert ends(running.post("/v1/decisions", json=source).json())
        running.write(None)
        assert "changed=vmm_files" in running.reload()
        refused = running.post("/v1/decisions", json=source)
        assert refused.status_code == 422
        assert "unknown VMM `ours`" in refused.json()["detail"]
        assert "stored facts of source `removed-vmm`" in refused.json()["detail"]
    finally:
        running.write(OURS)
        running.reload()
    assert not ends(running.post("/v1/decisions", json=source).json())
