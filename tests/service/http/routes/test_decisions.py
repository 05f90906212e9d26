"""Decisions over HTTP."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.policies.catalog.choice import load_policy
from ras_triage.policies.catalog.policies import resolve_policy, uniform_policy
from ras_triage.service.config.settings import Settings
from tests.service.support.application import BLOCK, EVENT, NOTHING_TO_QUEUE, Call, caller

CALL = caller()


def test_a_decision_has_an_id_a_time_and_everything_that_was_decided(call: Call, event: dict[str, Any]) -> None:
    answer = call("POST", "/v1/decisions", json=event)

    decision = answer.json()
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    assert UUID(decision["id"]).version == 7
    assert decision["decided_at"].endswith("Z")
    assert datetime.fromisoformat(decision["decided_at"])
    assert decision["repeat"] is False
    assert decision["source"] == "node-17"
    assert decision["policy"] == {"name": "linux-6.12.107", "digest": resolve_policy("linux-6.12.107").digest}
    assert decision["action"] == "signal"
    assert [step["kind"] for step in decision["plan"]][-1] == "signal"
    assert decision["rationale"][0]["rule"] == "admit.notification"


def test_a_dry_run_gives_the_same_decision_and_keeps_nothing(call: Call, event: dict[str, Any]) -> None:
    kept = call("POST", "/v1/decisions", json=event).json()
    answer = call("POST", "/v1/decisions?dry_run=true", json=event)

    assert answer.status_code == 200
    assert answer.json() == {**kept, "id": None, "decided_at": None}


def test_equal_events_give_equal_bytes_however_they_are_written(call: Call, event: dict[str, Any]) -> None:
    structured = {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": 0x56EDD040}]}
    packed = call("POST", "/v1/decisions?dry_run=true", json=event)

    assert call("POST", "/v1/decisions?dry_run=true", json={**event, "status_block": structured}).content == packed.content


def test_what_is_kept_differs_from_a_dry_run_only_in_front(call: Call, event: dict[str, Any]) -> None:
    kept = call("POST", "/v1/decisions", json=event).content
    dry = call("POST", "/v1/decisions?dry_run=true", json=event).content

    assert kept.partition(b'"repeat":')[2] == dry.partition(b'"repeat":')[2]


def test_the_event_names_its_policy_before_its_kernel_does(call: Call, event: dict[str, Any]) -> None:
    assert call("POST", "/v1/decisions", json={**event, "policy": "uniform"}).json()["policy"]["name"] == "uniform"


def test_without_policy_and_kernel_the_default_decides(event: dict[str, Any]) -> None:
    nameless = {**event, "host": {}}

    assert caller()("POST", "/v1/decisions", json=nameless).json()["policy"]["name"] == "uniform"
    other = caller(Settings(default_policy=resolve_policy("linux-7.3.4")))
    assert other("POST", "/v1/decisions", json=nameless).json()["policy"]["name"] == "linux-7.3.4"


def test_a_policy_of_the_operators_own_decides() -> None:
    custom = {"ours": load_policy('name = "ours"\nbase = "linux-6.12.107"\n[flags]\nsea_kills_when_nothing_queued = false', ())}
    call = caller(Settings(uniform_policy(), custom))

    assert call("POST", "/v1/decisions", json=NOTHING_TO_QUEUE).json()["action"] == "signal"
    assert call("POST", "/v1/decisions", json={**NOTHING_TO_QUEUE, "policy": "ours"}).json()["action"] == "handled"


def test_a_kernel_that_names_an_abi_makes_the_decision_depend(call: Call, event: dict[str, Any]) -> None:
    host = {**event["host"], "kernel": "6.1.0-50-cloud-arm64"}
    decision = call("POST", "/v1/decisions", json={**event, "host": host}).json()

    assert decision["policy"]["name"] == "linux-6.1.x"
    assert decision["certainty"] == "depends"
    assert any("stable release of 6.1.x unknown" in reason for reason in decision["reasons"])
    assert "host.kernel" in [known["fact"] for known in decision["assumptions"]]


def test_a_block_that_the_kernel_would_refuse_is_a_decision(call: Call, event: dict[str, Any]) -> None:
    cut = base64.b64encode(b"\x01" + BLOCK[1:12] + b"\x07\0\0\0" + BLOCK[16:]).decode()
    answer = call("POST", "/v1/decisions", json={**event, "status_block": cut})

    assert answer.status_code == 201
    assert "reject" in [step["kind"] for step in answer.json()["plan"]]


@given(st.binary(max_size=400), st.sampled_from(["sea", "gpio", "sei", "polled"]))
def test_any_bytes_in_a_block_give_a_decision(data: bytes, notification: str) -> None:
    event = {**EVENT, "notification": notification, "status_block": base64.b64encode(data).decode()}

    assert CALL("POST", "/v1/decisions", json=event).status_code == 201


@given(st.binary(max_size=200), st.integers(0, len(BLOCK)))
def test_a_mutated_block_gives_a_decision(patch: bytes, offset: int) -> None:
    data = BLOCK[:offset] + patch + BLOCK[offset + len(patch) :]

    assert CALL("POST", "/v1/decisions", json={**EVENT, "status_block": base64.b64encode(data).decode()}).status_code == 201
