"""Decisions of large events by a worker process: same result as in the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.qemu.injection import to_qmp
from ras_triage.models.formats.redfish import write_redfish
from ras_triage.models.host import Host
from ras_triage.policies.workload import workload
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine import evaluation, intake, used_facts
from ras_triage.service.engine.batch import workers
from ras_triage.service.engine.batch.workers import MAX_WAITING, Workers
from ras_triage.service.engine.evaluation import LOOP_BYTES, LOOP_STEPS, EventDocument, PredecidedEvent, parse_event
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.http import import_run
from ras_triage.service.http.app import create_app
from ras_triage.service.http.runtime import Runtime, open_runtime
from ras_triage.service.importing.format_detection import HEAD_BYTES
from ras_triage.service.store.port import HostFacts
from ras_triage.service.store.temporary import TemporaryStore
from ras_triage.service.store.writer import WriteQueueFull
from tests.recorded_events import random_events
from tests.service.support.application import EVENT, NDJSON, Call, client, ndjson
from tests.service.support.import_examples import LIBCPER, SENT
from tests.service.support.stored_decisions import NOON

ABORT = {key: EVENT[key] for key in ("source", "notification", "status_block")}
MANY_PAGES = [{**EVENT["host"]["pages"][0], "physical_address": hex(0x56EDD000 + (number << 12))} for number in range(1000)]
LONG = {**EVENT, "host": {**EVENT["host"], "pages": MANY_PAGES}}
"""Too long to be read in the event loop."""
MAPPED = {**EVENT["host"]["pages"][0], "mappings": [{"pid": pid, "address": hex(pid << 20)} for pid in range(1, 200)]}
WIDE = {
    **EVENT,
    "status_block": {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}] * 40},
    "host": {**EVENT["host"], "pages": [MAPPED]},
}
"""Short, and too much work for the event loop."""


UNNAMED = {"id", "decided_at", "event_key", "repeat", "source", "host_facts"}
"""What of an answer depends on more than the event's content."""


def document(event: dict[str, Any]) -> EventDocument:
    return EventDocument(json.dumps(event).encode())


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: told for name, told in answer.items() if name not in UNNAMED}


EXPECTED = [plain(json.loads(parse_event(document(event)).decide(Settings(), None).decision)) for event in (LONG, WIDE)]


@pytest.fixture(scope="module")
def service() -> Iterator[Call]:
    """A service in this process that must not read long events, nor conclude on much work."""

    def read(sent: EventDocument) -> Any:
        assert len(sent.data) <= LOOP_BYTES, "a long event is read in the event loop"
        return parse_event(sent)

    def conclude(event: Any, block: Any, *more: Any, **named: Any) -> Any:
        assert block is None or len(block.entries) < 40, "an event that is much work is decided in the event loop"
        return settle(event, block, *more, **named)

    settle = evaluation.decide_with_poison
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake, "parse_event", read)
        patch.setattr(evaluation, "decide_with_poison", conclude)
        patch.setattr(import_run, "LONG_BYTES", LOOP_BYTES)
        with client(create_app()) as call:
            yield call


def test_the_samples_are_what_they_are_for() -> None:
    read = parse_event(document(WIDE))
    assert len(document(WIDE).data) < LOOP_BYTES < len(document(LONG).data)
    assert LOOP_STEPS < workload(read.event, read.block) < Settings().max_workload


@pytest.mark.parametrize(("event", "expected"), list(zip((LONG, WIDE), EXPECTED, strict=True)), ids=["long", "wide"])
def test_a_large_event_is_decided_whichever_way_it_comes_in(service: Call, event: dict[str, Any], expected: dict[str, Any]) -> None:
    good = {"notification": "polled"}
    named = {**event, "id": f"large-{len(event['status_block'])}"}

    assert plain(service("POST", "/v1/decisions?dry_run=true", json=event).json()) == expected
    single = service("POST", "/v1/decisions", json=named)
    assert (single.status_code, plain(single.json())) == (201, expected)
    batch = service("POST", "/v1/decisions/batch", content=ndjson([good, event, named, good]), headers=NDJSON).content.splitlines()
    assert [json.loads(line)["action"] for line in batch] == ["handled", "signal", "signal", "handled"]
    assert json.loads(batch[2])["id"] == single.json()["id"], "and is recognised"
    for path in ("/v1/import", "/v1/import?dry_run=true"):
        *found, last = map(json.loads, service("POST", path, content=ndjson([good, event, good])).content.splitlines())
        assert [one["decision"]["action"] for one in found] == ["handled", "signal", "handled"]
        assert last["summary"]["decided"] == 3
    bad = service("POST", "/v1/decisions", json={**event, "nonsense": " " * LOOP_BYTES})
    assert (bad.status_code, bad.json()["errors"][0]["pointer"]) == (422, "/nonsense")


def test_long_facts_are_kept_and_used_and_not_read_in_the_event_loop(service: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    event = {**ABORT, "source": "large"}
    host = {**LONG["host"], "pages": MANY_PAGES * 2}
    assert len(json.dumps(host)) > used_facts.LOOP_BYTES
    monkeypatch.setattr(Host, "model_validate_json", None)
    assert service("PUT", "/v1/hosts/large", json=host).json()["version"] == 1
    first = service("POST", "/v1/decisions", json=event).json()
    second = service("POST", "/v1/decisions", json=event).json()
    batch = service("POST", "/v1/decisions/batch", json=[event]).json()

    assert (first["policy"]["name"], first["host_facts"]["version"], first["host_facts"]["poisoned"]) == ("linux-6.12.107", 1, [])
    assert second["host_facts"]["poisoned"] == batch[0]["host_facts"]["poisoned"] == ["0x56edd000"]


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/v1/decode", b"\0" * (LOOP_BYTES + 1)),
        ("POST", "/v1/syndromes", json.dumps({"values": ["0x92000410"] * 300}).encode()),
        ("PUT", "/v1/hosts/node-1", json.dumps({"pages": "x" * used_facts.LOOP_BYTES}).encode()),
    ],
)
def test_other_long_questions_are_answered(service: Call, method: str, path: str, content: bytes) -> None:
    answer = service(method, path, content=content, headers={"content-type": "application/octet-stream"})
    assert answer.status_code in {200, 422}
    assert "internal" not in answer.text


FILES: dict[str, bytes] = {
    "events": ndjson([{"notification": "polled"}, {"nonsense": 1}] * 1800),
    "array": json.dumps([{"notification": "polled"}] * 2400).encode(),
    "cper": write_record(SENT) * 250,
    "redfish": json.dumps([write_redfish(SENT)] * 90).encode(),
    "libcper": b"[" + b",".join([LIBCPER, b"5"] * 260) + b"]",
    "qmp": to_qmp(SENT).encode() * 250,
}


@pytest.mark.parametrize("form", FILES)
def test_a_long_file_is_read_elsewhere_as_it_is_read_here(service: Call, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = FILES[form]
    assert len(content) > HEAD_BYTES
    elsewhere = service("POST", "/v1/import?dry_run=true&notification=sea", content=content)
    monkeypatch.setattr(import_run, "LONG_BYTES", 1 << 30)
    here = service("POST", "/v1/import?dry_run=true&notification=sea", content=content)

    assert elsewhere.status_code == 200
    assert elsewhere.content == here.content
    assert json.loads(here.content.splitlines()[-1])["summary"]["errors"] >= 60


# One service in this process, to be looked into.


def with_runtime(test: Callable[[Runtime], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_runtime(Settings(), TemporaryStore(), lambda: NOON) as runtime:
            await test(runtime)

    asyncio.run(run())


def meanwhile(happen: Callable[[int], Awaitable[None]], monkeypatch: pytest.MonkeyPatch) -> list[StoredFacts | None]:
    """Have something happen whenever an event was decided elsewhere. Return with what was known each time."""
    asked: list[StoredFacts | None] = []
    decide = Workers.decide

    async def decide_and_wait(self: Workers, sent: EventDocument, known: StoredFacts | None) -> Any:
        asked.append(known)
        found = await decide(self, sent, known)
        await happen(len(asked))
        return found

    monkeypatch.setattr(Workers, "decide", decide_and_wait)
    return asked


def facts(version: int) -> HostFacts:
    return HostFacts("node-17", version, NOON, json.dumps({"kernel": "6.12.107", "tasks": [{"pid": 103}]}).encode())


def test_recorded_events_get_elsewhere_what_they_get_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [{**event, "source": f"node-{number % 3}", "id": f"e-{number}"} for number, event in enumerate(random_events()[:40])]

    async def answers(runtime: Runtime) -> list[dict[str, Any]]:
        outcomes = await runtime.intake.admit([document(event) for event in [*events, *events]])
        found = [await runtime.intake.await_response(outcome) for outcome in outcomes if not isinstance(outcome, ProblemError)]
        return [{**json.loads(answered.body), "id": None} for answered in found]

    told: list[list[dict[str, Any]]] = []

    async def test(runtime: Runtime) -> None:
        runtime.sources.put_facts(facts(1))
        told.append(await answers(runtime))

    with_runtime(test)
    monkeypatch.setattr(intake, "is_long", lambda _: True)
    with_runtime(test)
    assert told[0] == told[1]
    assert [answer["repeat"] for answer in told[1]] == [False] * 40 + [True] * 40


def test_an_event_is_decided_anew_where_what_is_kept_for_its_source_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        async def change(times: int) -> None:
            if times == 2:
                runtime.sources.put_facts(facts(2))

        runtime.sources.put_facts(facts(1))
        asked = meanwhile(change, monkeypatch)
        monkeypatch.setattr(intake, "is_long", lambda _: True)
        answered = json.loads((await runtime.intake.decide(document(ABORT))).body)

        assert answered["host_facts"]["version"] == 2
        assert [None if known is None else known.used.version for known in asked] == [None, 1, 2]
        page = json.loads((await runtime.intake.decide(document(ABORT))).body)["host_facts"]["poisoned"]
        assert page == ["0x56edd000"]

    with_runtime(test)


def test_an_event_whose_source_changes_again_and_again_is_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        async def change(times: int) -> None:
            runtime.sources.put_facts(facts(times))

        monkeypatch.setattr(intake, "is_long", lambda _: True)
        asked = meanwhile(change, monkeypatch)
        for attempt in (runtime.intake.decide, runtime.intake.decide_dry_run):
            with pytest.raises(ProblemError) as refused:
                await attempt(document(ABORT))
            assert refused.value.problem.status == 503
        assert len(asked) == 2 * intake.ATTEMPTS
        assert runtime.intake._pending == {}

    with_runtime(test)


def test_equal_events_that_are_decided_elsewhere_at_once_are_one_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        monkeypatch.setattr(intake, "is_long", lambda _: True)
        event = {**ABORT, "id": "twice"}
        one, two = await asyncio.gather(*(runtime.intake.decide(document(event)) for _ in range(2)))
        assert (one.id, {one.repeat, two.repeat}) == (two.id, {True, False})

        waiting = asyncio.create_task(runtime.intake.decide(document({**ABORT, "id": "gone"})))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert runtime.intake._pending == {}
        assert not (await runtime.intake.decide(document({**ABORT, "id": "gone"}))).repeat
        assert runtime.workers._events.waiting == 0

    with_runtime(test)


def test_more_large_events_than_may_wait_are_turned_away_and_those_of_batches_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(runtime: Runtime) -> None:
        monkeypatch.setattr(intake, "is_long", lambda _: True)
        runtime.workers._events.waiting = MAX_WAITING
        for attempt in (runtime.intake.decide, runtime.intake.decide_dry_run):
            with pytest.raises(WriteQueueFull):
                await attempt(document(ABORT))
        (outcome,) = await runtime.intake.admit([document(ABORT)])
        assert not isinstance(outcome, ProblemError)

    with_runtime(test)


def test_large_events_are_decided_where_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    async def test(runtime: Runtime) -> None:
        monkeypatch.setattr(workers.to_process, "run_sync", refuse)
        assert json.loads((await runtime.intake.decide(document(LONG))).body)["action"] == "signal"
        assert (await runtime.intake.predecide([document(ABORT)])) == [document(ABORT)]
        found = await runtime.workers.decide(document(LONG), None)
        assert isinstance(found, PredecidedEvent)
        assert not runtime.workers.available

    with_runtime(test)
