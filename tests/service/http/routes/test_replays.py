"""Replays over HTTP, with the client and on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep
from typing import Any

import httpx
import pytest

from ras_triage.service.client import Client, ProblemResponse
from tests.recorded_events import random_events
from tests.service.support.application import NDJSON, NOTHING_TO_QUEUE, ndjson, run
from tests.service.support.server_process import Service, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Service]:
    with serving("--store", "memory:", "--default-policy", "linux-6.12.42") as service, Client(service.url) as client:
        events = [{**event, "source": f"node-{number % 3}"} for number, event in enumerate(random_events())]
        assert all(hasattr(result, "action") for result in client.decide_many(events))
        yield service


@pytest.fixture
def client(server: Service) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def finished(client: Client, after: str, **options: Any) -> Any:
    replay = client.create_replay(after, **options)
    while replay.state in ("waiting", "running"):
        sleep(0.1)
        replay = client.replay(replay.id)
    return replay


def test_a_replay_under_the_policies_that_decided_changes_nothing(client: Client) -> None:
    replay = finished(client, "linux-6.12.107", policy="linux-6.12.107")
    assert (replay.state, replay.changed, replay.failed, replay.error) == ("done", 0, 0, None)
    assert replay.total == replay.compared == len(random_events())


def test_a_replay_counts_the_changes_and_leads_to_their_decisions(client: Client) -> None:
    replay = finished(client, "linux-6.12.42", source="node-1")
    assert replay.compared == len(random_events()[1::3])
    assert replay.changed == sum(one.changed for one in replay.changes.actions) > 0
    assert {group.value for group in replay.changes.groups if group.field == "source"} == {"node-1"}
    for example in replay.changes.examples:
        decided = client.get(example.id)
        assert (decided.action, decided.source) == (example.before, "node-1")


def test_two_policies_are_compared_with_each_other(client: Client) -> None:
    same = finished(client, "linux-7.3.4", before="linux-7.3.4")
    other = finished(client, "linux-7.3.4", before="linux-6.1.100")
    assert (same.changed, other.changed > 0) == (0, True)
    assert other.before.name == "linux-6.1.100"


def test_replays_are_kept_until_they_are_removed(client: Client) -> None:
    first, second = finished(client, "uniform"), finished(client, "uniform", action="panic")
    listed = client.replays()
    assert [one.id for one in listed[:2]] == [second.id, first.id]
    assert listed[0].filter == {"action": ["panic"]}
    client.remove_replay(first.id)
    assert first.id not in [one.id for one in client.replays()]
    for call in (client.replay, client.remove_replay):
        with pytest.raises(ProblemResponse, match="no replay"):
            call(first.id)


@pytest.mark.parametrize(
    ("body", "where", "detail"),
    [
        ({}, "/after", "required"),
        ({"after": "linux-x"}, "/after", "not a kernel release"),
        ({"after": "uniform", "before": "unheard-of"}, "/before", "unheard-of"),
        ({"after": "uniform", "filter": {"actoin": "panic"}}, "/filter/actoin", "unknown field"),
        ({"after": "uniform", "filter": {"action": "panik"}}, "", "did you mean `panic`"),
        ({"after": "uniform", "filter": {"since": "yesterday"}}, "", "RFC 3339"),
    ],
)
def test_a_request_that_cannot_be_replayed_is_refused(server: Service, body: dict[str, Any], where: str, detail: str) -> None:
    answer = httpx.post(f"{server.url}/v1/replays", json=body)
    problem = answer.json()
    assert answer.status_code == 422, problem
    assert detail in problem["detail"] + str(problem["errors"])
    assert where in {one.get("pointer", "") for one in problem["errors"]}


def test_the_command_prints_what_changes(server: Service) -> None:
    done = run("replay", "--after", "linux-6.12.42", "--source", "node-2", "--server", server.url)
    assert done.returncode == 0, done.stderr
    assert "as decided → linux-6.12.42" in done.stdout.decode()
    found = json.loads(run("replay", "--json", "--after", "uniform", "--server", server.url).stdout)
    assert (found["state"], found["after"]["name"]) == ("done", "uniform")


def test_a_replay_goes_on_after_a_restart_and_counts_every_decision_once(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    lines = ndjson([{**NOTHING_TO_QUEUE, "id": str(number), "source": f"node-{number % 5}"} for number in range(600)])
    with serving("--store", store) as service, Client(service.url) as client:
        assert httpx.post(f"{service.url}/v1/decisions/batch", content=lines, headers=NDJSON, timeout=300).status_code == 200
        replay = client.create_replay("linux-6.12.42")
        service.kill()
        service.start()
        while (found := client.replay(replay.id)).state in ("waiting", "running"):
            sleep(0.1)
        assert (found.state, found.compared, found.changed) == ("done", 600, 600)
        assert [(one.before, one.after) for one in found.changes.actions] == [("signal", "handled")]


def test_a_cancelled_replay_keeps_its_results_so_far(tmp_path: Path) -> None:
    """Eight replays of 3000 decisions take longer than the second for which their requests wait."""
    lines = ndjson([{**NOTHING_TO_QUEUE, "id": str(number)} for number in range(3000)])
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service, Client(service.url) as client:
        assert httpx.post(f"{service.url}/v1/decisions/batch", content=lines, headers=NDJSON, timeout=300).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(client.create_replay, ["linux-6.12.42"] * 8))
        latest, *others = client.replays()
        assert latest.state == "waiting"
        for replay in (latest, *others):
            if client.replay(replay.id).state in ("waiting", "running"):
                client.remove_replay(replay.id)
        ended = client.replays()
        assert {one.state for one in ended} <= {"cancelled", "done"}
        assert (ended[0].state, ended[0].compared) == ("cancelled", 0)
        assert client.replays() == ended
