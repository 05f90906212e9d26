"""The course of an event, stage after stage, in two halves: another reading of the event can take it up at the second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

from models.decision import (
    Action,
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
from models.notification import Notification
from models.severity import GhesSeverity
from models.status_block import StatusBlock
from models.value import value
from policies import exceptions
from policies.catalog import Policy
from policies.facts import Facts
from policies.finding import NOTHING, Finding
from policies.guest.stage import tell_guests
from policies.guest.vmm import vmms
from policies.memory import Handled, handle_memory
from policies.opening import Opening
from policies.sections import Item, Walk, walk_sections
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


@value
class Walked:
    """Stages 1 to 4: what was found up to the end of the record's sections."""

    notification: Notification
    opening: Opening
    findings: list[Finding]
    walk: Walk | None
    """None where no section was looked into."""
    kills: bool
    """Whether a forced SIGBUS is pending for the interrupted thread."""
    consumes: bool
    """Whether an abort interrupted a user thread or a guest, which will retry its access."""


@value
class Course:
    """Stages 1 to 7."""

    findings: list[Finding]
    handled: list[Handled]
    later: tuple[Signal, ...]
    """The signals of the next access."""


def walk_record(notification: Notification, opening: Opening, block: StatusBlock | None, policy: Policy, facts: Facts) -> Walked:
    """The first half: from what the door came to, to what each section asks for."""
    admission, rank = opening.admission, opening.rank
    if block is None or rank is None:
        return Walked(notification, opening, [opening.finding, _without_record(notification, opening, policy, facts)], None, False, False)
    if rank is GhesSeverity.PANIC:
        return Walked(notification, opening, [opening.finding], None, False, False)
    consumes = admission.synchronous and notification.taken_from != "kernel"
    walk = walk_sections(block, rank, policy, facts, consumes)
    findings = [opening.finding, *walk.findings]
    killed = False
    if admission.exception == "abort":
        settled = exceptions.settle_abort(block, rank, walk, notification.taken_from, policy, facts)
        findings.append(settled.finding)
        killed = settled.kills
    findings.append(opening.released_after)
    return Walked(notification, opening, findings, walk, killed, consumes)


def _without_record(notification: Notification, opening: Opening, policy: Policy, facts: Facts) -> Finding:
    """What the exception itself comes to, where there is no record to act on."""
    if opening.admission.exception == "abort" and not opening.claimed:
        return exceptions.unclaimed_abort(notification, opening.admission, policy, facts)
    return exceptions.serror(notification, policy, facts) if opening.admission.exception == "serror" else NOTHING


def handle(walked: Walked, policy: Policy, facts: Facts, items: list[Item] | None = None) -> Course:
    """The second half: what becomes of the page frames that were queued, or of `items` in their stead, who is signalled, and what
    guests are told."""
    if items is None and walked.walk is not None:
        items = walked.walk.items
    findings, notification = walked.findings.copy(), walked.notification
    handled: list[Handled] = []
    if items:
        handled = handle_memory(items, notification, policy, facts)
        findings += signal_memory(handled, policy, facts, walked.kills, walked.consumes, notification.taken_from == "guest")
    later = next_access(handled, policy, facts)
    if facts.host.vms:
        findings.append(tell_guests(findings, later, notification, policy, facts, vmms()))
    return Course(findings, handled, later)


def headline(plan: Iterable[Step]) -> Action:
    """How far a plan takes an error."""
    return _ORDER[max(map(_REACH.__getitem__, map(type, plan)), default=0)]
