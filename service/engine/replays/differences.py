"""Differences between encoded decisions, and bounded counts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Final, NamedTuple, get_args

from pydantic_core import from_json

from ras_triage.models.decision import Action
from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import Problem
from ras_triage.service.api.replays.changes import (
    ActionChange,
    ChangedDecision,
    ChangeField,
    ComparisonFailure,
    DecisionChanges,
    DecisionPart,
    GroupChange,
    RuleChange,
)

MAX_EXAMPLES: Final = 10
"""Examples for each two actions."""
MAX_GROUPS: Final = 1000
"""Groups of each field."""
MAX_FAILURES: Final = 20
MAX_RULES: Final = 8
"""Rules of an example."""

_PARTS: Final[tuple[DecisionPart, ...]] = get_args(DecisionPart)
_ORDER: Final = {action: position for position, action in enumerate(Action)}

_Group = tuple[ChangeField, str | None, Action, Action]


@frozen
class ComparedEvent:
    """What the counts and examples say of an event."""

    id: str | None
    """Of its stored decision; None: not stored."""
    place: str | None
    """File and position; None: its decision is stored."""
    source: str | None
    kernel: str | None
    """Release in its host facts or in those of its source."""
    notification: str
    sections: tuple[str, ...]


class DecisionDifference(NamedTuple):
    """Difference between two decisions of an event."""

    before: Action
    after: Action
    parts: tuple[DecisionPart, ...]
    """Parts that differ; empty: the same is decided."""
    rules: tuple[RuleChange, ...]


def compare_decisions(before: bytes, after: bytes) -> DecisionDifference:
    """Compare two encoded decisions of an event: what is decided, and if that differs, the rules with another outcome."""
    first = from_json(before)
    if before == after:
        action = Action(first["action"])
        return DecisionDifference(action, action, (), ())
    second = from_json(after)
    parts = tuple(part for part in _PARTS if first[part] != second[part])
    rules = _rule_changes(first["rationale"], second["rationale"]) if parts else ()
    return DecisionDifference(Action(first["action"]), Action(second["action"]), parts, rules)


def _rule_changes(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> tuple[RuleChange, ...]:
    """Return the rules with another outcome. A rule that applies twice is compared with the first and the second of the other decision."""
    first, second = _numbered(before), _numbered(after)
    changes: list[RuleChange] = []
    for key in dict.fromkeys(chain(first, second)):
        one, other = first.get(key), second.get(key)
        outcomes = None if one is None else one["outcome"], None if other is None else other["outcome"]
        if outcomes[0] != outcomes[1]:
            changes.append(RuleChange(key[0], *outcomes, (other or one or {})["mirrors"]))
    return tuple(changes[:MAX_RULES])


def _numbered(rationale: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mapping[str, Any]]:
    counts: Counter[str] = Counter()
    numbered: dict[tuple[str, int], Mapping[str, Any]] = {}
    for rule in rationale:
        counts[rule["rule"]] += 1
        numbered[rule["rule"], counts[rule["rule"]]] = rule
    return numbered


class ChangeCounter:
    """Counts of differences, with examples. Its memory is bounded."""

    def __init__(self, changes: DecisionChanges | None = None) -> None:
        """Continue from earlier counts, or start."""
        self.compared = self.changed = self.failed = 0
        self._actions: Counter[tuple[Action, Action]] = Counter()
        self._changed: Counter[tuple[Action, Action]] = Counter()
        self._groups: Counter[_Group] = Counter()
        self._group_sizes: Counter[str] = Counter()
        self._examples: dict[tuple[Action, Action], list[ChangedDecision]] = {}
        self._failures: dict[str, ComparisonFailure] = {}
        if changes is not None:
            self.merge(changes)

    def add(self, event: ComparedEvent, found: DecisionDifference) -> None:
        """Count the two decisions of an event."""
        self.compared += 1
        actions = found.before, found.after
        self._actions[actions] += 1
        if not found.parts:
            return
        self.changed += 1
        self._changed[actions] += 1
        rule = found.rules[0].rule if found.rules else None
        values: list[tuple[ChangeField, str | None]] = [("kernel", event.kernel), ("source", event.source), ("rule", rule)]
        values += [("notification", event.notification), *(("section", section) for section in event.sections or (None,))]
        for field, value in values:
            self._count_group((field, value, *actions), 1)
        if len(self._examples.get(actions, ())) < MAX_EXAMPLES:
            self._keep_example(_example(event, found))

    def add_failure(self, problem: Problem, example: str | None) -> None:
        """Count an event that cannot be decided again."""
        self.failed += 1
        self._count_failure(ComparisonFailure(problem.type, problem.detail, example, 1))

    def merge(self, changes: DecisionChanges) -> None:
        """Add the counts of other events."""
        self.compared += changes.compared
        self.changed += changes.changed
        self.failed += changes.failed
        for one in changes.actions:
            self._actions[one.before, one.after] += one.count
            self._changed[one.before, one.after] += one.changed
        for group in changes.groups:
            self._count_group((group.field, group.value, group.before, group.after), group.count)
        for example in changes.examples:
            self._keep_example(example)
        for failure in changes.failures:
            self._count_failure(failure)

    def result(self) -> DecisionChanges:
        """Return the counts."""
        pairs = sorted(self._actions, key=_by_action)
        return DecisionChanges(
            self.compared,
            self.changed,
            self.failed,
            tuple(ActionChange(*actions, self._actions[actions], self._changed[actions]) for actions in pairs),
            tuple(GroupChange(*group, count) for group, count in self._groups.most_common()),
            tuple(chain.from_iterable(self._examples.get(actions, ()) for actions in pairs)),
            tuple(self._failures.values()),
        )

    def _count_group(self, group: _Group, count: int) -> None:
        if group not in self._groups:
            if self._group_sizes[group[0]] >= MAX_GROUPS:
                return
            self._group_sizes[group[0]] += 1
        self._groups[group] += count

    def _keep_example(self, example: ChangedDecision) -> None:
        examples = self._examples.setdefault((example.before, example.after), [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(example)

    def _count_failure(self, failure: ComparisonFailure) -> None:
        known = self._failures.get(failure.problem)
        if known is not None:
            self._failures[failure.problem] = replace(known, count=known.count + failure.count)
        elif len(self._failures) < MAX_FAILURES:
            self._failures[failure.problem] = failure


def _example(event: ComparedEvent, found: DecisionDifference) -> ChangedDecision:
    about = event.id, event.place, event.source, event.kernel, event.notification, event.sections
    return ChangedDecision(*about, found.before, found.after, found.parts, found.rules)


def _by_action(actions: tuple[Action, Action]) -> tuple[int, int]:
    return _ORDER[actions[0]], _ORDER[actions[1]]
