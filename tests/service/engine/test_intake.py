"""Intake: duplicates, host facts, and one decision for each event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ras_triage.models.event import event_key
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import parse_event
from ras_triage.service.engine.intake import DecidedEvent, EventDocument, Intake, Outcome, PendingRepeat, StoredRepeat
from ras_triage.service.engine.sources import Sources
from ras_triage.service.http.runtime import Runtime, open_runtime
from ras_triage.service.store.port import HostFacts
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT
from tests.service.support.stored_decisions import NOON

ABORT = {key: EVENT[key] for key in ("source", "notification", "status_block")}
FATAL = {"source": "node-17", "notification": "sea", "status_block": {"severity": "fatal", "sections": [{"type": "memory"}]}}
TIME = "2026-11-23T10:00:00Z"


def with_runtime(test: Callable[[Runtime], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_runtime(Settings(), TemporaryStore(), lambda: NOON) as runtime:
            await test(runtime)

    asyncio.run(run())


def document(event: dict[str, Any], name: bytes | None = None) -> EventDocument:
    return EventDocument(json.dumps(event).encode(), name)


async def admit(intake: Intake, event: dict[str, Any], name: bytes | None = None) -> Outcome:
    (outcome,) = await intake.admit([document(event, name)])
    return outcome


async def decide(runtime: Runtime, event: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((await runtime.intake.decide(document(event))).body)
    return body


@pytest.mark.parametrize(("more", "name"), [({"id": "a"}, None), ({"time": TIME}, None), ({}, b"n" * 32)], ids=["id", "time", "name"])
def test_two_equal_events_at_once_are_one_decision_and_one_repeat(more: dict[str, Any], name: bytes | None) -> None:
    async def test(runtime: Runtime) -> None:
        event = {**EVENT, **more}
        first, second = await runtime.intake.admit([document(event, name), document(event, name)])
        assert isinstance(first, DecidedEvent)
        assert isinstance(second, PendingRepeat)
        one, two = await runtime.intake.await_response(first), await runtime.intake.await_response(second)
        assert (one.id, one.repeat, two.repeat) == (two.id, False, True)
        later = await admit(runtime.intake, event, name)
        assert isinstance(later, StoredRepeat), "the store knows it once it is durable"
        assert later.first.id == one.id

    with_runtime(test)


def test_events_that_say_nothing_to_be_told_by_are_each_new() -> None:
    async def test(runtime: Runtime) -> None:
        first, second = await runtime.intake.admit([document(EVENT), document(EVENT)])
        assert isinstance(first, DecidedEvent)
        assert isinstance(second, DecidedEvent)
        await first.durable

    with_runtime(test)


@pytest.mark.parametrize("durable", [False, True])
def test_another_event_of_the_same_name_is_a_conflict_that_names_both(durable: bool) -> None:
    async def test(runtime: Runtime) -> None:
        one, other = {**EVENT, "id": "a"}, {**FATAL, "id": "a"}
        first = await admit(runtime.intake, one)
        assert isinstance(first, DecidedEvent)
        if durable:
            await first.durable
        refused = await admit(runtime.intake, other)
        assert isinstance(refused, ProblemError)
        assert refused.problem.status == 409
        keys = [event_key(read_event(json.dumps(event).encode())) for event in (one, other)]
        assert all(told in refused.problem.detail for told in (first.entry.summary.id, *keys))
        await first.durable

    with_runtime(test)


def test_kept_facts_are_used_only_where_the_event_brings_none() -> None:
    async def test(runtime: Runtime) -> None:
        runtime.sources.put_facts(HostFacts("node-17", 3, NOON, b'{"kernel":"6.12.107"}'))
        assert (await decide(runtime, ABORT))["host_facts"]["version"] == 3
        own = await decide(runtime, {**ABORT, "host": {"kernel": "6.12.107"}})
        assert own["host_facts"]["version"] is None, "the event's own facts count, and only the poisoned page is told beside them"

    with_runtime(test)


def test_poisoned_pages_are_remembered_until_a_panic() -> None:
    async def test(runtime: Runtime) -> None:
        await decide(runtime, EVENT)
        assert [page.address for page in runtime.store.poisoned("node-17", 9)] == [0x56EDD000]
        assert (await decide(runtime, ABORT))["host_facts"]["poisoned"] == ["0x56edd000"]
        assert (await decide(runtime, FATAL))["action"] == "panic"
        assert runtime.store.poisoned("node-17", 9) == (), "the machine starts again"
        assert runtime.sources.state("node-17").pages == set()

    with_runtime(test)


def test_recent_records_are_read_from_the_store_after_a_restart() -> None:
    async def test(runtime: Runtime) -> None:
        await decide(runtime, ABORT)
        keys = parse_event(document(ABORT)).keys
        for at_ms, age_ms in ((NOON + 9_999, 9_999), (NOON + 10_000, None)):
            known = Sources(runtime.store).facts_for(keys, at_ms)
            assert known is not None
            assert known.duplicate_age_ms == age_ms
        await decide(runtime, FATAL)
        assert Sources(runtime.store).facts_for(keys, NOON + 1) is None

    with_runtime(test)


def test_a_decision_that_cannot_be_stored_leaves_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        def fail(*_: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(runtime.writer, "enqueue", fail)
            assert isinstance(await admit(runtime.intake, ABORT), ProblemError)
        assert runtime.sources.facts_for(parse_event(document(ABORT)).keys, NOON) is None

    with_runtime(test)


def test_an_event_that_brings_no_facts_is_another_than_one_with_none() -> None:
    async def test(runtime: Runtime) -> None:
        runtime.sources.put_facts(HostFacts("node-17", 1, NOON, b'{"kernel":"6.12.107"}'))
        informed = await decide(runtime, {**ABORT, "time": TIME})
        bare = await decide(runtime, {**ABORT, "time": TIME, "host": {}})
        assert bare["event_key"] != informed["event_key"]
        assert (informed["repeat"], informed["policy"]["name"]) == (False, "linux-6.12.107")
        assert (bare["repeat"], bare["policy"]["name"]) == (False, "uniform")

    with_runtime(test)


def test_a_kernel_that_nobody_knows_is_looked_for_in_the_facts_that_name_it() -> None:
    async def test(runtime: Runtime) -> None:
        runtime.sources.put_facts(HostFacts("node-17", 1, NOON, b'{"kernel":"nonsense"}'))
        refused = await admit(runtime.intake, ABORT)
        assert isinstance(refused, ProblemError)
        assert [fault.pointer for fault in refused.problem.errors] == [""]
        assert "stored facts of source `node-17`" in refused.problem.detail
        own = await admit(runtime.intake, {**ABORT, "host": {"kernel": "nonsense"}})
        assert isinstance(own, ProblemError)
        assert [fault.pointer for fault in own.problem.errors] == ["/host/kernel"]

    with_runtime(test)
