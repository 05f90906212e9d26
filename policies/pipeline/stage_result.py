"""What a stage hands on beside its result: steps, the rules that fired, and what was taken for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from ras_triage.models.decision import Assumption, DecisionWarning, Rationale, Step
from ras_triage.policies.catalog.policies import Policy

T = TypeVar("T")


class StageResult(NamedTuple):
    """One stage's contribution to the decision."""

    steps: tuple[Step, ...] = ()
    rationale: tuple[Rationale, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why the outcome depends on something that the event does not say."""
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[DecisionWarning, ...] = ()


EMPTY_RESULT = StageResult()


def rule(policy: Policy, name: str, outcome: str, mirrors: str | None, *flags: str, **given: Any) -> Rationale:
    """A rule that fired. Of the `flags` it asked for, those that are set tell since when the kernel behaves so.

    The rule's name begins with its stage: `severity.block` is the rule `block` of the stage `severity`.
    """
    since = next((policy.since[flag] for flag in flags if flag in policy.since), None)
    return Rationale(name, name.partition(".")[0], given, outcome, mirrors, since)


def merge_results(stage_results: Sequence[StageResult]) -> StageResult:
    """All findings in order; what was assumed, or warned of, twice is said once."""
    if len(stage_results) == 1:
        return stage_results[0]
    steps: list[Step] = []
    rationale: list[Rationale] = []
    reasons: list[str] = []
    assumptions: list[Assumption] = []
    warnings: list[DecisionWarning] = []
    for happens, fired, depends, assumed, warned in stage_results:
        steps += happens
        rationale += fired
        if depends:
            reasons += depends
        if assumed:
            assumptions += assumed
        if warned:
            warnings += warned
    return StageResult(tuple(steps), tuple(rationale), _once(reasons), _once(assumptions), _once(warnings))


def _once(said: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(said)) if len(said) > 1 else tuple(said)
