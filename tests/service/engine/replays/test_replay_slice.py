"""Replay of stored events: the same decisions under the policy and the facts of the first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from pydantic_core import from_json

from ras_triage.models.decision import PolicyRef
from ras_triage.models.host import Host
from ras_triage.policies.catalog.choice import load_policy
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.service.api.problems import Problem
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.evaluation import EventDocument
from ras_triage.service.engine.replays.replay_slice import replay_slice
from ras_triage.service.engine.stored.cases import StoredCase, read_cases
from ras_triage.service.engine.stored.inputs import inputs_of
from ras_triage.service.http.runtime import open_runtime
from ras_triage.service.store.port import Filter, HostFacts, Summary
from ras_triage.service.store.temporary import TemporaryStore
from tests.recorded_events import random_events
from tests.service.support.application import EVENT
from tests.service.support.stored_decisions import NOON

SOURCES = 7
NEWEST = resolve_policy("linux-7.3.4").reference
HUGE: dict[str, Any] = {
    "physical_address": "0x40000000",
    "state": "hugetlb",
    "shift": 21,
    "mappings": [{"pid": 7, "address": "0x7f0000000000"}],
}


def events() -> Iterator[dict[str, Any]]:
    """Yield recorded errors of a few machines: with and without host facts, each record twice, and several in one huge page."""
    for number, event in enumerate(random_events()):
        facts = {key: value for key, value in event["host"].items() if key != "recent"}
        pages = [{key: value for key, value in page.items() if key != "poisoned"} for page in facts.get("pages", ())]
        yield {**event, "source": f"node-{number % SOURCES}", "host": {**facts, "pages": pages} if pages else facts}
        yield {**{key: value for key, value in event.items() if key != "host"}, "source": f"node-{number % SOURCES}"}
    for address in ("0x40001000", "0x40001000", "0x40005000"):
        block = {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": address}]}
        yield {"source": "huge", "notification": "gsiv", "status_block": block, "host": {"kernel": "6.12.107", "pages": [HUGE]}}


class Stored(NamedTuple):
    summary: Summary
    case: StoredCase


def stored(sent: Iterator[dict[str, Any]], *, reboots: bool = False) -> list[Stored]:
    """Return the cases of events after a service has decided them; `reboots`: its poisoned pages are forgotten afterwards."""

    async def run() -> list[Stored]:
        store = TemporaryStore()
        for number in range(SOURCES):
            host = Host.model_validate({"kernel": "6.1.100", "pages": [EVENT["host"]["pages"][0] | {"poisoned": False}]})
            store.put_host(HostFacts(f"node-{number}", 1, NOON, host.model_dump_json(exclude_unset=True).encode()))
        async with open_runtime(Settings(batch_workers=0), store, lambda: NOON) as runtime:
            for number, event in enumerate(sent):
                await runtime.intake.decide(EventDocument(json.dumps({**event, "id": str(number)}).encode()))
            if reboots:
                for name in ("huge", *(f"node-{number}" for number in range(SOURCES))):
                    store.forget_poisoned(name)
            summaries = store.page(Filter(), None, 1000).decisions
            found = read_cases(store, [summary.id for summary in summaries])
            return [Stored(summary, case) for summary, case in zip(summaries, found, strict=True) if isinstance(case, StoredCase)]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def cases() -> list[Stored]:
    return stored(events())


def test_a_replay_under_the_policy_that_decided_gives_the_same_bytes(cases: list[Stored]) -> None:
    assert len(cases) == 2 * len(random_events()) + 3
    for summary, case in cases:
        assert inputs_of(case).redecide(Settings(), summary.policy).decision == case.stored.decision, from_json(case.stored.decision)


def test_the_cases_have_stored_facts_duplicates_and_poisoned_pages(cases: list[Stored]) -> None:
    used = [case.used for _, case in cases if case.used is not None]
    assert sum(one.version is not None for one in used) > 100
    assert sum(one.duplicate for one in used) > 50
    assert sum(bool(one.poisoned) for one in used) > 10
    assert sum(page.shift == 21 for _, case in cases for page in case.pages) > 0


def test_pages_that_were_forgotten_since_are_as_large_as_they_have_to_be() -> None:
    for summary, case in stored(events(), reboots=True):
        assert case.pages == ()
        assert inputs_of(case).redecide(Settings(), summary.policy).decision == case.stored.decision


def test_a_policy_with_another_flag_changes_the_decisions_that_rest_on_it(cases: list[Stored]) -> None:
    under = [case for summary, case in cases if summary.policy == "linux-6.12.107"]
    broken = load_policy('name = "broken"\nbase = "linux-6.12.107"\n[flags]\nsea_kills_when_nothing_queued = false\n', ())
    same = load_policy('name = "same"\nbase = "linux-6.12.107"\n', ())
    settings = Settings(custom_policies={"broken": broken, "same": same})
    assert replay_slice(settings, under, None, same.reference).changed == 0
    found = replay_slice(settings, under, None, broken.reference)
    assert (found.compared, found.failed) == (len(under), 0)
    assert {(one.before, one.after) for one in found.actions if one.before != one.after} == {("signal", "handled")}
    rules = {rule.rule for example in found.examples for rule in example.rules}
    assert "exceptions.nothing_queued" in rules


def test_the_first_policy_replaces_the_stored_decision(cases: list[Stored]) -> None:
    one = [case for _, case in cases][:100]
    assert replay_slice(Settings(), one, NEWEST, NEWEST).changed == 0
    assert replay_slice(Settings(), one, resolve_policy("linux-6.1.100").reference, NEWEST).changed > 0


def test_a_corrupt_or_purged_decision_is_a_problem_and_not_an_exception() -> None:
    store = TemporaryStore()
    (found,) = read_cases(store, ["0199f0c1-7c5e-7b7e-9d3c-1f6a2b3c4d5e"])
    assert isinstance(found, Problem)
    store.close()


def test_an_event_whose_policy_is_gone_is_counted_as_failed(cases: list[Stored]) -> None:
    found = replay_slice(Settings(), [cases[0].case], None, PolicyRef("no-such-policy", "sha256:0"))
    assert (found.compared, found.failed) == (0, 1)
    assert found.failures[0].problem.endswith("unknown-policy")
    assert found.failures[0].example == cases[0].case.stored.id


def test_a_policy_that_was_changed_since_the_start_decides_nothing_more(cases: list[Stored]) -> None:
    changed = load_policy('name = "mine"\nbase = "linux-7.3.4"\n', ())
    known = load_policy('name = "mine"\nbase = "linux-6.12.107"\n', ()).reference
    found = replay_slice(Settings(custom_policies={"mine": changed}), [cases[0].case], None, known)
    assert (found.compared, found.failed) == (0, 1)
    assert found.failures[0].problem.endswith("policy-conflict")
    assert found.failures[0].detail == "policy `mine` was changed after the replay was started"
