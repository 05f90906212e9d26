"""The decision: a line of small stages, each handing on what it found."""

from __future__ import annotations

from models.decision import Action, Decision
from models.event import Event, event_key
from models.poison import PoisonedPage
from models.status_block import StatusBlock, parse
from models.value import value
from policies.alternatives import NO_OTHER, Case, OtherReadings, is_ambiguous, other_readings
from policies.catalog import Policy
from policies.course import Course, handle, headline, walk_record
from policies.facts import Facts
from policies.finding import Finding, join
from policies.opening import open_event
from policies.remembered import poisoned_pages

TOLD: frozenset[str] = frozenset()
"""Nothing in the event was assumed for its sender."""


def decide(event: Event, policy: Policy, assumed: frozenset[str] = TOLD) -> Decision:
    """What `policy` says happens after `event`, and why. Pure: equal arguments give equal decisions.

    `assumed`: JSON pointers into the event, such as `/notification/type`, at which its sender took something for granted. The decision
    is the same; only its `alternatives` and `warnings` know of it.
    """
    block = None if event.status_block is None else parse(event.status_block)
    return decide_parsed(event, block, policy, event_key(event), assumed)


def decide_parsed(event: Event, block: StatusBlock | None, policy: Policy, key: str, assumed: frozenset[str] = TOLD) -> Decision:
    """`decide` for a caller that has parsed the event's status block and computed its key."""
    return settle(event, block, policy, key, assumed).decision


@value
class Settled:
    """A decision, and what of it outlasts the event."""

    decision: Decision
    poisoned: tuple[PoisonedPage, ...]
    """Pages that count as poisoned from now on, until the machine starts again."""


def settle(event: Event, block: StatusBlock | None, policy: Policy, key: str, assumed: frozenset[str] = TOLD) -> Settled:
    """`decide_parsed` for a caller that remembers what became of a machine's pages."""
    facts = Facts(event.host)
    opening = open_event(event.notification, block, policy, facts)
    walked = walk_record(event.notification, opening, block, policy, facts)
    course = handle(walked, policy, facts)
    found = join(course.findings)
    action = headline(found.steps)
    others = NO_OTHER
    if is_ambiguous(walked, course, facts, assumed):
        others = other_readings(Case(action, block, policy, facts, walked, course, assumed))
    return Settled(_conclude(event, policy, key, action, found, course, others), poisoned_pages(course.handled, facts))


def _conclude(event: Event, policy: Policy, key: str, action: Action, found: Finding, course: Course, others: OtherReadings) -> Decision:
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


__all__ = ["TOLD", "Settled", "decide", "decide_parsed", "settle"]
