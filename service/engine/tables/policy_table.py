"""Table of expected decisions, and its result under a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, ValidationError
from pydantic_core import from_json, to_json

from ras_triage.models.decision import Action, Decision
from ras_triage.models.event import Event
from ras_triage.models.scalars import FailFastTuple, WireModel
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.decision_grid import grid_cells
from ras_triage.service.api.problems import ProblemError, invalid
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.responses import decide_event, decision_json

MAX_CASES: Final = 10_000


class ExpectedDecision(WireModel):
    """What a case expects of its decision; what is absent may be anything."""

    action: Action | None = None
    """The action."""
    certainty: Literal["certain", "depends"] | None = None
    """The certainty."""
    plan: FailFastTuple[dict[str, Any]] = ()
    """Steps that the plan has in this order, others between them; of each step the fields that are given."""
    next_access: FailFastTuple[dict[str, Any]] = ()
    """The same of `next_access`."""
    rules: FailFastTuple[str] = ()
    """Ids of rules that apply, in any order."""
    without: FailFastTuple[str] = ()
    """Kinds of steps that the plan has not."""


class TableCase(WireModel):
    """One case."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """What the case is about."""
    event: Event
    """The event. Its own `policy` is not used."""
    expect: ExpectedDecision
    """The expected decision."""


class PolicyTable(WireModel):
    """Expected decisions of one policy."""

    policy: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of the policy."""
    cases: Annotated[FailFastTuple[TableCase], Field(min_length=1, max_length=MAX_CASES)]
    """The cases, in order."""


class CaseResult(NamedTuple):
    """Result of one case."""

    name: str
    action: Action
    differences: tuple[str, ...]
    """What is not as expected; empty: the case passes."""


class TableResult(NamedTuple):
    """Result of a table."""

    policy: str
    digest: str
    cases: tuple[CaseResult, ...]
    reached: tuple[str, ...]
    """Ids of the rules that applied in some case."""
    unreached: tuple[str, ...]
    """Ids of other rules that apply somewhere in the policy's decision grid."""

    @property
    def failed(self) -> int:
        """Return the number of cases with differences."""
        return sum(bool(case.differences) for case in self.cases)


def read_table(content: object) -> PolicyTable:
    """Return the table of a parsed YAML document. Raises ProblemError with JSON pointers into it."""
    document = to_json(content, fallback=str)
    try:
        return PolicyTable.model_validate_json(document)
    except ValidationError as error:
        raise ProblemError(invalid(error, document, "request", PolicyTable)) from None


def run_table(table: PolicyTable, policy: Policy, settings: Settings) -> TableResult:
    """Decide each case under the policy and compare. Raises ProblemError for an event that cannot be decided."""
    results: list[CaseResult] = []
    reached: set[str] = set()
    for case in table.cases:
        decision = decide_event(case.event.model_copy(update={"policy": policy.name}), settings)
        reached |= _rules(decision)
        results.append(CaseResult(case.name, decision.action, tuple(_differences(case.expect, decision))))
    everywhere = {rule for cell in grid_cells(policy) for rule in _rules(cell.decision)}
    return TableResult(policy.name, policy.digest, tuple(results), tuple(sorted(reached)), tuple(sorted(everywhere - reached)))


def _rules(decision: Decision) -> set[str]:
    return {fired.rule for fired in decision.rationale}


def _differences(expected: ExpectedDecision, decision: Decision) -> Iterator[str]:
    found = from_json(decision_json(decision))
    if expected.action is not None and decision.action is not expected.action:
        yield f"action `{decision.action}`; expected `{expected.action}`"
    if expected.certainty is not None and decision.certainty != expected.certainty:
        yield f"certainty `{decision.certainty}`; expected `{expected.certainty}`"
    for name, steps in (("plan", expected.plan), ("next_access", expected.next_access)):
        if (missing := _first_missing(steps, found[name])) is not None:
            yield f"no step in `{name}` {'after the one before ' if missing else ''}is `{to_json(steps[missing]).decode()}`"
    kinds = {step.kind for step in decision.plan}
    yield from (f"the plan has a step `{kind}`" for kind in expected.without if kind in kinds)
    yield from (f"rule `{rule}` does not apply" for rule in expected.rules if rule not in _rules(decision))


def _first_missing(expected: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the index of the first expected step that does not follow in order; None: all do."""
    rest = iter(steps)
    for index, wanted in enumerate(expected):
        if not any(_has(step, wanted) for step in rest):
            return index
    return None


def _has(step: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(name in step and step[name] == value for name, value in wanted.items())
