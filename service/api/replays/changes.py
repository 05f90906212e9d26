"""Changes between the decisions of the same events under two policies."""

from __future__ import annotations

from typing import Literal

from ras_triage.models.decision import Action
from ras_triage.models.frozen import frozen

ChangeField = Literal["kernel", "source", "section", "notification", "rule"]

DecisionPart = Literal["action", "certainty", "plan", "next_access"]


@frozen
class ActionChange:
    """Decisions with one action under the first policy and one under the second."""

    before: Action
    """Action under the first policy, or as decided."""
    after: Action
    """Action under the second policy."""
    count: int
    """Decisions with these two actions."""
    changed: int
    """Those of them that change; with equal actions, in their plan, next access or certainty."""


@frozen
class GroupChange:
    """Changed decisions with the same value of a field."""

    field: ChangeField
    """Field by which they are grouped; `rule`: the first rule with another outcome."""
    value: str | None
    """Value of the field; null: the event does not have it."""
    before: Action
    """Action under the first policy, or as decided."""
    after: Action
    """Action under the second policy."""
    count: int
    """Changed decisions; one with several sections counts for each."""


@frozen
class RuleChange:
    """A rule with another outcome."""

    rule: str
    """Id of the rule."""
    before: str | None
    """Outcome under the first policy, or as decided; null: the rule did not apply."""
    after: str | None
    """Outcome under the second policy; null: the rule does not apply."""
    mirrors: str | None
    """Kernel function."""


@frozen
class ChangedDecision:
    """An event whose decision changes, as an example."""

    id: str | None
    """`id` of the stored decision; null: not stored."""
    place: str | None
    """File and position of the error; null: the decision is stored."""
    source: str | None
    """The event's `source`."""
    kernel: str | None
    """Kernel release in the host facts of the event or of its source."""
    notification: str
    """Notification type."""
    sections: tuple[str, ...]
    """Section types, each once."""
    before: Action
    """Action under the first policy, or as decided."""
    after: Action
    """Action under the second policy."""
    parts: tuple[DecisionPart, ...]
    """Parts of the decision that change."""
    rules: tuple[RuleChange, ...]
    """Rules with another outcome, in order; at most 8."""


@frozen
class ComparisonFailure:
    """Events that cannot be decided again, for the same reason."""

    problem: str
    """Type of the problem."""
    detail: str
    """Detail of the problem of the first of them."""
    example: str | None
    """`id` or place of the first of them."""
    count: int
    """Number of events."""


@frozen
class DecisionChanges:
    """Changes between the decisions of the same events under two policies."""

    compared: int = 0
    """Events that were decided under both policies."""
    changed: int = 0
    """Those of them with another action, plan, next access or certainty."""
    failed: int = 0
    """Events that could not be decided again."""
    actions: tuple[ActionChange, ...] = ()
    """Counts of all compared decisions by their two actions, the mildest first."""
    groups: tuple[GroupChange, ...] = ()
    """Counts of the changed decisions by field, the highest first; at most 1000 of each field."""
    examples: tuple[ChangedDecision, ...] = ()
    """Changed decisions, at most 10 for each two actions."""
    failures: tuple[ComparisonFailure, ...] = ()
    """Reasons why events could not be decided again; at most 20."""
