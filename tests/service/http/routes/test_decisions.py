"""Decisions over HTTP."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.policies.catalog.choice import load_policy
from ras_triage.policies.catalog.policies import resolve_policy, uniform_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import BLOCK, EVENT, NOTHING_TO_QUEUE, Call, caller, client

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


def test_a_status_block_in_hexadecimal_is_decided_as_in_base64_and_the_decision_says_so(call: Call, event: dict[str, Any]) -> None:
    packed = call("POST", "/v1/decisions?dry_run=true", json=event).json()
    for text in (BLOCK.hex(), BLOCK.hex().upper(), "0x" + BLOCK.hex()):
        decision = call("POST", "/v1/decisions?dry_run=true", json={**event, "status_block": text}).json()
        said = {"fact": "status_block", "assumed": "the text is hexadecimal, not base64"}
        assert decision == {**packed, "assumptions": [*packed["assumptions"], said]}
        (lined,) = call("POST", "/v1/decisions/batch", json=[{**event, "status_block": text}]).json()
        assert lined["plan"] == packed["plan"]


@pytest.mark.parametrize("block", [12, [17, 0], True])
def test_a_status_block_that_is_no_text_is_refused_with_both_encodings(call: Call, block: Any) -> None:
    (fault,) = call("POST", "/v1/decisions", json={**EVENT, "status_block": block}).json()["errors"]
    assert fault == {"pointer": "/status_block", "detail": "should be text in base64 or hexadecimal"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"not JSON", "byte 1: invalid literal; expected `true`, `false` or `null`"),
        (b"<event/>", "byte 0: expected a JSON value"),
        (b'\xef\xbb\xbf{"notification": "sea"}', "byte 0: byte order mark; expected JSON in UTF-8 without one"),
    ],
)
def test_text_that_is_not_json_is_refused_with_what_is_expected(call: Call, body: bytes, fault: str) -> None:
    answer = call("POST", "/v1/decisions", content=body)
    assert (answer.status_code, answer.json()["detail"]) == (400, fault)


def test_a_number_in_quotes_is_refused_as_text_and_a_time_without_its_zone_with_an_example(call: Call) -> None:
    (quoted,) = call("POST", "/v1/decisions", json={"notification": "sea", "host": {"current": {"pid": "103", "tid": 1}}}).json()["errors"]
    (local,) = call("POST", "/v1/decisions", json={"notification": "sea", "time": "2026-11-29T20:00:00"}).json()["errors"]
    assert quoted == {"pointer": "/host/current/pid", "detail": '`"103"` should be a valid integer'}
    assert local == {"pointer": "/time", "detail": "expected a time with its zone, such as `2026-11-22T10:00:00Z`"}


def test_a_status_block_that_could_be_either_is_refused_with_both_readings(call: Call, event: dict[str, Any]) -> None:
    answer = call("POST", "/v1/decisions", json={**event, "status_block": "deadbeef" * 9})

    (fault,) = answer.json()["errors"]
    assert (answer.status_code, fault["pointer"]) == (422, "/status_block")
    assert fault["detail"].startswith("could be 36 bytes in hexadecimal or 54 bytes in base64, and neither looks like a status block")


def test_what_the_sender_assumed_has_its_alternative(call: Call, event: dict[str, Any]) -> None:
    unsure = {**event, "notification": "gsiv", "assumed": ["/notification/type"]}
    decision = call("POST", "/v1/decisions?dry_run=true", json=unsure).json()
    certain = call("POST", "/v1/decisions?dry_run=true", json={**unsure, "assumed": None}).json()

    assert [(other["when"], other["action"]) for other in decision["alternatives"]] == [({"notification.type": "sea"}, "signal")]
    assert (certain["alternatives"], certain["event_key"]) == ([], decision["event_key"])


def test_an_assumption_is_a_pointer(call: Call, event: dict[str, Any]) -> None:
    answer = call("POST", "/v1/decisions", json={**event, "assumed": ["notification"]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/assumed/0")


def test_a_series_in_a_policy_or_kernel_is_decided_as_the_series(call: Call, event: dict[str, Any]) -> None:
    bare = {**event, "host": {**event["host"], "kernel": "6.12"}}
    for sent in ({**event, "policy": "linux-6.12"}, bare):
        decision = call("POST", "/v1/decisions?dry_run=true", json=sent).json()
        assert (decision["policy"]["name"], decision["certainty"]) == ("linux-6.12.x", "depends")
    assert call("POST", "/v1/decisions?dry_run=true", json={**event, "policy": "v6.12.107"}).json()["policy"]["name"] == "linux-6.12.107"


def test_decisions_under_a_series_are_found_under_each_of_its_names(event: dict[str, Any]) -> None:
    with client(create_app()) as call:
        stored = call("POST", "/v1/decisions", json={**event, "policy": "linux-6.12"}).json()["id"]
        for name in ("linux-6.12", "6.12", "linux-6.12.x"):
            assert [one["id"] for one in call("GET", "/v1/decisions", params={"policy": name}).json()["decisions"]] == [stored]
        assert call("GET", "/v1/decisions", params={"policy": "linux-6.12.0"}).json()["decisions"] == []
