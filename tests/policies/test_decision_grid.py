"""The decision grid: every point has exactly one outcome, and the outcomes are those that were reviewed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from ras_triage.models.decision import Action, Decision
from ras_triage.policies import decision_grid
from ras_triage.policies.catalog.policies import Policy, derive_policy, resolve_policy
from ras_triage.policies.decision_grid import GridPoint, committed_grids, decide_point, grid_axes, representative, summarize_grid
from tests.effort import effort
from tests.generate_grids import POLICIES


@pytest.mark.parametrize("name", POLICIES)
def test_the_grid_of_a_policy_is_sound_and_the_one_that_was_reviewed(name: str) -> None:
    summary = summarize_grid(resolve_policy(name))
    assert summary.faults == ()
    committed = committed_grids()[name]
    assert {"points": summary.points, "actions": summary.actions} == {"points": committed["points"], "actions": committed["actions"]}
    assert summary.digest == committed["digest"], "a plan changed: run `make tables` and say why in the commit"


def test_every_committed_grid_is_compared() -> None:
    assert tuple(committed_grids()) == POLICIES


def test_every_action_and_every_notification_is_in_the_grid() -> None:
    for grid in committed_grids().values():
        assert {action for counts in grid["actions"].values() for action in counts} == set(Action)
        assert len(grid["actions"]) == 13
        assert sum(count for counts in grid["actions"].values() for count in counts.values()) == grid["points"]


@pytest.mark.parametrize("name", POLICIES)
def test_points_that_share_a_decision_would_have_the_same_one_alone(name: str) -> None:
    policy, random = resolve_policy(name), Random(name)
    notifications, records, tasks, pages = grid_axes()
    for _ in range(effort(1000, 100_000)):
        point = GridPoint(random.choice(notifications), *random.choice(records), random.choice(tasks), random.choice(pages))
        alone, shared = decide_point(policy, point), decide_point(policy, representative(policy, point))
        assert (alone.action, alone.plan, alone.certainty) == (shared.action, shared.plan, shared.certainty), point


def test_a_flag_that_is_changed_changes_the_grid_of_what_it_is_about() -> None:
    without = derive_policy('name = "x"\nbase = "linux-6.12.107"\n[flags]\nsea_kills_when_nothing_queued = false\n')
    before, after = committed_grids()["linux-6.12.107"], summarize_grid(without)
    assert after.digest != before["digest"]
    assert {kind for kind, counts in after.actions.items() if counts != before["actions"][kind]} == {"sea"}
    assert after.actions["sea"]["signal"] < before["actions"]["sea"]["signal"]


def test_a_decision_whose_parts_contradict_each_other_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def decide_wrongly(policy: Policy, point: GridPoint) -> Decision:
        return replace(decide_point(policy, point), action=Action.INJECT)

    monkeypatch.setattr(decision_grid, "decide_point", decide_wrongly)
    faults = summarize_grid(resolve_policy("linux-6.12.107")).faults
    assert faults[0].startswith("polled; none; none; no_record; default; anonymous/dirty: action `inject` for a plan that")
