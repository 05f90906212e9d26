"""Decisions of large batches by worker processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ras_triage.service.engine.batch.workers import INLINE_EVENTS_COLD
from ras_triage.service.http.server.run import GRACE_S
from tests.recorded_events import random_events
from tests.service.support.application import EVENT, NDJSON, ndjson
from tests.service.support.server_process import Service, serving
from tests.service.support.worker_processes import wait_until_ended, worker_pids

BATCH = "/v1/decisions/batch"
LINES = 3 * INLINE_EVENTS_COLD
ABORT = {name: EVENT[name] for name in ("notification", "status_block")}
SMALL = {"source": "node-1", "notification": "polled"}


@pytest.fixture(params=["0", "2"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One that decides alone, and one with workers."""
    monkeypatch.setenv("RAS_TRIAGE_BATCH_WORKERS", request.param)
    with serving("--store", "memory:") as running:
        yield running


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("RAS_TRIAGE_BATCH_WORKERS", "2")
    with serving("--store", "memory:") as running:
        yield running


def send(service: Service, content: bytes, **headers: str) -> list[dict[str, Any]]:
    answer = httpx.post(f"{service.url}{BATCH}", content=content, headers=NDJSON | headers, timeout=60)
    assert answer.status_code in {200, 207}
    return [json.loads(line) for line in answer.text.splitlines()]


def timeless(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("index", "event_id")} | {"id": None, "decided_at": None}


def test_each_event_of_a_large_batch_gets_the_decision_that_it_gets_alone(service: Service) -> None:
    events = [{**event, "source": f"node-{number}", "id": f"e-{number}"} for number, event in enumerate(random_events() * 6)]
    assert len(events) > LINES
    with httpx.Client(base_url=service.url) as client:
        answers = send(service, ndjson(events))
        asked = [client.post("/v1/decisions?dry_run=true", json={**event, "source": f"other-{n}"}) for n, event in enumerate(events[-300:])]

    for event, answer, alone in zip(events[-300:], answers[-300:], asked, strict=True):
        assert answer["source"] == event["source"]
        assert {**timeless(answer), "source": None, "event_key": None} == {**alone.json(), "source": None, "event_key": None}
    again = send(service, ndjson(events))
    assert [answer | {"repeat": True} for answer in answers] == again


def test_what_is_kept_for_a_source_goes_into_the_events_of_a_large_batch(service: Service) -> None:
    events: list[dict[str, Any]] = [SMALL] * LINES + [{**ABORT, "source": "node-17"}] * 2
    facts = {name: EVENT["host"][name] for name in ("kernel", "current", "tasks", "pages")}
    httpx.put(f"{service.url}/v1/hosts/node-17", json=facts).raise_for_status()
    before, first, second = send(service, ndjson(events))[-3:]

    assert before["host_facts"] is None
    assert (first["policy"]["name"], first["host_facts"]["version"], first["host_facts"]["poisoned"]) == ("linux-6.12.107", 1, [])
    assert second["host_facts"]["poisoned"] == ["0x56edd000"], "the first of them poisoned the page"


def test_what_is_wrong_with_one_event_of_a_large_batch_stands_in_its_place(service: Service) -> None:
    good = [{**SMALL, "id": f"e-{number}"} for number in range(LINES)]
    bad = [
        b"{nonsense\n",
        ndjson([{"sense": 5}]),
        ndjson([{**SMALL, "policy": "linux-1"}]),
        ndjson([{**SMALL, "id": "e-0", "source": "node-1", "time": "2026-11-23T10:00:00Z"}]),
    ]
    answers = send(service, ndjson(good) + b"".join(bad) + ndjson([SMALL]))

    assert [answer["type"].rpartition(":")[2] for answer in answers[LINES:-1]] == [
        "invalid-json",
        "invalid-event",
        "unknown-policy",
        "conflict",
    ]
    assert all("action" in answer for answer in [*answers[:LINES], answers[-1]])


def test_a_large_batch_that_comes_again_under_its_key_is_decided_once(service: Service) -> None:
    first = send(service, ndjson([SMALL] * LINES), **{"idempotency-key": "night run"})
    again = send(service, ndjson([SMALL] * LINES), **{"idempotency-key": "night run"})

    assert len({answer["id"] for answer in first}) == LINES
    assert [answer | {"repeat": True} for answer in first] == again


def test_a_small_batch_starts_no_worker_and_a_large_one_no_more_than_were_set(helped: Service) -> None:
    send(helped, ndjson([SMALL] * INLINE_EVENTS_COLD))
    assert worker_pids(helped) == []
    send(helped, ndjson([SMALL] * LINES))
    assert 1 <= len(worker_pids(helped)) <= 2


def test_a_batch_whose_workers_die_is_answered_whole(helped: Service) -> None:
    def lines() -> Iterator[bytes]:
        for number in range(LINES):
            if number == LINES - INLINE_EVENTS_COLD:
                while not (started := worker_pids(helped)):
                    time.sleep(0.01)
                for worker in started:
                    os.kill(worker, signal.SIGKILL)
            yield ndjson([{**SMALL, "id": f"e-{number}"}])

    answer = httpx.post(f"{helped.url}{BATCH}", content=lines(), headers=NDJSON, timeout=60)
    assert answer.status_code == 200
    assert len({json.loads(line)["id"] for line in answer.text.splitlines()}) == LINES
    assert any("worker lost" in line for line in helped.log)
    assert not any("no workers" in line for line in helped.log)
    assert len(send(helped, ndjson([SMALL] * LINES))) == LINES, "it goes on with others"


def test_workers_end_with_their_service_however_that_ends(helped: Service) -> None:
    send(helped, ndjson([SMALL] * LINES))
    started = worker_pids(helped)
    assert started
    helped.kill()
    wait_until_ended(started)

    helped.start()
    send(helped, ndjson([SMALL] * LINES))
    started = worker_pids(helped)
    assert started
    for worker in started:
        os.kill(worker, signal.SIGSTOP)
    helped.kill()
    wait_until_ended(started)

    helped.start()
    send(helped, ndjson([SMALL] * LINES))
    started = worker_pids(helped)
    assert started
    helped.process.send_signal(signal.SIGTERM)
    assert helped.process.wait(GRACE_S) == 0
    wait_until_ended(started)


def test_an_interrupt_from_the_terminal_reaches_the_workers_too_and_the_batch_is_finished(helped: Service) -> None:
    send(helped, ndjson([SMALL] * LINES))
    started = worker_pids(helped)
    for worker in started:
        os.kill(worker, signal.SIGINT)
    assert len(send(helped, ndjson([SMALL] * LINES))) == LINES
    assert set(started) & set(worker_pids(helped)), "they leave it to the service"
