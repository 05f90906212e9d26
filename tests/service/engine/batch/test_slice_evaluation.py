"""Slices of batches in worker processes: the same decisions as in the event loop, and made only once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.engine import intake
from ras_triage.service.engine.batch.slice_evaluation import source_in
from ras_triage.service.engine.evaluation import EventDocument, parse_event
from ras_triage.service.engine.intake import DecidedEvent
from ras_triage.service.http.runtime import Runtime, open_runtime
from ras_triage.service.store.port import HostFacts
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT
from tests.service.support.stored_decisions import NOON

ABORT = {key: EVENT[key] for key in ("notification", "status_block")}
PANIC = {"notification": "sea", "status_block": {"severity": "fatal", "sections": [{"type": "memory"}]}}
STORM = [{**ABORT, "source": source, "id": f"{source}-{number}"} for number in range(6) for source in ("a", "b")]
HISTORY = [*STORM[:4], {**PANIC, "source": "a", "id": "panic"}, *STORM[4:], {**ABORT, "id": "nobody"}, *STORM[:2]]
"""Duplicates, poisoned pages, a panic that makes the machine forget them, an event without source, and repeats."""


def with_runtime(test: Callable[[Runtime], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_runtime(Settings(batch_workers=1), TemporaryStore(), lambda: NOON) as runtime:
            await test(runtime)

    asyncio.run(run())


def documents(events: list[dict[str, Any]]) -> list[EventDocument]:
    return [EventDocument(json.dumps(event).encode()) for event in events]


async def decisions(runtime: Runtime, items: Any) -> list[dict[str, Any]]:
    """The decisions of events, without what differs from one event to the next."""
    outcomes = [runtime.intake.await_response(outcome) for outcome in await runtime.intake.admit(items)]  # type: ignore[arg-type]
    found = [json.loads((await response).body) for response in outcomes]
    return [{name: value for name, value in one.items() if name not in ("id", "decided_at")} for one in found]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The events that are parsed in the event loop."""
    found: list[bytes] = []

    def parse(document: EventDocument) -> Any:
        found.append(document.data)
        return parse_event(document)

    monkeypatch.setattr(intake, "parse_event", parse)
    return found


@pytest.mark.parametrize("facts", [None, b'{"kernel":"6.1.100"}'], ids=["no facts", "stored facts"])
def test_a_slice_is_decided_in_a_worker_as_in_the_event_loop(facts: bytes | None, parsed: list[bytes]) -> None:
    found: list[list[dict[str, Any]]] = []

    def decide(*, in_worker: bool) -> Callable[[Runtime], Awaitable[None]]:
        async def test(runtime: Runtime) -> None:
            if facts is not None:
                await runtime.writer.call(lambda: runtime.store.put_host(HostFacts("a", 1, NOON, facts)))
            for part in (HISTORY[:1], HISTORY[1:]):  # of the second, the event loop knows the sources
                items: Any = documents(part)
                found.append(await decisions(runtime, await runtime.intake.predecide(items) if in_worker else items))
            assert in_worker or len(parsed) == len(HISTORY)

        return test

    with_runtime(decide(in_worker=False))
    parsed.clear()
    with_runtime(decide(in_worker=True))
    assert found[:2] == found[2:]
    assert [one["repeat"] for one in found[3]][-2:] == [True, True]
    assert sum(bool((one["host_facts"] or {}).get("duplicate")) for one in found[3]) > 5
    unknown = [] if facts is None else [documents(HISTORY)[0].data]
    assert parsed == unknown, "only an event whose source is not in the cache is decided a second time"


def test_events_of_a_dry_run_are_decided_as_if_the_others_were_not_there(parsed: list[bytes]) -> None:
    async def test(runtime: Runtime) -> None:
        items = await runtime.intake.predecide(documents(STORM), dry_run=True)
        outcomes = await runtime.intake.admit_dry_run(items)
        assert not any(isinstance(outcome, DecidedEvent) for outcome in outcomes)
        facts = [json.loads(outcome.body)["host_facts"] for outcome in outcomes]  # type: ignore[union-attr]
        assert facts == [None] * len(STORM)

    with_runtime(test)
    assert parsed == []


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (b'{"source": "node-1", "id": "source"}', "node-1"),
        (b'{"id":"a","source" :\n"n\xc3\xb6de"}', "n\xf6de"),
        (b'{"id":"a"}', None),
        (b'{"source":"a\\u0062"}', None),
        (b'{"source":null}', None),
        (b'{"source":"\xff"}', "\ufffd"),
    ],
)
def test_the_source_of_an_event_is_found_without_parsing_it(data: bytes, source: str | None) -> None:
    assert source_in(EventDocument(data)) == source
