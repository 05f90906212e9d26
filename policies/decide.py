"""The decision: a line of small stages, each handing on what it found."""

from __future__ import annotations

from ras_triage.models.decision import Action, Decision
from ras_triage.models.event import Event, event_key
from ras_triage.models.frozen import frozen
from ras_triage.models.poison import PoisonedPage
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.policies.alternatives import NO_ALTERNATIVES, AlternativeReadings, DecidedCase, alternative_readings, is_ambiguous
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.poisoned_pages import poisoned_pages
from ras_triage.policies.pipeline.precheck import precheck
from ras_triage.policies.pipeline.stage_result import StageResult, merge_results
from ras_triage.policies.pipeline.stages import HandlingStages, headline, run_handling_stages, run_section_stages

NOTHING_ASSUMED: frozenset[str] = frozenset()
"""Nothing in the event was assumed for its sender."""


def decide(event: Event, policy: Policy, assumed: frozenset[str] = NOTHING_ASSUMED) -> Decision:
    """What `policy` says happens after `event`, and why. Pure: equal arguments give equal decisions.

    `assumed`: JSON pointers into the event, such as `/notification/type`, at which its sender took something for granted. The decision
    is the same; only its `alternatives` and `warnings` know of it.
    """
    block = None if event.status_block is None else parse_block(event.status_block)
    return decide_parsed(event, block, policy, event_key(event), assumed)


def decide_parsed(event: Event, block: StatusBlock | None, policy: Policy, key: str, assumed: frozenset[str] = NOTHING_ASSUMED) -> Decision:
    """`decide` for a caller that has parsed the event's status block and computed its key."""
    return decide_with_poison(event, block, policy, key, assumed).decision


@frozen
class DecisionWithPoison:
    """A decision, and what of it outlasts the event."""

    decision: Decision
    poisoned: tuple[PoisonedPage, ...]
    """Pages that count as poisoned from now on, until the machine starts again."""


def decide_with_poison(
    event: Event, block: StatusBlock | None, policy: Policy, key: str, assumed: frozenset[str] = NOTHING_ASSUMED
) -> DecisionWithPoison:
    """`decide_parsed` for a caller that remembers what became of a machine's pages."""
    facts = Facts(event.host)
    opening = precheck(event.notification, block, policy, facts)
    walked = run_section_stages(event.notification, opening, block, policy, facts)
    course = run_handling_stages(walked, policy, facts)
    found = merge_results(course.stage_results)
    action = headline(found.steps)
    others = NO_ALTERNATIVES
    if is_ambiguous(walked, course, facts, assumed):
        others = alternative_readings(DecidedCase(action, block, policy, facts, walked, course, assumed))
    return DecisionWithPoison(_conclude(event, policy, key, action, found, course, others), poisoned_pages(course.handled, facts))


def _conclude(
    event: Event, policy: Policy, key: str, action: Action, found: StageResult, course: HandlingStages, others: AlternativeReadings
) -> Decision:
    """Stage 8: the headline, whether it is certain, and what another reading of the event would have meant."""
    return Decision(
        event_key=key,
        source=event.source,
        policy=policy.reference,
        action=action,
        certainty="depends" if found.reasons else "certain",
        reasons=found.reasons,
        plan=found.steps,
        next_access=() if action is Action.PANIC else course.later,
        rationale=found.rationale,
        assumptions=found.assumptions,
        alternatives=others.alternatives,
        warnings=(*found.warnings, *others.warnings) if others.warnings else found.warnings,
    )


__all__ = ["NOTHING_ASSUMED", "DecisionWithPoison", "decide", "decide_parsed", "decide_with_poison"]
