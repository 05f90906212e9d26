"""The course of an event, stage after stage, in two halves: another reading of the event can take it up at the second."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

from ras_triage.models.decision import Action, ExitToVmm, InjectAbort, InjectSerror, Oops, Panic, Signal, Step, Translate, VmmExits
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.models.severity import GhesSeverity
from ras_triage.policies import exceptions
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import vmms
from ras_triage.policies.guest.guest_stage import notify_guests
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.memory import HandledFrame, handle_memory
from ras_triage.policies.pipeline.precheck import Precheck
from ras_triage.policies.pipeline.sections import QueuedFrame, SectionWalk, walk_sections
from ras_triage.policies.pipeline.signals import next_access, signal_memory
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult

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


@frozen
class SectionStages:
    """Stages 1 to 4: what was found up to the end of the record's sections."""

    notification: Notification
    opening: Precheck
    stage_results: list[StageResult]
    walk: SectionWalk | None
    """None where no section was looked into."""
    kills: bool
    """Whether a forced SIGBUS is pending for the interrupted thread."""
    consumes: bool
    """Whether an abort interrupted a user thread or a guest, which will retry its access."""


@frozen
class HandlingStages:
    """Stages 1 to 7."""

    stage_results: list[StageResult]
    handled: list[HandledFrame]
    later: tuple[Signal, ...]
    """The signals of the next access."""


def run_section_stages(
    notification: Notification, opening: Precheck, block: StatusBlock | None, policy: Policy, facts: Facts
) -> SectionStages:
    """The first half: from what the door came to, to what each section asks for."""
    admission, rank = opening.admission, opening.rank
    if block is None or rank is None:
        return SectionStages(
            notification, opening, [opening.stage_result, _without_record(notification, opening, policy, facts)], None, False, False
        )
    if rank is GhesSeverity.PANIC:
        return SectionStages(notification, opening, [opening.stage_result], None, False, False)
    consumes = admission.synchronous and notification.taken_from != "kernel"
    walk = walk_sections(block, rank, policy, facts, consumes)
    stage_results = [opening.stage_result, *walk.stage_results]
    killed = False
    if admission.exception == "abort":
        settled = exceptions.abort_fallback(block, rank, walk, notification.taken_from, policy, facts)
        stage_results.append(settled.stage_result)
        killed = settled.kills
    stage_results.append(opening.released_after)
    return SectionStages(notification, opening, stage_results, walk, killed, consumes)


def _without_record(notification: Notification, opening: Precheck, policy: Policy, facts: Facts) -> StageResult:
    """What the exception itself comes to, where there is no record to act on."""
    if opening.admission.exception == "abort" and not opening.claimed:
        return exceptions.unclaimed_abort(notification, opening.admission, policy, facts)
    return exceptions.serror(notification, policy, facts) if opening.admission.exception == "serror" else EMPTY_RESULT


def run_handling_stages(walked: SectionStages, policy: Policy, facts: Facts, items: list[QueuedFrame] | None = None) -> HandlingStages:
    """The second half: what becomes of the page frames that were queued, or of `items` in their stead, who is signalled, and what
    guests are told."""
    if items is None and walked.walk is not None:
        items = walked.walk.items
    stage_results, notification = walked.stage_results.copy(), walked.notification
    handled: list[HandledFrame] = []
    if items:
        handled = handle_memory(items, notification, policy, facts)
        stage_results += signal_memory(handled, policy, facts, walked.kills, walked.consumes, notification.taken_from == "guest")
    later = next_access(handled, policy, facts)
    if facts.host.vms:
        stage_results.append(notify_guests(stage_results, later, notification, policy, facts, vmms()))
    return HandlingStages(stage_results, handled, later)


def headline(plan: Iterable[Step]) -> Action:
    """How far a plan takes an error."""
    return _ORDER[max(map(_REACH.__getitem__, map(type, plan)), default=0)]
