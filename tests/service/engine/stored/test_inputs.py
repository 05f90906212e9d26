"""A stored event is decided again with the facts that it was decided with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import FastAPI
from pydantic_core import from_json

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import derive_policy
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.stored.inputs import DecisionInputs, read_inputs
from ras_triage.service.http.app import create_app
from tests.policies.vectors import cases, recordings
from tests.service.support.application import EVENT, Call, client

BARE: dict[str, Any] = {name: value for name, value in EVENT.items() if name != "host"}
FACTS: dict[str, Any] = {"kernel": "6.12.107", "current": {"pid": 103, "tid": 103}, "tasks": [{"pid": 103}]}


@pytest.fixture
def app() -> FastAPI:
    return create_app(Settings())


@pytest.fixture
def call(app: FastAPI) -> Iterator[Call]:
    with client(app) as call:
        yield call


def stored(app: FastAPI, answer: dict[str, Any]) -> DecisionInputs:
    inputs = read_inputs(app.state.runtime.store, answer["id"])
    assert inputs is not None
    return inputs


def assert_same(app: FastAPI, answer: dict[str, Any], settings: Settings | None = None) -> DecisionInputs:
    inputs = stored(app, answer)
    assert from_json(inputs.redecide(settings or Settings()).decision) == from_json(inputs.stored.decision)
    return inputs


@pytest.mark.parametrize("path", recordings("linux")[-3:], ids=lambda path: path.name)
def test_every_recorded_event_decides_again_byte_for_byte(path: Any, app: FastAPI, call: Call) -> None:
    for case in list(cases(path))[:40]:
        answer = call("POST", "/v1/decisions", json=case["event"]).json()
        inputs = stored(app, answer)
        assert inputs.redecide(Settings()).decision == inputs.stored.decision


def test_the_facts_are_those_of_the_version_that_decided(app: FastAPI, call: Call) -> None:
    assert call("PUT", "/v1/hosts/node-17", json=FACTS, headers={"if-none-match": "*"}).status_code in {200, 201}
    answer = call("POST", "/v1/decisions", json=BARE).json()
    assert answer["host_facts"]["version"] == 1
    newer = call("PUT", "/v1/hosts/node-17", json=FACTS | {"kernel": "5.10.223"}, headers={"if-match": '"1"'})
    assert newer.status_code == 200, newer.text
    assert assert_same(app, answer).event.host.kernel == "6.12.107"


def test_poisoned_pages_and_the_duplicate_are_those_of_the_decision(app: FastAPI, call: Call) -> None:
    event = EVENT | {"host": {name: fact for name, fact in EVENT["host"].items() if name not in {"recent", "pages"}}}
    first = call("POST", "/v1/decisions", json=event).json()
    second = call("POST", "/v1/decisions", json=event).json()
    assert second["host_facts"] == {"version": None, "digest": None, "poisoned": ["0x56edd000"], "duplicate": True}
    assert call("DELETE", "/v1/poisoned-pages/node-17").is_success
    assert assert_same(app, first).known is None
    assert assert_same(app, second).event.host.recent is not None


def test_the_policy_is_the_one_that_decided_though_the_default_is_another_now(app: FastAPI, call: Call) -> None:
    answer = call("POST", "/v1/decisions", json={"notification": "sea"}).json()
    assert answer["policy"]["name"] == "uniform"
    other = replace(Settings(), default_policy=derive_policy('name = "other"\nbase = "linux-5.10.223"'))
    assert_same(app, answer, other)


def test_a_kernel_that_is_older_than_the_ledger_keeps_its_reasons(app: FastAPI, call: Call) -> None:
    answer = call("POST", "/v1/decisions", json={"notification": "sea", "host": {"kernel": "4.19.1"}}).json()
    assert answer["certainty"] == "depends"
    assert_same(app, answer)


def test_another_policy_decides_with_the_same_facts(app: FastAPI, call: Call) -> None:
    event = EVENT | {"status_block": {"severity": "recoverable", "sections": [{"type": "memory"}]}}
    inputs = stored(app, call("POST", "/v1/decisions", json=event).json())
    assert inputs.redecide(Settings(), "linux-6.12.42").action == "handled"
    assert inputs.redecide(Settings(), "linux-6.12.43").action == "signal"
    assert isinstance(inputs.event, Event)
    with pytest.raises(ProblemError, match="not a kernel release"):
        inputs.redecide(Settings(), "linux-3")


def test_a_decision_that_is_not_stored_has_no_inputs(app: FastAPI, call: Call) -> None:
    assert call("GET", "/healthz").status_code == 200
    assert read_inputs(app.state.runtime.store, "018f0000-0000-7000-8000-000000000000") is None
