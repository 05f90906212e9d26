"""Sequence of the stages, in two parts so that the second can run again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

from ras_triage.models.decision import Action, ExitToVmm, InjectAbort, InjectSerror, Oops, Panic, Signal, Step, Translate, VmmExits
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.models.severity import GhesSeverity
from ras_triage.policies import cpu_exceptions
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.guest_stage import notify_guests
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.memory import HandledFrame, handle_memory
from ras_triage.policies.pipeline.precheck import Precheck, run_precheck
from ras_triage.policies.pipeline.sections import QueuedFrame, SectionWalk, walk_sections
from ras_triage.policies.pipeline.signals import next_access, signal_memory
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult

_ORDER: Final = tuple(Action)

_ACTION_RANK: Final[dict[type[object], int]] = dict.fromkeys(get_args(get_args(Step)[0]), _ORDER.index(Action.HANDLED)) | {
    Signal: _ORDER.index(Action.SIGNAL),
    Oops: _ORDER.index(Action.SIGNAL),
    ExitToVmm: _ORDER.index(Action.SIGNAL),
    VmmExits: _ORDER.index(Action.SIGNAL),
    Translate: _ORDER.index(Action.TRANSLATE),
    InjectAbort: _ORDER.index(Action.INJECT),
    InjectSerror: _ORDER.index(Action.INJECT),
    Panic: _ORDER.index(Action.PANIC),
}
"""Position in `Action` of the action that each kind of step stands for."""


@frozen
class SectionStages:
    """Results of stages 1 to 4, up to the end of the record's sections."""

    notification: Notification
    precheck: Precheck
    stage_results: list[StageResult]
    walk: SectionWalk | None
    """None where no section was read."""
    kills: bool
    """Whether a forced SIGBUS is pending for the interrupted thread."""
    has_consumer: bool
    """Whether an abort interrupted a user thread or a guest, which will retry its access."""


@frozen
class HandlingStages:
    """Results of stages 1 to 7."""

    stage_results: list[StageResult]
    handled: list[HandledFrame]
    at_next_access: tuple[Signal, ...]
    """The signals of the next access."""


def run_section_stages(
    notification: Notification, precheck: Precheck, block: StatusBlock | None, policy: Policy, facts: Facts
) -> SectionStages:
    """Run stages 1 to 4 on the precheck's result: read each section and collect its requests."""
    admission, rank = precheck.admission, precheck.rank
    if block is None or rank is None:
        without_record = _without_record(notification, precheck, policy, facts)
        return _ended(notification, precheck, [precheck.stage_result, without_record])
    if rank is GhesSeverity.PANIC:
        return _ended(notification, precheck, [precheck.stage_result])
    has_consumer = admission.synchronous and notification.taken_from != "kernel"
    walk = walk_sections(block, rank, policy, facts, has_consumer=has_consumer)
    stage_results = [precheck.stage_result, *walk.stage_results]
    killed = False
    if admission.exception == "abort":
        fallback = cpu_exceptions.abort_fallback(block, rank, walk, notification.taken_from, policy, facts)
        stage_results.append(fallback.stage_result)
        killed = fallback.kills
    stage_results.append(precheck.released_after)
    return SectionStages(notification, precheck, stage_results, walk=walk, kills=killed, has_consumer=has_consumer)


def _ended(notification: Notification, precheck: Precheck, stage_results: list[StageResult]) -> SectionStages:
    """Return the result of stages that end before the sections."""
    return SectionStages(notification, precheck, stage_results, walk=None, kills=False, has_consumer=False)


def _without_record(notification: Notification, precheck: Precheck, policy: Policy, facts: Facts) -> StageResult:
    """Return the outcome of the CPU exception alone, where there is no record to process."""
    if precheck.admission.exception == "abort" and not precheck.claimed:
        return cpu_exceptions.handle_unclaimed_abort(notification, precheck.admission, policy, facts)
    return cpu_exceptions.handle_serror(notification, policy, facts) if precheck.admission.exception == "serror" else EMPTY_RESULT


def run_stages(notification: Notification, block: StatusBlock | None, policy: Policy, facts: Facts) -> HandlingStages:
    """Run stages 1 to 7."""
    sections = run_section_stages(notification, run_precheck(notification, block, policy, facts), block, policy, facts)
    return run_handling_stages(sections, policy, facts)


def run_handling_stages(sections: SectionStages, policy: Policy, facts: Facts, items: list[QueuedFrame] | None = None) -> HandlingStages:
    """Run stages 5 to 7: memory failure handling, signals and guest notification.

    `items` replace the queued page frames of `sections`.
    """
    if items is None and sections.walk is not None:
        items = sections.walk.queued_frames
    stage_results, notification = sections.stage_results.copy(), sections.notification
    handled: list[HandledFrame] = []
    if items:
        handled = handle_memory(items, notification, policy, facts)
        stage_results += signal_memory(
            handled,
            policy,
            facts,
            already_signalled=sections.kills,
            has_consumer=sections.has_consumer,
            from_guest=notification.taken_from == "guest",
        )
    at_next_access = next_access(handled, policy, facts)
    if facts.host.vms:
        stage_results.append(notify_guests(stage_results, at_next_access, notification, policy, facts))
    return HandlingStages(stage_results, handled, at_next_access)


def headline(plan: Iterable[Step]) -> Action:
    """Return the most severe action of a plan's steps."""
    return _ORDER[max(map(_ACTION_RANK.__getitem__, map(type, plan)), default=0)]
