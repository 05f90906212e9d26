"""The decision: a line of small stages, each handing on what it found."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from models.decision import (
    Action,
    Decision,
    ExitToVmm,
    InjectSerror,
    Panic,
    PolicyRef,
    Rationale,
    Signal,
    Step,
)
from models.event import Event, event_key
from models.severity import GhesSeverity
from models.status_block import StatusBlock, parse
from policies import exceptions
from policies.admit import Admission, admit
from policies.catalog import Policy
from policies.facts import Facts
from policies.finding import Finding, join, rule
from policies.memory import handle_memory
from policies.read import read
from policies.sections import walk_sections
from policies.severity import judge
from policies.signals import next_access, signal_memory

_REACH: Final[dict[type[object], Action]] = {
    Signal: Action.SIGNAL,
    InjectSerror: Action.INJECT,
    ExitToVmm: Action.SIGNAL,
    Panic: Action.PANIC,
}
"""How far a step takes an error."""

_ORDER: Final = tuple(Action)


def decide(event: Event, policy: Policy) -> Decision:
    """What `policy` says happens after `event`, and why. Pure: equal arguments give equal decisions."""
    return decide_parsed(event, None if event.status_block is None else parse(event.status_block), policy, event_key(event))


def decide_parsed(event: Event, block: StatusBlock | None, policy: Policy, key: str) -> Decision:
    """`decide` for a caller that has parsed the event's status block and computed its key."""
    facts = Facts(event.host)
    admission = admit(event.notification, policy, facts)
    reading = read(event.notification, block, admission, policy, facts)
    findings = [admission.finding, reading.finding]
    later: tuple[Signal, ...] = ()
    if reading.block is not None:
        handled, later = _process(event, reading.block, reading.released_after, admission, policy, facts)
        findings += handled
    elif admission.exception == "abort" and not reading.claimed:
        findings.append(exceptions.unclaimed_abort(event.notification, admission, policy, facts))
    elif admission.exception == "serror":
        findings.append(exceptions.serror(event.notification, policy, facts))
    return _conclude(event, policy, key, findings, later)


def _process(
    event: Event, block: StatusBlock, released_after: tuple[Step, ...], admission: Admission, policy: Policy, facts: Facts
) -> tuple[list[Finding], tuple[Signal, ...]]:
    """A record that is acted on, from its severity to the signals."""
    notification = event.notification
    rank, judged = judge(block, policy, facts)
    if rank is GhesSeverity.PANIC:
        return [judged], ()
    work = walk_sections(block, rank, policy, facts, admission.synchronous, notification.taken_from != "kernel")
    findings = [judged, work.finding]
    killed = False
    if admission.exception == "abort":
        settled = exceptions.settle_abort(block, rank, work, notification.taken_from, policy, facts)
        findings.append(settled.finding)
        killed = settled.kills
    if released_after:
        findings.append(Finding(released_after))
    handled = handle_memory(work.items, notification, policy, facts)
    signalled = signal_memory(handled, policy, facts, killed, notification.taken_from == "guest")
    for done, signals in zip(handled, signalled, strict=False):
        findings += (done.finding, signals)
    if not any(done.panics for done in handled):
        findings.append(signalled[-1])
    return findings, next_access(handled, facts)


def _conclude(event: Event, policy: Policy, key: str, findings: list[Finding], later: tuple[Signal, ...]) -> Decision:
    """Stage 8: the headline, and whether it is certain."""
    found = join(findings)
    action = _headline(found.steps)
    return Decision(
        event_key=key,
        source=event.source,
        policy=_reference(policy),
        action=action,
        certainty="depends" if found.reasons else "certain",
        reasons=found.reasons,
        plan=found.steps,
        next_access=() if action is Action.PANIC else later,
        rationale=(*found.rationale, _concluded(policy, action)),
        assumptions=found.assumptions,
        warnings=found.warnings,
    )


def _headline(plan: tuple[Step, ...]) -> Action:
    reached = Action.HANDLED
    for step in plan:
        reach = _REACH.get(type(step))
        if reach is not None and _ORDER.index(reach) > _ORDER.index(reached):
            reached = reach
    return reached


@lru_cache(maxsize=1024)
def _reference(policy: Policy) -> PolicyRef:
    return PolicyRef(policy.name, policy.digest)


@lru_cache(maxsize=1024)
def _concluded(policy: Policy, action: Action) -> Rationale:
    return rule(policy, "conclude.action", action.value, None)


__all__ = ["decide", "decide_parsed"]
