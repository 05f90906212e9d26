"""What a stage hands on beside its result: steps, the rules that fired, and what was taken for granted."""

from __future__ import annotations

from typing import Any, NamedTuple

from models.decision import Assumption, Caution, Rationale, Step
from policies.catalog import Policy


class Finding(NamedTuple):
    """One stage's contribution to the decision."""

    steps: tuple[Step, ...] = ()
    rationale: tuple[Rationale, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why the outcome depends on something that the event does not say."""
    assumptions: tuple[Assumption, ...] = ()
    warnings: tuple[Caution, ...] = ()


NOTHING = Finding()


def rule(policy: Policy, name: str, outcome: str, mirrors: str | None, *flags: str, **given: Any) -> Rationale:
    """A rule that fired. Of the `flags` it asked for, those that are set tell since when the kernel behaves so.

    The rule's name begins with its stage: `severity.block` is the rule `block` of the stage `severity`.
    """
    since = next((policy.since[flag] for flag in flags if flag in policy.since), None)
    return Rationale(name, name.partition(".")[0], given, outcome, mirrors, since)


def join(findings: list[Finding]) -> Finding:
    """All findings in order; what was assumed or warned of twice is said once."""
    return Finding(
        tuple([step for finding in findings for step in finding.steps]),
        tuple([entry for finding in findings for entry in finding.rationale]),
        tuple(dict.fromkeys([reason for finding in findings for reason in finding.reasons])),
        tuple(dict.fromkeys([assumption for finding in findings for assumption in finding.assumptions])),
        tuple(dict.fromkeys([warning for finding in findings for warning in finding.warnings])),
    )
