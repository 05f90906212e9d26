"""Stage 7: for every VM whose process is signalled, what its VMM finds out, what it tells the guest, or how it dies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ras_triage.models.decision import DecisionWarning, InjectSerror, Panic, Signal, Step, Translate, VmmExits
from ras_triage.models.notification import Notification
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import Vmm
from ras_triage.policies.guest.injection import combine_serrors
from ras_triage.policies.guest.vmm_response import ACTION_REQUIRED, SignalledVm, vmm_response
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, merge_results

MAX_SIZE: Final = 1 << 16
"""Steps and ranges after which the guest half of a plan says no more: thousands of VMs, or tables of aliases alone."""

_CUT: Final = StageResult(reasons=("more is signalled to VMs than a plan has room for: what comes after is not spelt out",))


def notify_guests(
    stage_results: Iterable[StageResult],
    later: Iterable[Signal],
    notification: Notification,
    policy: Policy,
    facts: Facts,
    monitors: Mapping[str, Vmm],
) -> StageResult:
    """The guest half of a decision whose host half is `stage_results`, with the signals of `later` accesses."""
    told: dict[int | None, list[Signal]] = {}
    for stage_result in stage_results:
        for step in stage_result.steps:
            if isinstance(step, Signal):
                told.setdefault(step.pid, []).append(step)
            elif isinstance(step, Panic):
                return EMPTY_RESULT
    waiting = {signal.pid for signal in later} - told.keys()
    distinct: dict[int | None, tuple[Signal, ...]] = {}
    answers: list[StageResult] = []
    left = MAX_SIZE
    for vm in facts.host.vms or () if told or waiting else ():
        case = SignalledVm(vm, monitors[vm.vmm], notification.taken_from, policy, facts, set(vm.guest.ack_pending))
        pid = vm.pid if vm.pid in told or not _must_be(case) else None
        if pid in told and pid not in distinct:
            distinct[pid] = tuple(_distinct(told[pid]))
        own = distinct.get(pid, ())
        if own and left < 0:
            answers.append(_CUT)
            break
        if own:
            found, left = _of_vm(case, own, left)
            answers.append(found)
        elif vm.pid in waiting:
            waiting.discard(vm.pid)
            answers.append(_untold(case))
    return merge_results(answers) if answers else EMPTY_RESULT


def _of_vm(case: SignalledVm, signals: tuple[Signal, ...], left: int) -> tuple[StageResult, int]:
    """What a VMM does with its signals, each of which says something new, and how much of the plan's size is left after it."""
    answers: list[StageResult] = []
    for signal in signals:
        if left < 0:
            answers.append(_CUT)
            break
        answers.append(vmm_response(signal, case))
        left -= _size(answers[-1], case)
        if any(isinstance(step, VmmExits) for step in answers[-1].steps):
            break
    return _combined(merge_results(answers)), left


def _size(found: StageResult, case: SignalledVm) -> int:
    """What an answer adds to a plan, and what it took to find it."""
    parts = sum(len(step.ranges) + len(step.holes) for step in found.steps if isinstance(step, Translate))
    return len(found.steps) + parts + len(case.vm.memslots) // 64


def _must_be(case: SignalledVm) -> bool:
    """Whether a guest's thread that nobody named is this VM's: there is no other."""
    return case.taken_from == "guest" and len(case.facts.host.vms or ()) == 1


def _distinct(signals: list[Signal]) -> Iterator[Signal]:
    """A page that one thread must act on needs no telling to another."""
    required = {signal.address for signal in signals if signal.code == ACTION_REQUIRED}
    return (signal for signal in dict.fromkeys(signals) if signal.code != "BUS_MCEERR_AO" or signal.address not in required)


def _combined(found: StageResult) -> StageResult:
    """Virtual SErrors that would be pending together for a vCPU are one, the worst of them."""
    worst: dict[int | None, tuple[int, InjectSerror]] = {}
    steps: list[Step | None] = []
    for step in found.steps:
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
    return found._replace(steps=tuple(step for step in steps if step is not None)) if worst else found


def _untold(case: SignalledVm) -> StageResult:
    """A VMM that maps the page and asks for early signals would have been told: then the task facts do not fit."""
    task = case.facts.tasks.get(case.vm.pid)
    if task is None or not case.vmm.behaviours.asks_for_early_signals:
        return EMPTY_RESULT
    if any(policy == "early" for policy in (task.mce_kill, *(thread.mce_kill for thread in task.threads))):
        return EMPTY_RESULT
    detail = f"{case.vmm.name} asks for early signals (PR_MCE_KILL_EARLY), and no thread of process {case.vm.pid} is said to"
    return StageResult(warnings=(DecisionWarning("vmm_asks_for_early_signals", detail),))
