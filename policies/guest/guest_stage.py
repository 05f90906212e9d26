"""Stage 7: responses of VMMs to the signals that they get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ras_triage.models.decision import DecisionWarning, InjectSerror, Panic, Signal, Step, Translate, VmmExits
from ras_triage.models.notification import Notification
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import find_vmm
from ras_triage.policies.guest.injection import combine_serrors
from ras_triage.policies.guest.vmm_response import ACTION_REQUIRED, SignalledVm, identify_custom_vmm, vmm_response
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, merge_results

MAX_SIZE: Final = 1 << 16
"""Limit of steps and ranges in the guest part of a plan, for events with thousands of VMs or of aliased slots."""

_TRUNCATED: Final = StageResult(reasons=("plan too long: the responses of further VMs and to further signals are left out",))


def notify_guests(
    stage_results: Iterable[StageResult],
    at_next_access: Iterable[Signal],
    notification: Notification,
    policy: Policy,
    facts: Facts,
) -> StageResult:
    """Return the guest part of a decision whose host part is `stage_results`; `at_next_access` are the signals of the next access.

    Raises UnknownVmm.
    """
    signalled: dict[int | None, list[Signal]] = {}
    for stage_result in stage_results:
        for step in stage_result.steps:
            if isinstance(step, Signal):
                signalled.setdefault(step.pid, []).append(step)
            elif isinstance(step, Panic):
                return EMPTY_RESULT
    signalled_later = {signal.pid for signal in at_next_access} - signalled.keys()
    distinct_signals: dict[int | None, tuple[Signal, ...]] = {}
    responses: list[StageResult] = []
    budget = MAX_SIZE
    for vm in facts.host.vms or () if signalled or signalled_later else ():
        case = SignalledVm(vm, find_vmm(vm.vmm, facts.custom_vmms), notification.taken_from, policy, facts, set(vm.guest.ack_pending))
        pid = vm.pid if vm.pid in signalled or not _is_only_vm(case) else None
        if pid in signalled and pid not in distinct_signals:
            distinct_signals[pid] = tuple(_distinct(signalled[pid]))
        own = distinct_signals.get(pid, ())
        if own and budget < 0:
            responses.append(_TRUNCATED)
            break
        if own:
            result, budget = _responses(case, own, budget)
            responses.append(result)
        elif vm.pid in signalled_later:
            signalled_later.discard(vm.pid)
            responses.append(_warn_of_early_signals(case))
    return merge_results(responses) if responses else EMPTY_RESULT


def _responses(case: SignalledVm, signals: tuple[Signal, ...], budget: int) -> tuple[StageResult, int]:
    """Return a VMM's response to its distinct signals, and the rest of the plan's size budget."""
    responses = [identify_custom_vmm(case)]
    for signal in signals:
        if budget < 0:
            responses.append(_TRUNCATED)
            break
        responses.append(vmm_response(signal, case))
        budget -= _size(responses[-1], case)
        if any(isinstance(step, VmmExits) for step in responses[-1].steps):
            break
    return _combine(merge_results(responses)), budget


def _size(result: StageResult, case: SignalledVm) -> int:
    """Return the size of a response: what it adds to the plan, and the work of finding it."""
    parts = sum(len(step.ranges) + len(step.holes) for step in result.steps if isinstance(step, Translate))
    return len(result.steps) + parts + len(case.vm.memslots) // 64


def _is_only_vm(case: SignalledVm) -> bool:
    """Return whether an unnamed guest thread is this VM's because the host has no other VM."""
    return case.taken_from == "guest" and len(case.facts.host.vms or ()) == 1


def _distinct(signals: list[Signal]) -> Iterator[Signal]:
    """Yield distinct signals, without action-optional ones for a page that has an action-required one."""
    required = {signal.address for signal in signals if signal.code == ACTION_REQUIRED}
    return (signal for signal in dict.fromkeys(signals) if signal.code != "BUS_MCEERR_AO" or signal.address not in required)


def _combine(result: StageResult) -> StageResult:
    """Merge virtual SErrors that would be pending together for a vCPU into the most severe of them."""
    worst: dict[int | None, tuple[int, InjectSerror]] = {}
    steps: list[Step | None] = []
    for step in result.steps:
        if not isinstance(step, InjectSerror):
            steps.append(step)
            continue
        if (before := worst.get(step.vcpu)) is not None:
            position, milder = before
            if combine_serrors((milder.vsesr_el2, step.vsesr_el2)) == milder.vsesr_el2:
                continue
            steps[position] = None
        worst[step.vcpu] = (len(steps), step)
        steps.append(step)
    return result._replace(steps=tuple(step for step in steps if step is not None)) if worst else result


def _warn_of_early_signals(case: SignalledVm) -> StageResult:
    """Warn where a VMM that requests early signals got none: the task facts contradict that."""
    task = case.facts.tasks.get(case.vm.pid)
    if task is None or not case.vmm.behaviours.asks_for_early_signals:
        return EMPTY_RESULT
    if any(policy == "early" for policy in (task.mce_kill, *(thread.mce_kill for thread in task.threads))):
        return EMPTY_RESULT
    detail = f"{case.vmm.name} requests early signals (PR_MCE_KILL_EARLY), but `host.tasks` has no such thread in process {case.vm.pid}"
    return merge_results((identify_custom_vmm(case), StageResult(warnings=(DecisionWarning("vmm_asks_for_early_signals", detail),))))
