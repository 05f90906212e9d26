"""Differences between decisions, and their bounded counts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ras_triage.models.decision import Action
from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.service.api.problems import Problem, internal
from ras_triage.service.engine.replays.differences import (
    MAX_EXAMPLES,
    MAX_FAILURES,
    MAX_GROUPS,
    ChangeCounter,
    ComparedEvent,
    DecisionDifference,
    compare_decisions,
)
from ras_triage.service.engine.responses import decision_json
from tests.recorded_events import random_events
from tests.service.support.application import NOTHING_TO_QUEUE

EVENT = ComparedEvent("1", None, "node-1", "6.12.107", "sea", ("memory", "arm_processor"))
TO_SIGNAL = DecisionDifference(Action.HANDLED, Action.SIGNAL, ("action", "plan"), ())
SAME = DecisionDifference(Action.HANDLED, Action.HANDLED, (), ())


def decided(event: dict[str, object], policy: str) -> bytes:
    return decision_json(decide(Event.model_validate(event), resolve_policy(policy)))


def test_a_difference_names_the_actions_the_parts_and_the_rules_that_differ() -> None:
    found = compare_decisions(decided(NOTHING_TO_QUEUE, "linux-6.12.42"), decided(NOTHING_TO_QUEUE, "linux-6.12.43"))
    assert (found.before, found.after) == ("handled", "signal")
    assert found.parts == ("action", "plan")
    assert [(one.rule, one.mirrors) for one in found.rules] == [("exceptions.nothing_queued", "ghes_do_proc")]


def test_releases_that_behave_alike_decide_alike_though_their_names_differ() -> None:
    for event in random_events()[:50]:
        before, after = (decided(event, policy) for policy in ("linux-6.12.106", "linux-6.12.107"))
        assert before != after
        assert compare_decisions(before, after).parts == ()


def test_a_decision_under_the_same_policy_has_no_difference() -> None:
    before = decided(NOTHING_TO_QUEUE, "linux-7.3.4")
    assert compare_decisions(before, before) == DecisionDifference(Action.SIGNAL, Action.SIGNAL, (), ())


def test_counts_are_by_action_and_changes_by_field() -> None:
    counter = ChangeCounter()
    counter.add(EVENT, TO_SIGNAL)
    counter.add(EVENT, SAME)
    found = counter.result()
    assert (found.compared, found.changed) == (2, 1)
    assert [(one.before, one.after, one.count, one.changed) for one in found.actions] == [
        ("handled", "handled", 1, 0),
        ("handled", "signal", 1, 1),
    ]
    assert {(group.field, group.value, group.count) for group in found.groups} == {
        ("kernel", "6.12.107", 1),
        ("source", "node-1", 1),
        ("notification", "sea", 1),
        ("rule", None, 1),
        ("section", "memory", 1),
        ("section", "arm_processor", 1),
    }
    assert [example.id for example in found.examples] == ["1"]


def test_counts_of_parts_add_up_to_the_counts_of_the_whole() -> None:
    events = random_events()
    whole, parts = ChangeCounter(), [ChangeCounter(), ChangeCounter()]
    for number, event in enumerate(events):
        difference = compare_decisions(decided(event, "linux-6.1.100"), decided(event, "linux-7.3.4"))
        about = ComparedEvent(str(number), None, None, None, "sea", ())
        whole.add(about, difference)
        parts[number >= len(events) // 2].add(about, difference)
    merged = ChangeCounter(parts[0].result())
    merged.merge(parts[1].result())
    assert set(merged.result().groups) == set(whole.result().groups)
    assert merged.result().actions == whole.result().actions
    assert merged.result().examples == whole.result().examples
    assert whole.changed > 0


def test_examples_groups_and_failures_are_bounded_and_everything_is_counted() -> None:
    counter = ChangeCounter()
    for number in range(MAX_GROUPS + 10):
        counter.add(ComparedEvent(str(number), None, f"node-{number}", None, "sea", ()), TO_SIGNAL)
    for number in range(MAX_FAILURES + 10):
        counter.add_failure(Problem(f"urn:{number}", "title", 422, "detail"), str(number))
    found = counter.result()
    assert found.changed == MAX_GROUPS + 10
    assert len(found.examples) == MAX_EXAMPLES
    assert sum(group.field == "source" for group in found.groups) == MAX_GROUPS
    assert (found.failed, len(found.failures)) == (MAX_FAILURES + 10, MAX_FAILURES)
    assert all(one.count >= other.count for one, other in pairwise(found.groups))


@pytest.mark.parametrize("times", [1, 3])
def test_failures_of_the_same_type_are_counted_together_with_the_first_as_example(times: int) -> None:
    counter = ChangeCounter()
    for number in range(times):
        counter.add_failure(internal(), str(number))
    (failure,) = counter.result().failures
    assert (failure.count, failure.example) == (times, "0")
