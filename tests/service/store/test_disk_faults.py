"""Failing disk under a running service: durability, recovery, no false damage."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.store.maintenance.offline import check
from ras_triage.service.store.port import Filter
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support import disk_faults
from tests.service.support.application import EVENT
from tests.service.support.disk_faults import Disk
from tests.service.support.server_process import serving
from tests.service.support.stored_decisions import entry


class Sender:
    """Sends events, and remembers what was answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sent: set[str] = set()
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.refused: Counter[tuple[int, str]] = Counter()

    def single(self, name: str) -> None:
        self.sent.add(name)
        answer = httpx.post(f"{self.url}/v1/decisions", json={**EVENT, "id": name}, timeout=20)
        if answer.is_error:
            assert answer.headers.get("retry-after"), answer.text
        self._take(name, answer.status_code, answer.json())

    def batch(self, names: list[str]) -> None:
        self.sent.update(names)
        answer = httpx.post(f"{self.url}/v1/decisions/batch", json=[{**EVENT, "id": name} for name in names], timeout=20)
        for name, item in zip(names, answer.json(), strict=True):
            assert item.pop("event_id") == name
            assert item.pop("index") == names.index(name)
            self._take(name, item.get("status", 200), item)

    def _take(self, name: str, status: int, answer: dict[str, Any]) -> None:
        if status in (200, 201):
            first = self.acknowledged.setdefault(name, {**answer, "repeat": False})
            assert first == {**answer, "repeat": False}, "the same decision each time"
        else:
            self.refused[status, str(answer["type"]).rpartition(":")[2]] += 1


FAULTS = [
    ("read", 1),
    ("read", 3),
    ("write", 1),
    ("write", 5),
    ("sync", 1),
    ("sync", 2),
    ("short", 1),
    ("short", 3),
    ("full", 1),
    ("truncate", 1),
]


def start(folder: Path) -> Any:
    program = (disk_faults.__file__, str(folder / "control"))
    return serving("--store", f"sqlite:///{folder / 'store.db'}", program=program)


def test_what_was_acknowledged_is_kept_once_whatever_the_disk_did(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "control")
    with start(tmp_path) as service:
        sender = Sender(service.url)
        sender.single("first")
        for fault, every in FAULTS:
            disk.fail(fault, every)
            sender.single(f"{fault}-{every}-0")
            sender.batch(["first", *(f"{fault}-{every}-{number}" for number in range(6))])
            if every == 1 and fault in ("write", "sync", "full"):
                assert not {name for name in sender.acknowledged if name.startswith(f"{fault}-1-")}, "the fault is felt"
            if (fault, every) == ("read", 1):
                listed = httpx.get(f"{service.url}/v1/decisions", params={"source": "node-17"})
                assert (listed.status_code, listed.json()["type"].rpartition(":")[2]) == (503, "store-unavailable")
                assert listed.headers["retry-after"]
            disk.fail("none")
            sender.single(f"after-{fault}-{every}")
            assert f"after-{fault}-{every}" in sender.acknowledged, "it goes on without a restart"
            assert httpx.get(f"{service.url}/readyz").status_code == 200
        assert set(sender.refused) == {(503, "store-unavailable")}, "a disk that fails is not damage"
        for name, answer in sender.acknowledged.items():
            assert httpx.get(f"{service.url}/v1/decisions/{answer['id']}").json() == answer, name
        service.kill()
    kept_once(tmp_path / "store.db", sender)


def kept_once(path: Path, sender: Sender) -> None:
    report = check(path, read_stored_event, repair=False, at_ms=0)
    assert report.findings == ()
    store = SqliteStore(path)
    kept = {summary.event_id: summary.id for summary in store.page(Filter(), None, 10_000).decisions}
    assert len(kept) == report.decisions, "each once"
    assert {name: answer["id"] for name, answer in sender.acknowledged.items()}.items() <= kept.items()
    assert kept.keys() <= sender.sent
    store.close()


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("store", "check", "--repair")])
def test_a_disk_that_cannot_be_read_is_not_called_damaged_and_nothing_is_given_up(command: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    store.append([entry(1)])
    store.close()
    before = path.read_bytes()
    Disk(tmp_path / "control").fail("read")
    program = [sys.executable, disk_faults.__file__, str(tmp_path / "control"), *command, "--store", f"sqlite:///{path}"]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert re.search("disk I/O error|the disk failed a read: input/output error", ended.stderr)
    assert "damaged" not in ended.stderr
    assert path.read_bytes() == before
