"""Recorded sequences of reports, sent to a service that is told nothing of the earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine import sources
from ras_triage.service.http.app import create_app
from tests.policies.agreement import at_next_access, at_notification
from tests.policies.vectors import cases, recordings
from tests.service.support.application import EVENT, Call, client

FILES = recordings("steps")
RESPONSE = TypeAdapter(DecisionResponse)
BOOT = datetime(2026, 11, 28, tzinfo=UTC)


@pytest.fixture(scope="module")
def service() -> Iterator[Call]:
    with client(create_app(Settings())) as call:
        yield call


def sequences(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The steps of each boot, in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases(path):
        found.setdefault(case["id"].partition("#")[0], []).append(case)
    return {name: sorted(steps, key=lambda case: int(case["id"].partition("#")[2])) for name, steps in found.items()}


def without_the_past(event: dict[str, Any]) -> dict[str, Any]:
    """The event without what the earlier ones left behind, and with the time at which it came."""
    host = {name: facts for name, facts in event["host"].items() if name != "recent"}
    host["pages"] = [{name: fact for name, fact in page.items() if name != "poisoned"} for page in host.get("pages", ())]
    since = max((record["age_ms"] for record in event["host"].get("recent", ())), default=0)
    return event | {"host": host, "time": (BOOT + timedelta(milliseconds=since)).isoformat()}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_service_that_remembers_agrees_as_well_as_one_that_is_told(path: Path, service: Call) -> None:
    told: dict[str, list[str]] = {}
    remembered: dict[str, list[str]] = {}
    for name, steps in sequences(path).items():
        for case in steps:
            seen = case["observed"]
            event = Event.model_validate(case["event"])
            decision = decide(event, resolve_policy(f"linux-{event.host.kernel}"))
            answer = service("POST", "/v1/decisions", json=without_the_past(case["event"]) | {"source": f"{path.name} {name}"})
            assert answer.status_code == 201, answer.text
            response = RESPONSE.validate_json(answer.content)
            told[case["id"]] = at_notification(decision, seen) + at_next_access(decision, seen)
            remembered[case["id"]] = at_notification(response, seen) + at_next_access(response, seen)
    assert len(remembered) > 30
    assert remembered == told


@pytest.mark.parametrize("evicted", [sources.EVICTED_SOURCES, 0], ids=["in memory", "in the store"])
def test_a_record_of_an_evicted_source_is_remembered(monkeypatch: pytest.MonkeyPatch, evicted: int) -> None:
    monkeypatch.setattr(sources, "CACHED_SOURCES", 1)
    monkeypatch.setattr(sources, "EVICTED_SOURCES", evicted)
    event = {name: value for name, value in EVENT.items() if name != "host"}
    with client(create_app(Settings())) as call:
        answers = [call("POST", "/v1/decisions", json=event | {"source": source}).json() for source in ("a", "b", "c", "a", "c")]
    assert [bool((answer["host_facts"] or {}).get("duplicate")) for answer in answers] == [False, False, False, True, True]
