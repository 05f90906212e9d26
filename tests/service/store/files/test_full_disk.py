"""Full file system: retention and `store purge` free space."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.runtime import open_runtime
from ras_triage.service.store.maintenance.offline import check
from ras_triage.service.store.port import StoreUnavailable
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.application import EVENT, Call, client, run
from tests.service.support.stored_decisions import NOON, entry

SIZE = 16 << 20


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("nobody but root can mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def padded(name: str, size: int = 60_000) -> bytes:
    """An event of that many bytes more, which hardly compress; they are kept as they are sent."""
    return json.dumps({**EVENT, "id": name}).encode() + bytes(random.choices(b" \t\r\n", k=size))


def decide(call: Call, name: str) -> Any:
    return call("POST", "/v1/decisions", content=padded(name), headers={"content-type": "application/json"})


def fill(call: Call) -> dict[str, str]:
    """Send until the disk is full; the ids of what was acknowledged."""
    acknowledged: dict[str, str] = {}
    for number in range(2000):
        answer = decide(call, f"e-{number}")
        if answer.status_code != 201:
            assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (503, "store-unavailable")
            assert answer.headers["retry-after"]
            return acknowledged
        acknowledged[f"e-{number}"] = answer.json()["id"]
    raise AssertionError("the disk is not full")


def settled(call: Call) -> bool:
    """Whether the service is ready, within a few seconds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if call("GET", "/readyz").status_code == 200:
            return True
        time.sleep(0.05)
    return False


def kept(call: Call, acknowledged: dict[str, str]) -> int:
    """How many of them are there; asserts that they are the newest."""
    found = [call("GET", f"/v1/decisions/{identity}").status_code for identity in acknowledged.values()]
    assert found == sorted(found, reverse=True), "the oldest go first"
    return found.count(200)


def test_a_purge_beside_the_service_makes_room_on_a_full_disk(volume: Path) -> None:
    path = volume / "store.db"
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        acknowledged = fill(call)
        assert call("GET", "/readyz").status_code == 503
        assert kept(call, acknowledged) == len(acknowledged)
        for _ in range(3):  # and it stays full
            assert decide(call, "one more").status_code == 503
        purged = run("store", "purge", "--larger-than", "5MB", "--store", f"sqlite:///{path}")
        assert purged.returncode == 0, purged.stderr
        assert settled(call)
        assert decide(call, "after").status_code == 201
        left = kept(call, acknowledged)
        assert 10 < left < len(acknowledged)
        assert sum(purge["count"] for purge in call("GET", "/v1/store").json()["purges"]) == len(acknowledged) - left
    assert check(path, read_stored_event, repair=False, at_ms=0).findings == ()


@pytest.mark.parametrize("limits", [{"retention_bytes": 8 << 20}, {"retention_days": 1e-6}])
def test_retention_makes_room_on_a_full_disk_after_a_start(limits: dict[str, Any], volume: Path) -> None:
    path = volume / "store.db"
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        acknowledged = fill(call)
    with client(create_app(Settings(store=f"sqlite:///{path}", **limits))) as call:
        assert settled(call)
        assert decide(call, "after").status_code == 201
        assert kept(call, acknowledged) < len(acknowledged)
    assert check(path, read_stored_event, repair=False, at_ms=0).findings == ()


def test_retention_makes_room_where_others_took_the_last_byte(volume: Path) -> None:
    """The reserve is in the file system's hands already, so that nobody else can take it."""
    path = volume / "store.db"

    async def load() -> int:
        store = SqliteStore(path)
        store.append([entry(number, size=20_000) for number in range(200)])
        store.maintain(0)
        take_the_rest(volume)
        with pytest.raises(StoreUnavailable, match="full"):
            store.append([entry(1000)])
        async with open_runtime(Settings(retention_bytes=4 << 20), store, lambda: NOON):
            for _ in range(200):
                await asyncio.sleep(0.05)
                if store.size().decisions < 200:
                    break
            return store.size().decisions

    assert asyncio.run(load()) < 200


def take_the_rest(volume: Path) -> None:
    with (volume / "other").open("wb") as other:
        os.posix_fallocate(other.fileno(), 0, os.statvfs(volume).f_bavail * os.statvfs(volume).f_frsize)
    assert os.statvfs(volume).f_bavail == 0


def test_a_store_is_opened_on_a_disk_without_a_free_byte(volume: Path) -> None:
    path = volume / "store.db"
    store = SqliteStore(path)
    store.append([entry(number, size=20_000) for number in range(200)])
    store.close()
    take_the_rest(volume)
    purged = run("store", "purge", "--larger-than", "1MB", "--store", f"sqlite:///{path}")
    assert purged.returncode == 0, purged.stderr
    store = SqliteStore(path)
    assert 0 < store.size().decisions < 100
    store.append([entry(1000)])
    store.close()


def test_a_limit_below_the_size_of_the_disk_never_lets_it_run_full(volume: Path) -> None:
    async def load() -> None:
        store = SqliteStore(volume / "store.db")
        async with open_runtime(Settings(retention_bytes=10 << 20), store, lambda: NOON) as runtime:
            await asyncio.sleep(0)
            for group in range(100):
                durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                runtime.writer.enqueue([entry(group * 50 + number, size=10_000) for number in range(50)], durable)
                await durable

    asyncio.run(load())
