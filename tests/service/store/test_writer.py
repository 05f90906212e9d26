"""Store writer: one commit, and one failure, for all waiting entries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ras_triage.service.store.port import NewDecision, StoreUnavailable
from ras_triage.service.store.temporary import TemporaryStore
from ras_triage.service.store.writer import WriteQueueFull, Writer
from tests.service.support.stored_decisions import entry


class Slow(TemporaryStore):
    """A store whose appends wait for a gate, and fail while there is something to fail with."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.reached = threading.Event(), threading.Event()
        self.appends: list[list[str]] = []
        self.error: Exception | None = None

    def append(self, entries: Sequence[NewDecision]) -> None:
        self.reached.set()
        assert self.gate.wait(10), "the test opens the gate"
        if self.error is not None:
            raise self.error
        self.appends.append([kept.summary.event_id or "" for kept in entries])
        super().append(entries)


def _writer(store: Slow, max_entries: int = 100) -> Writer:
    return Writer(store, max_entries=max_entries, max_bytes=1 << 20)


def _keep(writer: Writer, number: int) -> asyncio.Future[None]:
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    writer.enqueue([entry(number)], durable)
    return durable


async def _first_blocked(store: Slow, writer: Writer) -> asyncio.Future[None]:
    """Entry 1, in the middle of its append."""
    first = _keep(writer, 1)
    assert await asyncio.to_thread(store.reached.wait, 10), "the thread takes what is handed over"
    return first


def test_entries_that_wait_are_kept_in_one_append() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store)
        first = await _first_blocked(store, writer)
        others = [_keep(writer, number) for number in (2, 3, 4)]
        assert writer.statistics.queue_entries == 4, "what is being written waits too"
        store.gate.set()
        await asyncio.gather(first, *others)
        assert store.appends == [["event-1"], ["event-2", "event-3", "event-4"]]
        assert (writer.statistics.queue_entries, writer.statistics.queue_bytes) == (0, 0)
        await writer.close()

    asyncio.run(run())


def test_a_failed_write_fails_what_was_decided_on_top_of_it_and_nothing_later() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store)
        heard: list[str] = []
        writer.failed.append(lambda error: heard.append(str(error)))
        store.error = StoreUnavailable("disk full")
        first = await _first_blocked(store, writer)
        second = _keep(writer, 2)
        store.gate.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [str(result) for result in results] == ["disk full", "an earlier write failed"]
        assert heard == ["disk full"], "one failure is heard once"
        assert writer.statistics.last_failure == "disk full"
        store.error = None
        await _keep(writer, 3)
        assert store.appends == [["event-3"]], "what is handed over after the failure was heard rests on nothing lost"
        assert writer.statistics.last_failure is None
        await writer.close()

    asyncio.run(run())


def test_more_than_may_wait_is_refused() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store, max_entries=2)
        writer.require_room(1000, 1 << 30)  # an empty queue takes whatever comes
        first = await _first_blocked(store, writer)
        writer.require_room(1, 0)
        with pytest.raises(WriteQueueFull, match="1 decisions wait to be written"):
            writer.require_room(2, 0)
        with pytest.raises(WriteQueueFull):
            writer.require_room(1, 1 << 20)
        store.gate.set()
        await first
        writer.require_room(2, 0)
        await writer.close()

    asyncio.run(run())


def test_closing_writes_what_waits_and_takes_no_more() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store)
        first = await _first_blocked(store, writer)
        second = _keep(writer, 2)
        closing = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        late = _keep(writer, 3)
        store.gate.set()
        await closing
        await asyncio.gather(first, second)
        assert store.appends == [["event-1"], ["event-2"]]
        with pytest.raises(StoreUnavailable, match="the service is stopping"):
            await late

    asyncio.run(run())


def test_a_call_runs_in_its_turn() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store)
        first = await _first_blocked(store, writer)
        second = _keep(writer, 2)
        call = asyncio.create_task(writer.call(lambda: len(store.appends)))
        await asyncio.sleep(0)
        third = _keep(writer, 3)
        store.gate.set()
        await asyncio.gather(first, second, third)
        assert await call == 2, "after what was handed over before it"
        assert store.appends[2:] == [["event-3"]], "before what was handed over after it"
        await writer.close()

    asyncio.run(run())


def test_a_defect_is_heard_and_the_thread_goes_on() -> None:
    async def run() -> None:
        store = Slow()
        store.gate.set()
        writer = _writer(store)
        heard: list[Exception] = []
        writer.failed.append(heard.append)
        store.error = ZeroDivisionError("a defect")
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await _keep(writer, 1)
        assert heard == [store.error], "whoever is on call hears of it too"
        store.error = None
        await _keep(writer, 2)
        assert store.appends == [["event-2"]]
        await writer.close()

    asyncio.run(run())


def test_a_defect_fails_what_was_decided_on_top_of_it_too() -> None:
    async def run() -> None:
        store = Slow()
        writer = _writer(store)
        store.error = ZeroDivisionError("a defect")
        first = await _first_blocked(store, writer)
        second = _keep(writer, 2)
        store.gate.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [str(result) for result in results] == ["a defect", "an earlier write failed"], "the first was not kept either way"
        await writer.close()

    asyncio.run(run())
