"""Stage results: plan steps, rationale, reasons, assumptions and warnings."""

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
    """Return the rationale entry of a rule that fired; its `since` is the release of the first of `flags` that is set.

    The rule's name begins with its stage: `severity.block` is the rule `block` of the stage `severity`.
    """
    return Rationale(name, name.partition(".")[0], given, outcome, mirrors, _since(policy, flags) if flags else None)


def _since(policy: Policy, flags: Sequence[str]) -> str | None:
    return next((policy.since[flag] for flag in flags if flag in policy.since), None)


def merge_results(stage_results: Sequence[StageResult]) -> StageResult:
    """Concatenate stage results in order. Equal reasons, assumptions and warnings appear once."""
    if len(stage_results) == 1:
        return stage_results[0]
    steps: list[Step] = []
    rationale: list[Rationale] = []
    reasons: list[str] = []
    assumptions: list[Assumption] = []
    warnings: list[DecisionWarning] = []
    for planned, fired, uncertain, assumed, warned in stage_results:
        steps += planned
        rationale += fired
        if uncertain:
            reasons += uncertain
        if assumed:
            assumptions += assumed
        if warned:
            warnings += warned
    return StageResult(tuple(steps), tuple(rationale), _distinct(reasons), _distinct(assumptions), _distinct(warnings))


def _distinct(values: list[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values)) if len(values) > 1 else tuple(values)
