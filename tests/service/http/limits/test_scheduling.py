"""Scheduling and admission: fair shares between clients."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.limits.admission import SLICE, Admission, ClientWork, Rate
from ras_triage.service.http.limits.retry_schedule import RetrySchedule
from ras_triage.service.http.limits.scheduling import STARTS, RoundRobin, StartLimiter
from ras_triage.service.store.port import NewDecision
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT, client
from tests.service.support.raw_connections import wait_until


async def passes(work: list[Coroutine[Any, Any, None]], count: list[int]) -> list[int]:
    """Run work together; return what `count` came to in each pass of the event loop."""
    tasks = [asyncio.create_task(one) for one in work]
    counts = []
    while not all(task.done() for task in tasks):
        before = len(count)
        await asyncio.sleep(0)
        counts.append(len(count) - before)
    await asyncio.gather(*tasks)
    return counts


def test_a_burst_of_requests_begins_a_few_in_each_pass() -> None:
    async def run() -> tuple[list[int], list[int]]:
        starts, begun = StartLimiter(), list[int]()

        async def begin(number: int) -> None:
            await starts.turn()
            begun.append(number)

        return begun, await passes([begin(number) for number in range(100)], begun)

    begun, counts = asyncio.run(run())
    assert begun == list(range(100)), "first come, first served"
    assert max(counts) <= 2 * STARTS, "the last of one pass and the first of the next"
    assert len(counts) < 40


def test_single_requests_begin_before_batches_that_came_earlier_and_batches_begin_all_the_same() -> None:
    async def run() -> str:
        starts, begun = StartLimiter(), list[str]()

        async def begin(kind: str) -> None:
            await starts.turn(long_running=kind == "b")
            begun.append(kind)

        await asyncio.gather(*(begin("b") for _ in range(60)), *(begin("s") for _ in range(60)))
        return "".join(begun)

    begun = asyncio.run(run())
    last_single = begun.rindex("s")
    assert 60 // STARTS <= begun[:last_single].count("b") <= 60 // 2
    assert begun.count("b") == 60


def test_a_request_that_was_cancelled_while_it_waited_takes_no_turn() -> None:
    async def run() -> int:
        starts, begun = StartLimiter(), list[int]()

        async def begin() -> None:
            await starts.turn()
            begun.append(1)

        tasks = [asyncio.create_task(begin()) for _ in range(5 * STARTS)]
        await asyncio.sleep(0)
        for task in tasks[STARTS : 3 * STARTS]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await starts.turn()
        return len(begun)

    assert asyncio.run(run()) == 3 * STARTS


def test_one_slice_is_decided_in_a_pass_however_many_wait() -> None:
    async def run() -> list[int]:
        turns, decided = RoundRobin(), list[int]()

        async def decide(client: str) -> None:
            for number in range(5):
                async with turns.turn(client):
                    decided.append(number)

        return await passes([decide(str(client)) for client in range(20)], decided)

    counts = asyncio.run(run())
    assert max(counts) == 1
    assert sum(counts) == 100
    assert len(counts) < 250, "at most one pass in between"


def test_clients_take_turns_however_many_batches_each_has() -> None:
    async def run() -> list[str]:
        turns, order = RoundRobin(), list[str]()

        async def decide(client: str) -> None:
            async with turns.turn(client):
                order.append(client)

        await asyncio.gather(*(decide("many") for _ in range(50)), *(decide("few") for _ in range(3)))
        return order

    order = asyncio.run(run())
    assert [place for place, client in enumerate(order) if client == "few"] == [2, 4, 6]


@given(st.lists(st.sampled_from(["wait", "cancel", "fail"]), max_size=30), st.integers(1, 3))
def test_a_turn_is_handed_on_whatever_becomes_of_those_who_wait(fates: list[str], at_once: int) -> None:
    async def run() -> int:
        turns, active, most = RoundRobin(at_once), 0, 0

        async def work(client: str, fate: str) -> None:
            nonlocal active, most
            async with turns.turn(client):
                active += 1
                most = max(most, active)
                try:
                    await asyncio.sleep(0)
                finally:
                    active -= 1
                if fate == "fail":
                    raise ValueError

        tasks = [asyncio.create_task(work(str(number % 3), fate)) for number, fate in enumerate(fates)]
        for number, (task, fate) in enumerate(zip(tasks, fates, strict=True)):
            await asyncio.sleep(0)
            if fate == "cancel" and number % 2:
                task.cancel()
        for task, fate in zip(tasks, fates, strict=True):
            if fate == "cancel":
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            for _ in range(at_once + 1):
                async with turns.turn("last"):
                    pass
        return most

    assert asyncio.run(run()) <= at_once


# Admission.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def loaded(batches: dict[str, int], clock: Clock | None = None) -> Admission:
    """Return an admission in which clients have batches of a slice each queued, at 1,000 events a second."""
    clock = clock or Clock()
    admission = Admission(Settings(max_batch_wait_s=5.0), RetrySchedule(20, clock), clock)
    for name, number in batches.items():
        admission.queue(name, number * SLICE)
    return admission


def refusal(admission: Admission, client: str) -> ProblemError:
    with pytest.raises(ProblemError) as refused:
        admission.require(client)
    return refused.value


def test_a_batch_that_would_wait_too_long_is_refused_with_the_time_after_which_to_retry() -> None:
    admission = loaded({"a": 100})
    assert admission.wait_s("a") == pytest.approx(6.4)

    refused = refusal(admission, "a")
    assert (refused.problem.status, refused.problem.type) == (503, "urn:ras-triage:problem:busy")
    assert refused.headers["Retry-After"] == "7"


def test_batches_that_are_refused_together_are_not_told_to_retry_together() -> None:
    admission = loaded({"a": 100})
    times = Counter(int(refusal(admission, "a").headers["Retry-After"]) for _ in range(200))
    assert times == dict.fromkeys(range(7, 17), 20)


def test_another_client_is_not_refused_because_of_the_batches_of_one() -> None:
    admission = loaded({"a": 1000})

    admission.require("b")
    assert admission.wait_s("b") == pytest.approx(SLICE / 1000), "one slice of the other comes before"


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 200), min_size=1))
def test_nobody_waits_longer_than_all_work_takes_and_who_has_less_queued_waits_less(batches: dict[str, int]) -> None:
    admission = loaded(batches)
    waits = {client: admission.wait_s(client) for client in batches}

    assert all(wait <= sum(batches.values()) * SLICE / 1000 for wait in waits.values())
    assert all(waits[one] <= waits[other] for one in batches for other in batches if batches[one] <= batches[other])
    assert admission.wait_s("new") <= min(waits.values())


def test_the_estimate_follows_the_rate_that_was_measured_lately() -> None:
    clock = Clock()
    admission = loaded({"a": 1000}, clock)
    for _ in range(200):
        clock.now += 0.64
        admission.decided("a", SLICE)

    assert admission.wait_s("a") == pytest.approx(800 * SLICE / 100, rel=0.02), "100 events a second now"


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 100)), max_size=50))
def test_a_rate_is_always_positive(measured: list[tuple[int, float]]) -> None:
    rate = Rate()
    for events, seconds in measured:
        rate.measure(events, seconds)

    assert 0 < rate.per_second < float("inf")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_queued_after_a_turn(fails: bool) -> None:
    async def run() -> float:
        admission = Admission(Settings(), RetrySchedule(20))
        work = ClientWork(admission, "a")
        for turn in (work.deciding, work.predeciding):
            try:
                async with turn(SLICE):
                    assert admission.wait_s("a") > 0
                    if fails:
                        raise ValueError
            except ValueError:
                pass
        return admission.wait_s("a")

    assert asyncio.run(run()) == 0


# The writer's queue.


class Blocked(TemporaryStore):
    """A store whose writes wait for a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def append(self, entries: Sequence[NewDecision]) -> None:
        assert self.gate.wait(20), "the test opens the gate"
        super().append(entries)


def test_a_batch_leaves_most_of_the_writers_queue_to_single_requests() -> None:
    store = Blocked()
    app = create_app(Settings(queue_entries=400), store)
    events = b"".join(b'{"notification":"polled","id":"%d"}\n' % number for number in range(600))
    with client(app) as call, ThreadPoolExecutor(2) as threads:
        batch = threads.submit(call, "POST", "/v1/decisions/batch", content=events, headers={"content-type": "application/x-ndjson"})
        waiting = lambda: app.state.runtime.writer.statistics.queue_entries  # noqa: E731
        wait_until(lambda: waiting() > 0)
        single = threads.submit(call, "POST", "/v1/decisions", json=EVENT)
        wait_until(lambda: waiting() % SLICE == 1)

        assert waiting() <= 101
        store.gate.set()
        assert single.result().status_code == 201
        assert len(batch.result().text.splitlines()) == 600
