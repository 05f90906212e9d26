"""Alternatives of a stored decision: decided again with the facts that it was decided with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, Call, client

VAGUE: dict[str, Any] = {"source": "node-9", "notification": "sea", "status_block": EVENT["status_block"]}
FACTS: dict[str, Any] = {"kernel": "6.12.107", "current": {"pid": 103, "tid": 103}}


@pytest.fixture
def call() -> Iterator[Call]:
    with client(create_app(Settings())) as call:
        yield call


def alternatives(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
    response = call("GET", f"/v1/decisions/{answer['id']}/alternatives")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_the_conditions_of_a_stored_decision_cover_all_readings(call: Call) -> None:
    answer = call("POST", "/v1/decisions", json=VAGUE | {"host": FACTS}).json()
    found = alternatives(call, answer)
    assert (found["id"], found["action"], found["policy"]) == (answer["id"], answer["action"], answer["policy"])
    assert {fact["fact"] for fact in found["unknown"]} == {"page", "task.mce_kill", "host.sysctl.vm.memory_failure_early_kill"}
    assert sum(condition["readings"] for condition in found["conditions"]) == found["readings"] == 180
    assert {condition["action"] for condition in found["conditions"]} == {"handled", "signal"}
    assert all(step["pfn"].startswith("0x") for step in found["conditions"][0]["plan"] if "pfn" in step)


def test_the_facts_are_those_that_decided_and_not_the_newest(call: Call) -> None:
    assert call("PUT", "/v1/hosts/node-9", json=FACTS, headers={"if-none-match": "*"}).is_success
    answer = call("POST", "/v1/decisions", json=VAGUE).json()
    before = alternatives(call, answer)
    newer = FACTS | {"pages": EVENT["host"]["pages"], "sysctl": {}, "tasks": [{"pid": 103}]}
    assert call("PUT", "/v1/hosts/node-9", json=newer, headers={"if-match": '"1"'}).is_success
    assert alternatives(call, answer) == before
    assert alternatives(call, call("POST", "/v1/decisions", json=VAGUE).json())["unknown"] == []


def test_a_page_that_was_poisoned_before_is_known(call: Call) -> None:
    event = VAGUE | {"host": FACTS}
    first, second = (call("POST", "/v1/decisions", json=event).json() for _ in range(2))
    assert second["host_facts"]["duplicate"]
    assert alternatives(call, first)["conditions"] != alternatives(call, second)["conditions"]


def test_an_unknown_decision_is_not_found(call: Call) -> None:
    response = call("GET", "/v1/decisions/018f0000-0000-7000-8000-000000000000/alternatives")
    assert (response.status_code, response.json()["type"]) == (404, "urn:ras-triage:problem:not-found")


def test_too_many_steps_are_a_problem_that_says_so() -> None:
    with client(create_app(replace(Settings(), max_workload=5000))) as call:
        answer = call("POST", "/v1/decisions", json=VAGUE | {"host": FACTS}).json()
        response = call("GET", f"/v1/decisions/{answer['id']}/alternatives")
        assert (response.status_code, response.json()["type"]) == (422, "urn:ras-triage:problem:too-much-work")
