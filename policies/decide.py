"""The decision: a line of small stages, each handing on what it found."""

from __future__ import annotations

from typing import Final, get_args

from models.decision import (
    Action,
    Decision,
    ExitToVmm,
    InjectAbort,
    InjectSerror,
    Oops,
    Panic,
    Signal,
    Step,
    Translate,
    VmmExits,
)
from models.event import Event, event_key
from models.poison import PoisonedPage
from models.severity import GhesSeverity
from models.status_block import StatusBlock, parse
from models.value import value
from policies import exceptions
from policies.catalog import Policy
from policies.facts import Facts
from policies.finding import Finding, join
from policies.guest.stage import tell_guests
from policies.guest.vmm import vmms
from policies.memory import Handled, handle_memory
from policies.opening import Opening, open_event
from policies.remembered import poisoned_pages
from policies.sections import walk_sections
from policies.signals import next_access, signal_memory

_ORDER: Final = tuple(Action)

_REACH: Final[dict[type[object], int]] = dict.fromkeys(get_args(get_args(Step)[0]), _ORDER.index(Action.HANDLED)) | {
    Signal: _ORDER.index(Action.SIGNAL),
    Oops: _ORDER.index(Action.SIGNAL),
    ExitToVmm: _ORDER.index(Action.SIGNAL),
    VmmExits: _ORDER.index(Action.SIGNAL),
    Translate: _ORDER.index(Action.TRANSLATE),
    InjectAbort: _ORDER.index(Action.INJECT),
    InjectSerror: _ORDER.index(Action.INJECT),
    Panic: _ORDER.index(Action.PANIC),
}
"""How far each kind of step takes an error."""


def decide(event: Event, policy: Policy) -> Decision:
    """What `policy` says happens after `event`, and why. Pure: equal arguments give equal decisions."""
    return decide_parsed(event, None if event.status_block is None else parse(event.status_block), policy, event_key(event))


def decide_parsed(event: Event, block: StatusBlock | None, policy: Policy, key: str) -> Decision:
    """`decide` for a caller that has parsed the event's status block and computed its key."""
    return settle(event, block, policy, key).decision


@value
class Settled:
    """A decision, and what of it outlasts the event."""

    decision: Decision
    poisoned: tuple[PoisonedPage, ...]
    """Pages that count as poisoned from now on, until the machine starts again."""


def settle(event: Event, block: StatusBlock | None, policy: Policy, key: str) -> Settled:
    """`decide_parsed` for a caller that remembers what became of a machine's pages."""
    facts = Facts(event.host)
    notification = event.notification
    opening = open_event(notification, block, policy, facts)
    findings = [opening.finding]
    handled: list[Handled] = []
    if block is not None and opening.rank is not None:
        if opening.rank is not GhesSeverity.PANIC:
            handled = _process(findings, event, block, opening.rank, opening, policy, facts)
    elif opening.admission.exception == "abort" and not opening.claimed:
        findings.append(exceptions.unclaimed_abort(notification, opening.admission, policy, facts))
    elif opening.admission.exception == "serror":
        findings.append(exceptions.serror(notification, policy, facts))
    later = next_access(handled, policy, facts)
    if facts.host.vms:
        findings.append(tell_guests(findings, later, notification, policy, facts, vmms()))
    return Settled(_conclude(event, policy, key, findings, later), poisoned_pages(handled, facts))


def _process(
    findings: list[Finding], event: Event, block: StatusBlock, rank: GhesSeverity, opening: Opening, policy: Policy, facts: Facts
) -> list[Handled]:
    """Act on a record, from its sections to the signals; add to the findings, and return the page frames that were handled."""
    notification, admission = event.notification, opening.admission
    consumes = admission.synchronous and notification.taken_from != "kernel"
    walk = walk_sections(block, rank, policy, facts, consumes)
    findings += walk.findings
    killed = False
    if admission.exception == "abort":
        settled = exceptions.settle_abort(block, rank, walk, notification.taken_from, policy, facts)
        findings.append(settled.finding)
        killed = settled.kills
    findings.append(opening.released_after)
    if not walk.items:
        return []
    handled = handle_memory(walk.items, notification, policy, facts)
    findings += signal_memory(handled, policy, facts, killed, consumes, notification.taken_from == "guest")
    return handled


def _conclude(event: Event, policy: Policy, key: str, findings: list[Finding], later: tuple[Signal, ...]) -> Decision:
    """Stage 8: the headline, and whether it is certain."""
    found = join(findings)
    action = _headline(found.steps)
    return Decision(
        event_key=key,
        source=event.source,
        policy=policy.reference,
        action=action,
        certainty="depends" if found.reasons else "certain",
        reasons=found.reasons,
        plan=found.steps,
        next_access=() if action is Action.PANIC else later,
        rationale=found.rationale,
        assumptions=found.assumptions,
        warnings=found.warnings,
    )


def _headline(plan: tuple[Step, ...]) -> Action:
    return _ORDER[max(map(_REACH.__getitem__, map(type, plan)), default=0)]


__all__ = ["Settled", "decide", "decide_parsed", "settle"]
