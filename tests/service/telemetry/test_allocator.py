"""Return of memory to the kernel after a load."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import httpx
import pytest

from ras_triage.service.store import sqlite
from ras_triage.service.store.port import Filter
from ras_triage.service.store.sqlite import SqliteStore
from ras_triage.service.telemetry import allocator, memory_return
from ras_triage.service.telemetry.memory_return import MemoryReturn, resident_bytes
from tests.service.support.server_process import serving
from tests.service.support.stored_decisions import entry

MIB = 1 << 20

glibc_only = pytest.mark.skipif(
    allocator._function("malloc_trim") is None, reason="this C library gives memory back by itself, or not at all"
)


@pytest.fixture(autouse=True)
def nothing_to_return() -> None:
    """Return the memory that earlier tests in this process left: what a test frees would be nothing beside it."""
    gc.collect()
    allocator.trim()


def holes() -> list[bytes]:
    """Memory that is free but for every hundredth block, so that none of it goes back by itself."""
    blocks = [bytes([1]) * 50_000 for _ in range(2000)]
    return blocks[::100]


@glibc_only
def test_a_service_gives_back_what_a_load_took(tmp_path: Path) -> None:
    pages = [{"physical_address": hex(4096 * number), "state": "anonymous"} for number in range(55_000)]
    large = json.dumps({"notification": "polled", "host": {"pages": pages}})
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service:

        def memory(which: str = "VmRSS") -> int:
            status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
            return int(status.partition(f"{which}:")[2].split()[0]) << 10

        def send(_: int) -> int:
            return httpx.post(f"{service.url}/v1/decisions", content=large, timeout=60).status_code

        before = memory()
        with ThreadPoolExecutor(16) as senders:
            assert set(senders.map(send, range(16))) == {201}
        assert memory("VmHWM") - before > 50 * MIB
        deadline = time.monotonic() + 30
        while memory() - before > 35 * MIB:
            assert time.monotonic() < deadline, f"{(memory() - before) // MIB} MiB more than before"
            time.sleep(0.2)
        figures = httpx.get(f"{service.url}/metrics").text
        assert "\nras_triage_returned_memory_bytes_total 0.0\n" not in figures
        assert "\nras_triage_allocator_used_bytes " in figures


@glibc_only
def test_memory_is_returned_when_the_service_is_idle_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_return, "PAUSE_S", 0.0)
    released = 0

    def release() -> None:
        nonlocal released
        released += 1

    async def work() -> None:
        memory = MemoryReturn(release)
        kept = holes()
        grown = resident_bytes() or 0
        await memory._check(0.9)
        assert (released, memory.returned_bytes) == (0, 0)
        await memory._check(0.0)
        assert (resident_bytes() or 0) < grown - 40 * MIB
        assert (released, memory.returned_bytes > 40 * MIB) == (1, True)
        await memory._check(0.0)
        assert released == 1, "nothing has grown since"
        monkeypatch.setattr(memory_return, "LATEST_S", 0.0)
        kept += holes()
        await memory._check(0.9)
        assert memory.returned_bytes > 80 * MIB, "a load that does not end keeps what it does not use"
        assert released == 1, "caches that are in use were released"
        kept.clear()

    asyncio.run(work())


@glibc_only
@pytest.mark.parametrize(("share", "is_busy"), [(0.9, False), (0.0, True)])
def test_what_is_left_during_a_load_is_no_measure_for_what_may_stay_after_it(
    monkeypatch: pytest.MonkeyPatch, share: float, is_busy: bool
) -> None:
    """Also where the machine has so much else to do that the service seems to be idle."""
    monkeypatch.setattr(memory_return, "PAUSE_S", 0.0)
    monkeypatch.setattr(memory_return, "LATEST_S", 0.0)

    async def work() -> None:
        memory = MemoryReturn(lambda: None)
        memory.is_busy = lambda: is_busy
        in_use = [bytes([1]) * 50_000 for _ in range(2000)]
        await memory._check(share)
        before = memory.returned_bytes
        del in_use[1::2]
        memory.is_busy = lambda: False
        await memory._check(0.0)
        assert memory.returned_bytes - before > 30 * MIB

    asyncio.run(work())


def test_requests_that_hold_memory_for_long_do_not_have_it_looked_for_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_return, "PAUSE_S", 0.0)
    released = 0

    def release() -> None:
        nonlocal released
        released += 1

    async def work() -> None:
        memory = MemoryReturn(release)
        memory.is_busy = lambda: True
        in_use = bytearray(b"1") * (64 * MIB)
        for _ in range(5):
            await memory._check(0.0)
        assert len(in_use) == 64 * MIB
        assert released <= 2

    asyncio.run(work())


def test_a_cache_that_cannot_be_released_does_not_keep_the_rest(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(memory_return, "GROWTH_BYTES", -1)
    monkeypatch.setattr(memory_return, "PAUSE_S", 0.0)

    def fail() -> None:
        raise RuntimeError("planted")

    asyncio.run(MemoryReturn(fail)._check(0.0))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["caches not released"]


@pytest.mark.parametrize("missing", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, missing: type[Exception]) -> None:
    class Other:
        """A C library without glibc's own functions, or none that can be found."""

        def __init__(self, _: None) -> None:
            if missing is not AttributeError:
                raise missing

    monkeypatch.setattr(ctypes, "CDLL", Other)
    monkeypatch.setattr(memory_return, "_STATM", Path("/nonexistent"))
    allocator._function.cache_clear()
    try:
        allocator.limit()
        allocator.trim()
        assert allocator.allocator_stats() is None
        asyncio.run(asyncio.wait_for(MemoryReturn(lambda: None).run(), 5))
    finally:
        allocator._function.cache_clear()


def test_a_store_whose_caches_are_released_all_the_time_keeps_and_answers_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_CHECK_EVERY", 1)  # two threads on one connection deadlock in the progress handler
    done = Event()
    with closing(SqliteStore(tmp_path / "store.db")) as store, ThreadPoolExecutor(4) as threads:

        def release() -> None:
            while not done.is_set():
                store.release_memory()

        def read(number: int) -> int:
            return len(store.page(Filter(action=("signal",)), None, 10).decisions) + number

        releasing = threads.submit(release)
        for number in range(150):
            store.append([entry(number)])
            assert threads.submit(read, 0).result() == min(10, number + 1)
        done.set()
        releasing.result()
        assert store.check() == []
        assert store.size().decisions == 150
