"""Retention by age and size, and its record of purges."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.intake import EventDocument
from ras_triage.service.engine.retention import Retention, portion
from ras_triage.service.http.runtime import open_runtime
from ras_triage.service.store.port import Filter, Usage
from ras_triage.service.store.sqlite import SqliteStore
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT
from tests.service.support.stored_decisions import NOON, entry


@pytest.mark.parametrize(("limit", "reason"), [({"retention_days": 1}, "age"), ({"retention_bytes": 1}, "size")])
def test_what_is_beyond_a_limit_goes_on_record_and_is_new_when_it_comes_again(limit: dict[str, Any], reason: str) -> None:
    async def run() -> None:
        later = NOON + 2 * 24 * 60 * 60 * 1000
        async with open_runtime(Settings(), TemporaryStore(), lambda: NOON) as runtime:
            document = EventDocument(json.dumps({**EVENT, "id": "a"}).encode())
            first = await runtime.intake.decide(document)
            assert await Retention(Settings(**limit), runtime.writer, runtime.store, lambda: later).purge() == 1
            (purge,) = runtime.store.purges(9)
            assert (purge.reason, purge.count, purge.at_ms, purge.oldest_ms) == (reason, 1, later, NOON)
            again = await runtime.intake.decide(document)
            assert not again.repeat
            assert again.id != first.id

    asyncio.run(run())


def test_a_limit_of_bytes_takes_no_more_of_large_decisions_than_it_must(tmp_path: Path) -> None:
    async def run() -> int:
        store = SqliteStore(tmp_path / "store.db")
        async with open_runtime(Settings(), store, lambda: NOON) as runtime:
            store.append([entry(number, size=1 << 20) for number in range(40)])
            await Retention(Settings(retention_bytes=25 << 20), runtime.writer, store, lambda: NOON).purge()
            assert [kept.event_id for kept in store.page(Filter(), None, 1).decisions] == ["event-39"]
            await asyncio.sleep(0.2)
            store.maintain(1 << 20)
            assert sum(file.stat().st_blocks * 512 for file in tmp_path.iterdir()) <= 25 << 20, "log and reserve included"
            return store.size().decisions

    assert asyncio.run(run()) == 14


def test_a_write_takes_few_large_decisions_away_or_many_small_ones() -> None:
    assert portion(held(decisions=20_000, size=20 << 20), 16 << 20) == 1000
    assert portion(held(decisions=20, size=80 << 20), 16 << 20) == 4
    assert portion(held(decisions=2, size=80 << 20), 16 << 20) == 1
    assert portion(held(decisions=0, size=90 << 10), 16 << 20) == 1


def held(*, decisions: int, size: int) -> Usage:
    return Usage(size, 0, decisions)


def test_a_limit_of_days_beyond_all_time_keeps_everything_and_leaves_the_limit_of_bytes_in_force(tmp_path: Path) -> None:
    async def run(**limits: Any) -> int:
        store = SqliteStore(tmp_path / "store.db")
        async with open_runtime(Settings(), store, lambda: NOON) as runtime:
            if not limits:
                store.append([entry(number) for number in range(5)])
            return await Retention(Settings(retention_days=1e308, **limits), runtime.writer, store, lambda: NOON).purge()

    assert asyncio.run(run()) == 0
    assert asyncio.run(run(retention_bytes=1)) == 5


def on_disk(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir())


def test_a_limit_of_bytes_holds_while_events_come_in_log_and_reserve_included(tmp_path: Path) -> None:
    limit = 24 << 20
    most = 0

    async def run() -> None:
        nonlocal most
        store = SqliteStore(tmp_path / "store.db")
        async with open_runtime(Settings(retention_bytes=limit), store, lambda: NOON) as runtime:
            purged: list[int] = []
            runtime.retention.purged.append(lambda _reason, count: purged.append(count))
            await asyncio.sleep(0)
            for group in range(40):
                durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                runtime.writer.enqueue([entry(group * 200 + number, size=4000) for number in range(200)], durable)
                await durable
                most = max(most, on_disk(tmp_path))
            assert len(purged) < 40, "not each commit brings a purge"

    asyncio.run(run())
    assert most < limit * 1.25, most
    store = SqliteStore(tmp_path / "store.db")
    held = store.size()
    assert held.decisions + sum(purge.count for purge in store.purges(1000)) == 8000
    assert held.newest_ms == NOON + 7999
    assert held.bytes > limit / 3, "it takes no more than it must"
    store.close()


def test_a_lower_limit_is_reached_after_a_start_without_an_event(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    store.append([entry(number, size=4000) for number in range(6000)])
    store.close()

    async def run() -> int:
        store = SqliteStore(tmp_path / "store.db")
        async with open_runtime(Settings(retention_bytes=16 << 20), store, lambda: NOON):
            for _ in range(100):
                await asyncio.sleep(0.05)
                if on_disk(tmp_path) <= 16 << 20:
                    break
            return on_disk(tmp_path)

    assert asyncio.run(run()) <= 16 << 20
