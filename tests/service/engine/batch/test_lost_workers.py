"""Events and signals that end or stall worker processes or the event loop."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.service.support import planted_defects
from tests.service.support.application import EVENT, NDJSON, ndjson, run
from tests.service.support.planted_defects import GOOD, marked, outcomes
from tests.service.support.server_process import Service, serving
from tests.service.support.worker_processes import has_ended, worker_pids

IN_FLIGHT = 6


@contextmanager
def planted_service(workers: int, *options: str, **environment: str) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAS_TRIAGE_BATCH_WORKERS", str(workers))
        patch.setenv("RAS_TRIAGE_WORKER_TIMEOUT_S", "0.5")
        for name, value in environment.items():
            patch.setenv(name, value)
        with serving(*(options or ("--store", "memory:")), program=[planted_defects.__file__]) as running:
            yield running


@pytest.fixture(scope="module")
def alone() -> Iterator[Service]:
    """One without workers for batches."""
    with planted_service(0) as running:
        yield running


@pytest.fixture(scope="module")
def helped() -> Iterator[Service]:
    """One with two of them."""
    with planted_service(2) as running:
        yield running


def named(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{**event, "id": f"{name}-{number}"} for number, event in enumerate(events)]


def batch(service: Service, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    answer = httpx.post(f"{service.url}/v1/decisions/batch", content=ndjson(events), headers=NDJSON, timeout=60)
    assert answer.status_code in {200, 207}
    return [json.loads(line) for line in answer.content.splitlines()]


def logged(service: Service, *parts: str) -> bool:
    return any(all(part in line for part in parts) for line in service.log)


def test_an_event_that_stalls_the_event_loop_ends_as_its_own_problem(alone: Service) -> None:
    single = httpx.post(f"{alone.url}/v1/decisions", json={**marked(605), "id": "stalls"}, timeout=60)

    assert (single.status_code, outcomes([single.json()])) == (500, ["internal"])
    assert httpx.post(f"{alone.url}/v1/decisions", json={**GOOD, "id": "good"}, timeout=60).status_code == 201
    assert httpx.get(f"{alone.url}/readyz").status_code == 200
    assert logged(alone, "worker lost")


def test_an_import_goes_on_behind_an_event_that_stalls(alone: Service) -> None:
    content = ndjson(named([GOOD, marked(604), GOOD], "imported"))
    *found, last = map(json.loads, httpx.post(f"{alone.url}/v1/import", content=content, timeout=60).content.splitlines())

    assert outcomes([one.get("decision") or one["problem"] for one in found]) == ["handled", "internal", "handled"]
    assert "summary" in last


def test_a_client_submits_what_is_around_an_event_that_fails(alone: Service) -> None:
    done = run("submit", "-", given=ndjson(named([GOOD, marked(601), GOOD], "submitted")), RAS_TRIAGE_URL=alone.url)

    assert outcomes([json.loads(line) for line in done.stdout.splitlines()]) == ["handled", "internal", "handled"]
    assert done.returncode == 2
    assert b"1 refused: internal 1" in done.stderr


def test_events_that_raise_stall_or_end_every_worker_fail_alone_among_others(helped: Service) -> None:
    sent = named([GOOD, *map(marked, planted_defects.RAISING), GOOD, marked(604), marked(606), {**EVENT, "source": "node-1"}], "bad")
    answers = batch(helped, sent)

    assert outcomes(answers) == ["handled", "internal", "internal", "internal", "handled", "internal", "internal", "signal"]
    assert [answer["repeat"] for answer in batch(helped, [sent[0], sent[4], sent[7]])] == [True] * 3
    assert logged(helped, "worker lost")
    assert not logged(helped, "no workers")


def test_a_worker_that_was_stopped_is_replaced_and_the_batch_is_answered(helped: Service) -> None:
    batch(helped, named([GOOD] * 8, "before"))
    stopped = worker_pids(helped)
    assert stopped
    for worker in stopped:
        os.kill(worker, signal.SIGSTOP)
    sent = named([{**EVENT, "source": f"node-{number % 3}"} for number in range(300)], "stopped")
    assert outcomes(batch(helped, sent)) == ["signal"] * 300
    assert any(map(has_ended, stopped)), "the one that was asked was killed"


def request(service: Service, path: str, content: object) -> socket.socket:
    """Send a request, and do not wait for its answer."""
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", int(service.port)))
    connection.sendall(head.encode() + body)
    return connection


def wait_until_full(service: Service, path: str, *, full: bool) -> None:
    deadline = time.monotonic() + 20
    while (httpx.post(f"{service.url}{path}?dry_run=true", json=GOOD, timeout=20).status_code == 503) != full:
        assert time.monotonic() < deadline, "requests are held whose clients are gone" if not full else "not all requests are under way"
        time.sleep(0.05)


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decisions/batch", "/v1/import"])
def test_requests_that_wait_for_a_store_end_with_their_clients(path: str, stuck: Service) -> None:
    name = path.rpartition("/")[2]
    events = named([{**GOOD, "source": "stuck"}] * IN_FLIGHT, name)
    connections = [request(stuck, path, [event] if name == "batch" else event) for event in events]
    wait_until_full(stuck, path, full=True)
    for connection in connections:
        connection.close()
    wait_until_full(stuck, path, full=False)


@pytest.fixture(scope="module")
def stuck() -> Iterator[Service]:
    """One that takes few requests, and whose store keeps nothing of the source `stuck`."""
    with planted_service(0, RAS_TRIAGE_MAX_IN_FLIGHT=str(IN_FLIGHT)) as running:
        yield running
