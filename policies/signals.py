"""Stage 6: which thread gets which signal, with which address and granularity, now and at its next access."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from models.decision import Assumption, Rationale, Signal, Step
from models.host import PageState, Task, ThreadRef
from policies.catalog import Policy
from policies.facts import ASSUMED_CURRENT, ASSUMED_TASKS, Facts
from policies.finding import NOTHING, Finding, rule
from policies.memory import Handled, Place
from policies.page_states import EHWPOISON, EOPNOTSUPP
from policies.sections import Request

_NO_EXTRA_SIGNAL: Final = frozenset({0, EHWPOISON, EOPNOTSUPP})
"""Return values of memory_failure() after which the consuming thread is not killed for want of a recovery."""

_STAGE_2: Final = "KVM enters the guest again without running task work: the signal comes from the stage-2 fault on the poisoned page"


def kill_current(facts: Facts) -> Signal:
    """SIGBUS without an address, forced on the interrupted thread: it cannot go on (`force_sig`)."""
    current = facts.host.current
    return Signal(current.pid if current else None, current.tid if current else None, "SIGBUS", "SI_KERNEL", None, None, forced=True)


def assumed_current(facts: Facts) -> tuple[Assumption, ...]:
    return () if facts.host.current else (ASSUMED_CURRENT,)


def signal_memory(
    handled: tuple[Handled, ...], policy: Policy, facts: Facts, already_signalled: bool, from_guest: bool
) -> tuple[Finding, ...]:
    """One finding for each page frame, then one for the retried access.

    `already_signalled`: a forced SIGBUS is pending for the interrupted thread, so that a second one would be lost.
    """
    findings: list[Finding] = []
    pending = already_signalled
    for done in handled:
        finding, hit = _signal_page(done, policy, facts, pending)
        pending = pending or hit
        findings.append(finding)
    findings.append(NOTHING if pending else _retried_access(handled, policy, facts, from_guest))
    return tuple(findings)


def _signal_page(done: Handled, policy: Policy, facts: Facts, pending: bool) -> tuple[Finding, bool]:
    """The signals of one memory_failure() call, and whether the interrupted thread got one."""
    outcome = done.outcome
    if outcome is None or done.panics:
        return NOTHING, False
    required = done.frame.item.request is Request.ACTION_REQUIRED
    signals = _collect(done, policy, facts) if outcome.kill != "none" else []
    rationale: tuple[Rationale, ...] = ()
    if outcome.kill != "none":
        early_kill = bool(facts.sysctl.early_kill)
        rationale = (_collected(policy, required, len(signals), early_kill, outcome.kill, done.frame.page.state is PageState.DAX),)
    elif outcome.result == "recovered" and done.frame.places and not done.again:
        rationale = (_spared(policy, done.frame.page.state),)
    current = facts.host.current
    hit = current is not None and any(signal.tid == current.tid and signal.forced for signal in signals)
    if hit and pending:
        signals = [signal for signal in signals if current is None or signal.tid != current.tid]
    steps: tuple[Step, ...] = tuple(signals)
    unhandled = required and policy.behaviours.action_required_in_task_work and outcome.returns not in _NO_EXTRA_SIGNAL
    if unhandled and not hit and not pending:
        steps = (*steps, kill_current(facts))
        rationale = (*rationale, _kills_for_failure(policy, outcome.returns))
    assumed = (ASSUMED_TASKS,) if outcome.kill != "none" and facts.host.tasks is None and done.frame.places else ()
    return Finding(steps, rationale, (), assumed), hit or unhandled


def _collect(done: Handled, policy: Policy, facts: Facts) -> list[Signal]:
    """Mirrors `collect_procs` and `kill_procs`."""
    does = policy.behaviours
    required = done.frame.item.request is Request.ACTION_REQUIRED
    current = facts.host.current if required else None
    if done.frame.page.state is PageState.DAX and not does.dax_early_kill and current is None:
        return []
    signals: list[Signal] = []
    for place in done.frame.places:
        if current is not None and place.pid == current.pid:
            signals.append(_to_consumer(done, place, current, policy, facts))
        elif done.again or (required and not does.action_optional_to_others):
            continue
        elif (tid := early_kill_thread(facts.tasks.get(place.pid), place.pid, bool(facts.sysctl.early_kill))) is not None:
            signals.append(_to_bystander(done, place, tid, policy, facts))
    return signals


def _to_consumer(done: Handled, place: Place, current: ThreadRef, policy: Policy, facts: Facts) -> Signal:
    if done.outcome is not None and done.outcome.kill == "sigkill":
        return Signal(place.pid, current.tid, "SIGKILL", "SI_KERNEL", None, None, forced=True)
    address, lsb = _payload(done, place, policy, facts)
    return Signal(place.pid, current.tid, "SIGBUS", "BUS_MCEERR_AR", address, lsb, forced=True)


def _to_bystander(done: Handled, place: Place, tid: int, policy: Policy, facts: Facts) -> Signal:
    if done.outcome is not None and done.outcome.kill == "sigkill":
        return Signal(place.pid, tid, "SIGKILL", "SI_KERNEL", None, None, forced=True)
    address, lsb = _payload(done, place, policy, facts)
    return Signal(place.pid, tid, "SIGBUS", "BUS_MCEERR_AO", address, lsb, forced=False)


def _payload(done: Handled, place: Place, policy: Policy, facts: Facts) -> tuple[int | None, int]:
    """si_addr and si_addr_lsb of a signal from memory failure handling."""
    whole = done.outcome is not None and done.outcome.whole_folio
    lsb = done.frame.shift if whole else facts.page_shift
    does = policy.behaviours
    names_base_page = does.kill_accessing_names_base_page if done.again else does.hugetlb_signal_names_base_page
    starts_huge_page = done.frame.page.state is PageState.HUGETLB and not names_base_page
    if place.address is None:
        return None, lsb
    return (place.address & -(1 << done.frame.shift) if starts_huge_page else place.address), lsb


def early_kill_thread(task: Task | None, pid: int, early_kill: bool) -> int | None:
    """The first thread, leader first, that asked for action-optional signals. Mirrors `find_early_kill_thread`."""
    if task is None:
        return pid if early_kill else None
    threads = [(task.pid, task.mce_kill)] if not any(thread.tid == task.pid for thread in task.threads) else []
    threads += [(thread.tid, thread.mce_kill) for thread in task.threads]
    return next((tid for tid, mce_kill in threads if mce_kill == "early" or (mce_kill == "default" and early_kill)), None)


def _retried_access(handled: tuple[Handled, ...], policy: Policy, facts: Facts, from_guest: bool) -> Finding:
    """The interrupted access is run again and meets the poison entry that replaced the mapping. Mirrors `do_page_fault`."""
    current = facts.host.current
    if current is None:
        return NOTHING
    for done in handled:
        if done.frame.item.request is not Request.ACTION_REQUIRED or done.outcome is None or not done.outcome.late:
            continue
        for place in done.frame.places:
            if place.pid == current.pid:
                lsb = _fault_shift(done, facts)
                reasons = (_STAGE_2,) if from_guest and not policy.behaviours.kvm_runs_task_work else ()
                signal = Signal(current.pid, current.tid, "SIGBUS", "BUS_MCEERR_AR", place.address, lsb, forced=True)
                return Finding((signal,), (_retries(policy),), reasons)
    return NOTHING


def next_access(handled: tuple[Handled, ...], facts: Facts) -> tuple[Signal, ...]:
    """What a later read of the pages brings to each process that maps them."""
    later: dict[tuple[int, int | None], Signal] = {}
    for done in handled:
        poisoned_before = done.again and done.frame.page.poisoned and done.frame.item.request is not Request.SOFT_OFFLINE
        if not poisoned_before and (done.outcome is None or not done.outcome.late):
            continue
        lsb = _fault_shift(done, facts)
        for place in done.frame.places:
            signal = Signal(place.pid, place.pid, "SIGBUS", "BUS_MCEERR_AR", place.address, lsb, forced=True)
            later.setdefault((place.pid, place.address), signal)
    return tuple(later.values())


def _fault_shift(done: Handled, facts: Facts) -> int:
    return done.frame.shift if done.frame.page.state in (PageState.HUGETLB, PageState.DAX) else facts.page_shift


@lru_cache(maxsize=1024)
def _collected(policy: Policy, required: bool, count: int, early_kill: bool, kill: str, dax: bool) -> Rationale:
    flags = ("action_optional_to_others" if required else "", "dax_early_kill" if dax else "")
    return rule(
        policy,
        "signals.collect",
        f"{count} threads are signalled" if count != 1 else "1 thread is signalled",
        "collect_procs",
        *flags,
        action_required=required,
        early_kill_sysctl=early_kill,
        kill=kill,
    )


@lru_cache(maxsize=256)
def _spared(policy: Policy, state: PageState) -> Rationale:
    outcome = "nobody is signalled: the data can be had again or was not changed"
    return rule(policy, "signals.collect", outcome, "kill_procs", state=state.value)


@lru_cache(maxsize=256)
def _kills_for_failure(policy: Policy, returns: int) -> Rationale:
    outcome = "the interrupted thread is killed: the page could not be recovered"
    return rule(policy, "signals.unrecovered", outcome, "memory_failure_cb", "action_required_in_task_work", returns=returns)


@lru_cache(maxsize=256)
def _retries(policy: Policy) -> Rationale:
    return rule(policy, "signals.retry", "the interrupted access is retried and meets the poison entry", "do_page_fault")
