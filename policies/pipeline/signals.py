"""Stage 6: signals to threads, now and at their next access."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import Assumption, Rationale, Signal, Step
from ras_triage.models.host import Page, PageState
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.guest_fault import UNKNOWN_GUEST, guest_access, guest_access_rule, guest_memory
from ras_triage.policies.pipeline.facts import ASSUMED_CURRENT, ASSUMED_TASKS, Consumer, Facts
from ras_triage.policies.pipeline.memory import Frame, HandledFrame, MappedAddress, frame_of, poison_stays
from ras_triage.policies.pipeline.page_states import EHWPOISON, EOPNOTSUPP, PageOutcome
from ras_triage.policies.pipeline.sections import MemoryFailureRequest, QueuedFrame
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, rule

_NO_EXTRA_SIGNAL: Final = frozenset({0, EHWPOISON, EOPNOTSUPP})
"""Return values of memory_failure() after which the consuming thread is not killed for a failed recovery."""

_RACE: Final = (
    "race between a kernel worker and the interrupted thread: the worker's signals to early-kill threads may come first, "
    "and the SIGBUS may have the address of the page or of the access"
)
_SAME_THREAD: Final = (
    "a thread gets one action-optional SIGBUS for each mapping of the page; one that is sent while an earlier one is pending is lost"
)
_STAGE_2: Final = (
    "KVM enters the guest again without running task work: the signal comes from the stage 2 fault on the poisoned page, or from the "
    "queued work if the thread returns to user space first"
)


def kill_current(facts: Facts) -> Signal:
    """Return a forced SIGBUS without an address for the interrupted thread. Mirrors `force_sig`."""
    return Signal(*facts.consumer, "SIGBUS", "SI_KERNEL", address=None, lsb=None, forced=True)


def assumed_current(facts: Facts) -> tuple[Assumption, ...]:
    """Return the assumption about the interrupted thread, where the event does not name it."""
    return () if facts.host.current else (ASSUMED_CURRENT,)


def signal_memory(
    handled: list[HandledFrame], policy: Policy, facts: Facts, *, already_signalled: bool, has_consumer: bool, from_guest: bool
) -> list[StageResult]:
    """Return each page frame's result with its signals, then the signal of the retried access.

    `already_signalled`: a forced SIGBUS is pending for the interrupted thread, so that a second one would be lost.
    `consumes`: an abort interrupted a user thread or a guest, which will retry its access.
    """
    stage_results: list[StageResult] = []
    pending = already_signalled
    in_context = not from_guest or policy.behaviours.kvm_runs_task_work
    for done in handled:
        stage_result, pending = _signal_page(done, policy, facts, pending=pending, in_context=in_context)
        stage_results += (done.stage_result, stage_result)
    if has_consumer and not pending and not handled[-1].panics:
        stage_results.append(_retried_access(handled, policy, facts, from_guest=from_guest))
    return stage_results


Role = Literal["consumer", "early_kill", "other"]


class _SignalKind(NamedTuple):
    """A signal without its recipient."""

    signal: Literal["SIGBUS", "SIGKILL"]
    code: Literal["BUS_MCEERR_AR", "BUS_MCEERR_AO", "SI_KERNEL"]
    forced: bool


_ACTION_REQUIRED: Final = _SignalKind("SIGBUS", "BUS_MCEERR_AR", forced=True)
_ACTION_OPTIONAL: Final = _SignalKind("SIGBUS", "BUS_MCEERR_AO", forced=False)
_KILL: Final = _SignalKind("SIGKILL", "SI_KERNEL", forced=True)


class _Recipients(NamedTuple):
    """The recipients of a page's signals."""

    consumer: _SignalKind | None
    """Signal to the process that consumed the error."""
    early_kill: _SignalKind | None
    """Signal to each thread that requested action-optional signals, for each mapping."""
    killed: bool
    """Whether the interrupted thread is killed because the page could not be recovered."""
    signals_current: bool
    """Whether a forced signal is pending for the interrupted thread from now on."""
    races: bool
    """Whether a kernel worker may run before the interrupted thread and send other signals."""
    rationale: tuple[Rationale, ...]


def _signal_page(done: HandledFrame, policy: Policy, facts: Facts, *, pending: bool, in_context: bool) -> tuple[StageResult, bool]:
    """Return the signals of one memory_failure() call, and whether the interrupted thread has one pending.

    `in_context`: the interrupted thread runs the call itself; a kernel worker would find no consumer.
    """
    outcome = done.outcome
    if outcome is None or done.panics:
        return EMPTY_RESULT, pending
    frame, early_kill = done.frame, facts.early_kill
    required = frame.item.request is MemoryFailureRequest.ACTION_REQUIRED
    consumer = facts.consumer if required and in_context else None
    mappings = _searched_mappings(done, outcome) if outcome.kill != "none" else ()
    targets: list[tuple[MappedAddress, Role, int | None]] = []
    early_kill_tids: list[int | None] = []
    maps = False
    for mapping in mappings:
        role, tid = _target(mapping, consumer, facts)
        if role == "consumer":
            if maps:  # the second SIGBUS would find the first still pending
                continue
            maps = True
        elif role == "early_kill":
            early_kill_tids.append(tid)
        targets.append((mapping, role, tid))
    early = len(set(early_kill_tids))
    recipients = _recipients(policy, outcome, required, bool(mappings), maps, early, done.was_poisoned, early_kill, pending)
    steps: list[Step] = []
    for mapping, role, tid in targets:
        kind = recipients.consumer if role == "consumer" else recipients.early_kill if role == "early_kill" else None
        if kind is not None:
            steps.append(_signal(kind, done, outcome, mapping, tid, policy, facts))
    if recipients.killed:
        steps.append(kill_current(facts))
    assumed = (ASSUMED_TASKS,) if mappings and facts.host.tasks is None else ()
    reasons = (_RACE,) if recipients.races and (not pending or _worker_may_signal_first(policy, facts)) else ()
    if early < len(early_kill_tids) and recipients.early_kill is _ACTION_OPTIONAL:
        reasons = (*reasons, _SAME_THREAD)
    return StageResult(tuple(steps), recipients.rationale, reasons, assumed, ()), recipients.signals_current


def _searched_mappings(done: HandledFrame, outcome: PageOutcome) -> tuple[MappedAddress, ...]:
    """Return the mappings for which a signal may be sent, in order.

    One signal for each mapping (`collect_procs`), but one for each process of a KSM page (`add_to_kill_ksm`), and a process is killed only
    once. The process that consumed a page poisoned before is found by walking its page tables upwards (`kill_accessing_process`).
    """
    mappings = done.frame.mappings
    if len(mappings) < 2:
        return mappings
    if done.was_poisoned:
        mappings = tuple(sorted(mappings, key=lambda mapping: mapping.address or 0))
    elif outcome.kill != "sigkill" and done.frame.page.state is not PageState.KSM:
        return mappings
    first: dict[int | None, MappedAddress] = {}
    for mapping in mappings:
        first.setdefault(mapping.pid, mapping)
    return tuple(first.values())


def _worker_may_signal_first(policy: Policy, facts: Facts) -> bool:
    """Return whether a kernel worker would signal the consumer's own process, which it treats like any other."""
    pid = facts.consumer.pid
    if pid is None or not policy.behaviours.action_optional_to_others:
        return False
    return facts.early_kill_thread(pid) is not None


def _target(mapping: MappedAddress, consumer: Consumer | None, facts: Facts) -> tuple[Role, int | None]:
    """Return the role of a process and the thread to signal. Mirrors `task_early_kill`."""
    if consumer is not None and mapping.pid == consumer.pid:
        return "consumer", consumer.tid
    if mapping.pid is None:
        return "other", None
    tid = facts.early_kill_thread(mapping.pid)
    return ("other", mapping.pid) if tid is None else ("early_kill", tid)


@lru_cache(maxsize=1024)
def _recipients(
    policy: Policy,
    outcome: PageOutcome,
    required: bool,
    mapped: bool,
    maps: bool,
    early: int,
    was_poisoned: bool,
    early_kill: bool,
    pending: bool,
) -> _Recipients:
    """Return the recipients of a page's signals. Mirrors `collect_procs`, `kill_procs` and `memory_failure_cb`.

    `mapped`: processes map the page; `maps`: the one that consumed the error is among them; `early`: number of other threads that
    requested action-optional signals; `pending`: the interrupted thread has a forced SIGBUS pending.
    """
    does = policy.behaviours
    fatal = outcome.kill == "sigkill"
    collects = outcome.kill != "none" and (does.dax_early_kill or not outcome.needs_consumer or maps)
    tells_others = collects and not was_poisoned and (not required or does.action_optional_to_others)
    consumed = collects and maps
    unrecovered = required and does.action_required_in_task_work and outcome.returns not in _NO_EXTRA_SIGNAL and not (consumed or pending)
    count = (consumed and not pending) + (tells_others and early)
    rationale = [_collected(policy, outcome, count, required=required, early_kill=early_kill)] if mapped else []
    if outcome.kill == "none" and outcome.result == "recovered" and not was_poisoned:
        rationale.append(_nobody_found(policy) if outcome.unmapped_by_split else _nobody_loses_data(policy))
    if unrecovered:
        words = "SIGBUS for the interrupted thread: the page could not be recovered"
        rationale.append(
            rule(policy, "signals.unrecovered", words, "memory_failure_cb", "action_required_in_task_work", returns=outcome.returns)
        )
    return _Recipients(
        consumer=(_KILL if fatal else _ACTION_REQUIRED) if consumed and not pending else None,
        early_kill=(_KILL if fatal else _ACTION_OPTIONAL) if tells_others else None,
        killed=unrecovered,
        signals_current=pending or consumed or unrecovered,
        races=consumed and not was_poisoned and not does.action_required_in_task_work,
        rationale=tuple(rationale),
    )


@lru_cache(maxsize=256)
def _nobody_loses_data(policy: Policy) -> Rationale:
    return rule(policy, "signals.collect", "no signal: no process loses data", "kill_procs")


@lru_cache(maxsize=256)
def _nobody_found(policy: Policy) -> Rationale:
    return rule(policy, "signals.collect", "no signal: splitting the huge page of a file unmapped it", "unmap_folio", "file_thp_handled")


def _collected(policy: Policy, outcome: PageOutcome, count: int, *, required: bool, early_kill: bool) -> Rationale:
    flags = ("action_optional_to_others" if required else "", "dax_early_kill" if outcome.needs_consumer else "")
    words = "1 thread signalled" if count == 1 else f"{count} threads signalled"
    return rule(policy, "signals.collect", words, "collect_procs", *flags, action_required=required, early_kill_sysctl=early_kill)


def _signal(
    kind: _SignalKind, done: HandledFrame, outcome: PageOutcome, mapping: MappedAddress, tid: int | None, policy: Policy, facts: Facts
) -> Signal:
    if kind is _KILL:
        return Signal(mapping.pid, tid, "SIGKILL", "SI_KERNEL", address=None, lsb=None, forced=True)
    address, lsb = mapping.address, facts.page_shift
    if outcome.whole_folio:
        address, lsb = _folio_address(done, mapping, policy), done.frame.shift
    return Signal(mapping.pid, tid, kind.signal, kind.code, address, lsb, kind.forced)


def _folio_address(done: HandledFrame, mapping: MappedAddress, policy: Policy) -> int | None:
    """Return a signal's address. Kernels differ in whether a hugetlb signal has the failing base page or the start of the huge page."""
    does = policy.behaviours
    names_base_page = does.kill_accessing_names_base_page if done.was_poisoned else does.hugetlb_signal_names_base_page
    if mapping.address is None or done.frame.page.state is not PageState.HUGETLB or names_base_page:
        return mapping.address
    return mapping.address & -(1 << done.frame.shift)


def _retried_access(handled: list[HandledFrame], policy: Policy, facts: Facts, *, from_guest: bool) -> StageResult:
    """Return the signal of the retried access, which faults on the poison entry: its own, or the guest's at stage 2.

    Mirrors `do_page_fault` and `user_mem_abort`.
    """
    consumer = facts.consumer
    for done in handled:
        if done.outcome is None or not done.outcome.leaves_poison_entry:
            continue
        for mapping in done.frame.mappings:
            if mapping.pid != consumer.pid:
                continue
            if from_guest and not policy.behaviours.guest_access_signals_alike:
                reasons = () if policy.behaviours.kvm_runs_task_work else (_STAGE_2,)
                memory = guest_memory(mapping, facts) or UNKNOWN_GUEST
                return StageResult((guest_access(done.frame, mapping, consumer.tid, memory, facts),), (guest_access_rule(policy),), reasons)
            signal = Signal(*consumer, "SIGBUS", "BUS_MCEERR_AR", mapping.address, _fault_shift(done.frame, facts), forced=True)
            return StageResult((signal,), (_retries(policy),))
    return EMPTY_RESULT


def next_access(handled: list[HandledFrame], policy: Policy, facts: Facts) -> tuple[Signal, ...]:
    """Return the signal of the next read through each mapping of the poisoned pages, or of the guest's read where a guest has the page.

    Pages poisoned before this event count too.
    """
    poisoned = [done.frame for done in handled if _leaves_poison(done, policy, facts)]
    seen: set[int] = set()
    for page in facts.host.pages or ():
        if page.poisoned:
            seen = seen or {id(frame.page) for frame in poisoned}
            if id(page) not in seen:
                poisoned += _earlier_frame(page, policy, facts)
                seen.add(id(page))
    if not poisoned:
        return ()
    at_stage_2 = bool(facts.host.vms) and not policy.behaviours.guest_access_signals_alike
    later: dict[MappedAddress, Signal] = {}
    for frame in poisoned:
        for mapping in frame.mappings:
            if mapping not in later:
                later[mapping] = _access(frame, mapping, facts, at_stage_2)
    return tuple(later.values())


def _leaves_poison(done: HandledFrame, policy: Policy, facts: Facts) -> bool:
    if done.was_poisoned and done.frame.page.poisoned:
        return poison_stays(done.frame, policy, facts)
    return done.outcome is not None and done.outcome.leaves_poison_entry


def _earlier_frame(page: Page, policy: Policy, facts: Facts) -> list[Frame]:
    """Return the frame of an earlier poisoned page, where mappings still lead to the poison."""
    frame = frame_of(QueuedFrame(page.physical_address, MemoryFailureRequest.ACTION_OPTIONAL, page), page, facts)
    return [frame] if poison_stays(frame, policy, facts) else []


def _access(frame: Frame, mapping: MappedAddress, facts: Facts, at_stage_2: bool) -> Signal:
    memory = guest_memory(mapping, facts) if at_stage_2 else None
    if memory is not None and memory.vm is not None:
        return guest_access(frame, mapping, facts.vcpu_thread(memory.vm), memory, facts)
    return Signal(mapping.pid, mapping.pid, "SIGBUS", "BUS_MCEERR_AR", mapping.address, _fault_shift(frame, facts), forced=True)


def _fault_shift(frame: Frame, facts: Facts) -> int:
    return frame.shift if frame.page.state in (PageState.HUGETLB, PageState.DAX) else facts.page_shift


@lru_cache(maxsize=256)
def _retries(policy: Policy) -> Rationale:
    return rule(policy, "signals.retry", "the interrupted access is retried and faults on the poison entry", "do_page_fault")
