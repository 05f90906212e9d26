"""Stage 6: which thread gets which signal, with which address and granularity, now and at its next access."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import Assumption, Rationale, Signal, Step
from ras_triage.models.host import Page, PageState
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.guest_fault import UNKNOWN_GUEST, guest_access, guest_memory, meets_poison
from ras_triage.policies.pipeline.facts import ASSUMED_CURRENT, ASSUMED_TASKS, Consumer, Facts
from ras_triage.policies.pipeline.memory import Frame, HandledFrame, MappedAddress, frame_of, poison_stays
from ras_triage.policies.pipeline.page_states import EHWPOISON, EOPNOTSUPP, PageOutcome
from ras_triage.policies.pipeline.sections import MemoryFailureRequest, QueuedFrame
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, rule

_NO_EXTRA_SIGNAL: Final = frozenset({0, EHWPOISON, EOPNOTSUPP})
"""Return values of memory_failure() after which the consuming thread is not killed for want of a recovery."""

_RACE: Final = (
    "a kernel worker and the interrupted thread race for the queued page: the worker's own signals to early-kill threads may come first, "
    "and the address may be that of the page or of the access"
)
_STAGE_2: Final = (
    "KVM enters the guest again without running task work: the signal comes from the stage-2 fault on the poisoned page, and from the "
    "queued work only where the thread happens to return to user space first"
)


def kill_current(facts: Facts) -> Signal:
    """SIGBUS without an address, forced on the interrupted thread: it cannot go on (`force_sig`)."""
    return Signal(*facts.consumer, "SIGBUS", "SI_KERNEL", None, None, forced=True)


def assumed_current(facts: Facts) -> tuple[Assumption, ...]:
    return () if facts.host.current else (ASSUMED_CURRENT,)


def signal_memory(
    handled: list[HandledFrame], policy: Policy, facts: Facts, already_signalled: bool, consumes: bool, from_guest: bool
) -> list[StageResult]:
    """What handling each page frame came to, each with its signals, then what the retried access brings.

    `already_signalled`: a forced SIGBUS is pending for the interrupted thread, so that a second one would be lost.
    `consumes`: an abort interrupted a user thread or a guest, which will retry its access.
    """
    stage_results: list[StageResult] = []
    pending = already_signalled
    in_context = not from_guest or policy.behaviours.kvm_runs_task_work
    for done in handled:
        stage_result, pending = _signal_page(done, policy, facts, pending, in_context)
        stage_results += (done.stage_result, stage_result)
    if consumes and not pending and not handled[-1].panics:
        stage_results.append(_retried_access(handled, policy, facts, from_guest))
    return stage_results


Role = Literal["consumer", "early_kill", "other"]


class _Shot(NamedTuple):
    """A signal but for its target."""

    signal: Literal["SIGBUS", "SIGKILL"]
    code: Literal["BUS_MCEERR_AR", "BUS_MCEERR_AO", "SI_KERNEL"]
    forced: bool


_ACTION_REQUIRED: Final = _Shot("SIGBUS", "BUS_MCEERR_AR", True)
_ACTION_OPTIONAL: Final = _Shot("SIGBUS", "BUS_MCEERR_AO", False)
_KILL: Final = _Shot("SIGKILL", "SI_KERNEL", True)


class _Aim(NamedTuple):
    """Who is signalled for a page."""

    consumer: _Shot | None
    """What the process that consumed the error gets."""
    early_kill: _Shot | None
    """What each process gets that asked for action-optional signals."""
    killed: bool
    """Whether the interrupted thread is killed because the page could not be recovered."""
    hits: bool
    """Whether a forced signal is pending for the interrupted thread from now on."""
    races: bool
    """Whether a kernel worker may come before the interrupted thread and signal otherwise."""
    rationale: tuple[Rationale, ...]


def _signal_page(done: HandledFrame, policy: Policy, facts: Facts, pending: bool, in_context: bool) -> tuple[StageResult, bool]:
    """The signals of one memory_failure() call, and whether the interrupted thread got one.

    `in_context`: the interrupted thread comes to run the call itself; a kernel worker alone would find no consumer.
    """
    outcome = done.outcome
    if outcome is None or done.panics:
        return EMPTY_RESULT, pending
    frame, early_kill = done.frame, facts.early_kill
    required = frame.item.request is MemoryFailureRequest.ACTION_REQUIRED
    consumer = facts.consumer if required and in_context else None
    places = frame.places if outcome.kill != "none" else ()
    targets: list[tuple[MappedAddress, Role, int | None]] = []
    maps, early = False, 0
    for place in places:
        role, tid = _target(place, consumer, facts)
        targets.append((place, role, tid))
        if role == "consumer":
            maps = True
        elif role == "early_kill":
            early += 1
    aim = _aim(policy, outcome, required, bool(places), maps, early, done.again, early_kill, pending)
    steps: list[Step] = []
    for place, role, tid in targets:
        shot = aim.consumer if role == "consumer" else aim.early_kill if role == "early_kill" else None
        if shot is not None:
            steps.append(_signal(shot, done, outcome, place, tid, policy, facts))
    if aim.killed:
        steps.append(kill_current(facts))
    assumed = (ASSUMED_TASKS,) if places and facts.host.tasks is None else ()
    reasons = (_RACE,) if aim.races and (not pending or _may_be_told_first(policy, facts)) else ()
    return StageResult(tuple(steps), aim.rationale, reasons, assumed, ()), aim.hits


def _may_be_told_first(policy: Policy, facts: Facts) -> bool:
    """Whether a kernel worker would tell the consumer's own process, which it sees as any other."""
    pid = facts.consumer.pid
    if pid is None or not policy.behaviours.action_optional_to_others:
        return False
    return facts.early_kill_thread(pid) is not None


def _target(place: MappedAddress, consumer: Consumer | None, facts: Facts) -> tuple[Role, int | None]:
    """Which thread of a process would be signalled. Mirrors `task_early_kill`."""
    if consumer is not None and place.pid == consumer.pid:
        return "consumer", consumer.tid
    if place.pid is None:
        return "other", None
    tid = facts.early_kill_thread(place.pid)
    return ("other", place.pid) if tid is None else ("early_kill", tid)


@lru_cache(maxsize=1024)
def _aim(
    policy: Policy, outcome: PageOutcome, required: bool, mapped: bool, maps: bool, early: int, again: bool, early_kill: bool, pending: bool
) -> _Aim:
    """Mirrors `collect_procs`, `kill_procs` and `memory_failure_cb`.

    `mapped`: processes map the page; `maps`: the one that consumed the error is among them; `early`: so many of the others asked for
    action-optional signals.
    """
    does = policy.behaviours
    fatal = outcome.kill == "sigkill"
    collects = outcome.kill != "none" and (does.dax_early_kill or not outcome.needs_consumer or maps)
    tells_others = collects and not again and (not required or does.action_optional_to_others)
    consumed = collects and maps
    unrecovered = required and does.action_required_in_task_work and outcome.returns not in _NO_EXTRA_SIGNAL and not (consumed or pending)
    count = (consumed and not pending) + (tells_others and early)
    rationale = [_collected(policy, required, count, early_kill, outcome)] if mapped else []
    if outcome.kill == "none" and outcome.result == "recovered" and not again:
        rationale.append(rule(policy, "signals.collect", "nobody is signalled: nothing that a process needs is lost", "kill_procs"))
    if unrecovered:
        words = "the interrupted thread is killed: the page could not be recovered"
        rationale.append(
            rule(policy, "signals.unrecovered", words, "memory_failure_cb", "action_required_in_task_work", returns=outcome.returns)
        )
    return _Aim(
        consumer=(_KILL if fatal else _ACTION_REQUIRED) if consumed and not pending else None,
        early_kill=(_KILL if fatal else _ACTION_OPTIONAL) if tells_others else None,
        killed=unrecovered,
        hits=pending or consumed or unrecovered,
        races=consumed and not again and not does.action_required_in_task_work,
        rationale=tuple(rationale),
    )


def _collected(policy: Policy, required: bool, count: int, early_kill: bool, outcome: PageOutcome) -> Rationale:
    flags = ("action_optional_to_others" if required else "", "dax_early_kill" if outcome.needs_consumer else "")
    words = "1 thread is signalled" if count == 1 else f"{count} threads are signalled"
    return rule(policy, "signals.collect", words, "collect_procs", *flags, action_required=required, early_kill_sysctl=early_kill)


def _signal(
    shot: _Shot, done: HandledFrame, outcome: PageOutcome, place: MappedAddress, tid: int | None, policy: Policy, facts: Facts
) -> Signal:
    if shot is _KILL:
        return Signal(place.pid, tid, "SIGKILL", "SI_KERNEL", None, None, True)
    address, lsb = place.address, facts.page_shift
    if outcome.whole_folio:
        address, lsb = _folio_address(done, place, policy), done.frame.shift
    return Signal(place.pid, tid, shot.signal, shot.code, address, lsb, shot.forced)


def _folio_address(done: HandledFrame, place: MappedAddress, policy: Policy) -> int | None:
    """Kernels differ in whether a hugetlb signal names the failing base page or the start of the huge page."""
    does = policy.behaviours
    names_base_page = does.kill_accessing_names_base_page if done.again else does.hugetlb_signal_names_base_page
    if place.address is None or done.frame.page.state is not PageState.HUGETLB or names_base_page:
        return place.address
    return place.address & -(1 << done.frame.shift)


def _retried_access(handled: list[HandledFrame], policy: Policy, facts: Facts, from_guest: bool) -> StageResult:
    """The interrupted access is run again and meets the poison that replaced the mapping: its own, or the guest's at stage 2.

    Mirrors `do_page_fault`, `user_mem_abort`.
    """
    consumer = facts.consumer
    for done in handled:
        if done.outcome is None or not done.outcome.late:
            continue
        for place in done.frame.places:
            if place.pid != consumer.pid:
                continue
            if from_guest and not policy.behaviours.guest_access_signals_alike:
                reasons = () if policy.behaviours.kvm_runs_task_work else (_STAGE_2,)
                memory = guest_memory(place, facts) or UNKNOWN_GUEST
                return StageResult((guest_access(done.frame, place, consumer.tid, memory, facts),), (meets_poison(policy),), reasons)
            signal = Signal(*consumer, "SIGBUS", "BUS_MCEERR_AR", place.address, _fault_shift(done.frame, facts), forced=True)
            return StageResult((signal,), (_retries(policy),))
    return EMPTY_RESULT


def next_access(handled: list[HandledFrame], policy: Policy, facts: Facts) -> tuple[Signal, ...]:
    """What a later read of the pages brings to each process that maps them; where a guest is in them, what the guest's brings.

    Pages poisoned before this event count too.
    """
    met = [done.frame for done in handled if _is_met_later(done, policy, facts)]
    seen: set[int] = set()
    for page in facts.host.pages or ():
        if page.poisoned:
            seen = seen or {id(frame.page) for frame in met}
            if id(page) not in seen:
                met += _still_met(page, policy, facts)
                seen.add(id(page))
    if not met:
        return ()
    at_stage_2 = bool(facts.host.vms) and not policy.behaviours.guest_access_signals_alike
    later: dict[MappedAddress, Signal] = {}
    for frame in met:
        for place in frame.places:
            if place not in later:
                later[place] = _access(frame, place, facts, at_stage_2)
    return tuple(later.values())


def _is_met_later(done: HandledFrame, policy: Policy, facts: Facts) -> bool:
    if done.again and done.frame.page.poisoned:
        return poison_stays(done.frame, policy, facts)
    return done.outcome is not None and done.outcome.late


def _still_met(page: Page, policy: Policy, facts: Facts) -> list[Frame]:
    """The frame of a page that was poisoned before, where its poison still stands in for it."""
    frame = frame_of(QueuedFrame(page.physical_address, MemoryFailureRequest.ACTION_OPTIONAL, page), page, facts)
    return [frame] if poison_stays(frame, policy, facts) else []


def _access(frame: Frame, place: MappedAddress, facts: Facts, at_stage_2: bool) -> Signal:
    memory = guest_memory(place, facts) if at_stage_2 else None
    if memory is not None and memory.vm is not None:
        return guest_access(frame, place, facts.vcpu_thread(memory.vm), memory, facts)
    return Signal(place.pid, place.pid, "SIGBUS", "BUS_MCEERR_AR", place.address, _fault_shift(frame, facts), True)


def _fault_shift(frame: Frame, facts: Facts) -> int:
    return frame.shift if frame.page.state in (PageState.HUGETLB, PageState.DAX) else facts.page_shift


@lru_cache(maxsize=256)
def _retries(policy: Policy) -> Rationale:
    return rule(policy, "signals.retry", "the interrupted access is retried and meets the poison entry", "do_page_fault")
