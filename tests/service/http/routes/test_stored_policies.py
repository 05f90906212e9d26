"""Custom policies that are stored over HTTP."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ras_triage.policies.catalog.choice import load_policy
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch import workers
from ras_triage.service.engine.stored import policies
from ras_triage.service.http.app import create_app
from ras_triage.service.store.port import StoreUnavailable
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import NDJSON, NOTHING_TO_QUEUE, Call, client, ndjson

BASE = "linux-6.1.100"
KILLS: dict[str, Any] = {"base": BASE, "flags": {"sea_kills_when_nothing_queued": True}}
FILE = f'name = "ours"\nbase = "{BASE}"\n[flags]\nsea_kills_when_nothing_queued = true\n'
FILED = load_policy(FILE, ())


@pytest.fixture
def service() -> Iterator[Call]:
    with client(create_app()) as call:
        yield call


def decide(call: Call, policy: str = "ours", **more: Any) -> dict[str, Any]:
    answer = call("POST", "/v1/decisions", json={**NOTHING_TO_QUEUE, "policy": policy, **more})
    assert answer.is_success, answer.text
    decided: dict[str, Any] = answer.json()
    return decided


def test_a_stored_policy_decides_events_that_name_it_as_a_policy_file_does(service: Call) -> None:
    assert decide(service, BASE)["action"] != "signal"
    answer = service("PUT", "/v1/policies/ours", json={**KILLS, "notes": ["our own tree"]})

    assert answer.status_code == 201
    assert answer.json() == service("GET", "/v1/policies/ours").json()
    assert (answer.json()["digest"], answer.json()["notes"]) == (FILED.digest, ["our own tree"])
    assert {flag["flag"]: flag["value"] for flag in answer.json()["flags"]}["sea_kills_when_nothing_queued"] is True
    assert "ours" in [entry["name"] for entry in service("GET", "/v1/policies").json()["policies"]]
    decided = decide(service)
    assert (decided["action"], decided["policy"]) == ("signal", {"name": "ours", "digest": FILED.digest})
    differs = service("GET", f"/v1/policies/{BASE}/diff/ours").json()["differs"]
    assert [flag["flag"] for flag in differs] == ["sea_kills_when_nothing_queued"]


def test_a_change_has_a_new_digest_and_earlier_decisions_keep_theirs(service: Call) -> None:
    first = service("PUT", "/v1/policies/ours", json=KILLS).json()
    before = decide(service)
    again = service("PUT", "/v1/policies/ours", json=KILLS)
    second = service("PUT", "/v1/policies/ours", json={"base": BASE})
    after = decide(service)

    assert (again.status_code, again.json()) == (200, first)
    assert second.status_code == 200
    assert before["policy"]["digest"] == first["digest"] != second.json()["digest"] == after["policy"]["digest"]
    assert before["action"] != after["action"]
    assert service("GET", f"/v1/decisions/{before['id']}").json()["policy"] == before["policy"]


@pytest.mark.parametrize(
    ("definition", "kind", "pointer", "detail"),
    [
        ({}, "invalid-policy", "/base", "required field is missing"),
        ({"base": 1}, "invalid-policy", "/base", "valid string"),
        ({"base": "linux-4.0"}, "unknown-policy", "/base", "older than the change ledger"),
        ({"base": "ours"}, "unknown-policy", "/base", "unknown policy `ours`"),
        ({"base": BASE, "flag": {}}, "invalid-policy", "/flag", "did you mean `flags`?"),
        ({"base": BASE, "flags": {"queued_acumulates": True}}, "invalid-policy", "/flags/queued_acumulates", "mean `queued_accumulates`?"),
        ({"base": BASE, "flags": {"queued_accumulates": "yes"}}, "invalid-policy", "/flags/queued_accumulates", "true or false"),
        ({"base": BASE, "notes": "text"}, "invalid-policy", "/notes", "should be an array"),
        ({"base": BASE, "notes": ["x" * 501]}, "invalid-policy", "/notes/0", "500"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_refused_with_its_place(service: Call, definition: Any, kind: str, pointer: str, detail: str) -> None:
    answer = service("PUT", "/v1/policies/ours", json=definition)

    assert (answer.status_code, answer.json()["type"]) == (422, f"urn:ras-triage:problem:{kind}")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert detail in error["detail"]
    assert service("GET", "/v1/policies/ours").status_code == 404


@pytest.mark.parametrize("name", ["uniform", BASE, "linux-ours", "6.12.107", "v6.12"])
def test_the_names_of_built_in_policies_are_refused(service: Call, name: str) -> None:
    answer = service("PUT", f"/v1/policies/{name}", json=KILLS)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:ras-triage:problem:policy-conflict")
    assert f"`{name}`" in answer.json()["detail"]


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 65, "é"])
def test_a_name_of_other_characters_is_refused(service: Call, name: str) -> None:
    answer = service("PUT", f"/v1/policies/{name}", json=KILLS)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:ras-triage:problem:invalid-policy")


def test_the_name_of_a_policy_file_is_refused() -> None:
    with client(create_app(Settings(custom_policies={"ours": FILED}))) as call:
        answer = call("PUT", "/v1/policies/ours", json={"base": BASE})
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:ras-triage:problem:policy-conflict")
        assert decide(call)["policy"]["digest"] == FILED.digest


def test_the_number_of_policies_is_limited(service: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "MAX_POLICIES", 1)
    assert service("PUT", "/v1/policies/ours", json=KILLS).status_code == 201
    assert service("PUT", "/v1/policies/theirs", json=KILLS).status_code == 409
    assert service("PUT", "/v1/policies/ours", json={"base": BASE}).status_code == 200


def test_a_policy_that_was_not_stored_is_not_used() -> None:
    class Full(TemporaryStore):
        def put_policy(self, *_: Any) -> None:
            raise StoreUnavailable("disk full")

    with client(create_app(store=Full())) as call:
        assert call("PUT", "/v1/policies/ours", json=KILLS).status_code == 503
        assert call("GET", "/v1/policies/ours").status_code == 404


def settings_in(folder: Path, **more: Any) -> Settings:
    return Settings(store=f"sqlite:///{folder / 'store.db'}", **more)


def test_after_a_restart_the_newest_version_is_in_use(tmp_path: Path) -> None:
    with client(create_app(settings_in(tmp_path))) as call:
        call("PUT", "/v1/policies/ours", json={"base": BASE})
        digest = call("PUT", "/v1/policies/ours", json=KILLS).json()["digest"]
    with client(create_app(settings_in(tmp_path))) as call:
        assert decide(call)["policy"]["digest"] == digest == FILED.digest
        assert call("PUT", "/v1/policies/ours", json=KILLS).status_code == 200


def test_a_policy_file_takes_precedence_over_a_stored_policy(tmp_path: Path) -> None:
    with client(create_app(settings_in(tmp_path))) as call:
        call("PUT", "/v1/policies/ours", json={"base": BASE})
    with client(create_app(settings_in(tmp_path, custom_policies={"ours": FILED}))) as call:
        assert decide(call)["policy"]["digest"] == FILED.digest


@pytest.mark.parametrize("damage", ["definition = x'7b7d'", "definition = x'7b7d', definition_check = 2745614147"])
def test_of_a_policy_whose_newest_version_is_corrupt_no_earlier_one_is_used(tmp_path: Path, damage: str) -> None:
    with client(create_app(settings_in(tmp_path))) as call:
        call("PUT", "/v1/policies/ours", json={"base": BASE})
        call("PUT", "/v1/policies/ours", json=KILLS)
        call("PUT", "/v1/policies/theirs", json=KILLS)
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
        connection.execute(f"UPDATE policies SET {damage} WHERE name = 'ours' AND version = 2")
    with client(create_app(settings_in(tmp_path))) as call:
        assert call("GET", "/v1/policies/ours").status_code == 404
        assert decide(call, "theirs")["action"] == "signal"
        assert call("PUT", "/v1/policies/ours", json=KILLS).status_code == 201
        assert decide(call)["policy"]["digest"] == FILED.digest


def test_batches_in_worker_processes_use_stored_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "INLINE_EVENTS_COLD", 0)
    monkeypatch.setattr(workers, "INLINE_EVENTS", 0)
    monkeypatch.setattr("ras_triage.service.engine.evaluation.decide_with_poison", None)  # of this process
    with client(create_app(Settings(batch_workers=1))) as call:
        call("PUT", "/v1/policies/ours", json=KILLS)
        body = ndjson({**NOTHING_TO_QUEUE, "id": str(number), "policy": "ours"} for number in range(3))
        answer = call("POST", "/v1/decisions/batch", content=body, headers=NDJSON)

    assert answer.status_code == 200, answer.text
    assert answer.text.count(FILED.digest) == 3
