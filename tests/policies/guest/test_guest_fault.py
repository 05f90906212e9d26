"""Signal to a VMM whose guest accesses a poisoned page."""

from __future__ import annotations

from typing import Any

import pytest

from ras_triage.models.decision import Signal
from tests.policies.events import ALL, AR, L61, L73, L510, L612, OTHER, PID, TID, VA, block, decided, host, later, memory, page, sea, steps

VM = {"id": "vm-1", "pid": PID, "vcpus": [{"index": 0, "tid": 110}, {"index": 1, "tid": TID}]}
PLAIN = block(memory())
MIB2, GIB1 = 21, 30


def slot(start: int, size: int, guest: int = 0x4000_0000, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"slot": 0, "guest_phys_addr": guest, "memory_size": size, "userspace_addr": start, "flags": flags}


def touched(page_fact: dict[str, Any], *slots: dict[str, Any], policy: str = L73, **facts: Any) -> tuple[Any, ...]:
    """What the guest's next access brings."""
    decision = decided(policy, "gpio", PLAIN, host(page_fact, **({"vms": [{**VM, "memslots": slots}]} | facts)))
    (signalled,) = later(decision)
    (step,) = (step for step in decision.next_access if isinstance(step, Signal))
    return *signalled, step.forced


@pytest.mark.parametrize("policy", ALL)
def test_a_guest_that_touches_a_poisoned_page_brings_its_vcpu_thread_a_signal_that_is_not_forced(policy: str) -> None:
    assert touched(page(dirty=True), policy=policy) == (TID, AR, VA, 12, False)
    assert touched(page(dirty=True, poisoned=True), policy=policy) == (TID, AR, VA, 12, False)


def test_the_first_vcpu_stands_for_all_where_none_was_running() -> None:
    assert touched(page(dirty=True), current=None)[0] == 110
    assert touched(page(dirty=True), vms=[{"id": "vm-1", "pid": PID}])[0] == PID


def test_a_vmm_that_touches_memory_of_its_own_is_a_process_like_any_other() -> None:
    elsewhere = slot(0x7000_0000_0000, 1 << 30)
    assert touched(page(dirty=True), elsewhere) == (PID, AR, VA, 12, True)


def test_a_process_that_shares_a_guests_memory_is_signalled_as_a_process() -> None:
    decision = decided(L73, "gpio", PLAIN, host(page("anonymous", PID, OTHER, dirty=True), vms=[VM]))
    assert [(step.tid, step.forced) for step in decision.next_access if isinstance(step, Signal)] == [(TID, False), (OTHER, True)]


@pytest.mark.parametrize(
    ("state", "shift", "start", "size", "guest", "flags", "expected"),
    [
        ("hugetlb", MIB2, 0, 1 << 30, 0, (), MIB2),
        ("hugetlb", GIB1, 0, 1 << 30, 0, (), GIB1),
        ("hugetlb", 25, 0, 1 << 30, 0, (), MIB2),
        ("hugetlb", 16, 0, 1 << 30, 0, (), 12),
        ("thp", MIB2, 0, 1 << 30, 0, (), 12),
        ("hugetlb", MIB2, 0, 1 << 30, 0, ("log_dirty_pages",), 12),
        ("hugetlb", MIB2, 0, 1 << 30, 0, ("log_dirty_pages", "readonly"), MIB2),
        ("hugetlb", MIB2, 0, 1 << 30, 0x1000, (), 12),
        ("hugetlb", GIB1, 0, 1 << 30, 1 << 21, (), MIB2),
        ("hugetlb", GIB1, 0, (1 << 30) - (1 << 21), 0, (), MIB2),
        ("hugetlb", MIB2, (VA & ((1 << 30) - 1)) & -(1 << 21) | 0x1000, 1 << 29, 0x1000, (), 12),
    ],
)
def test_a_guest_access_loses_what_kvm_would_map_at_once(
    state: str, shift: int, start: int, size: int, guest: int, flags: tuple[str, ...], expected: int
) -> None:
    base = VA & -(1 << GIB1)
    given_slot = slot(base + start, size, 0x4000_0000 + guest, flags)
    assert touched(page(state, shift=shift, dirty=True, poisoned=True), given_slot)[3] == expected


@pytest.mark.parametrize(("policy", "forced"), [(L510, False), (L61, True), (L612, True), (L73, True)])
def test_the_signal_of_a_claimed_guest_abort_is_forced_where_the_interrupted_thread_runs_the_work(policy: str, forced: bool) -> None:
    (step,) = steps(decided(policy, sea(taken_from="guest"), PLAIN), Signal)
    assert (step.tid, step.code, step.address, step.lsb, step.forced) == (TID, AR, VA, 12, forced)


def test_an_early_kill_vmm_is_not_told_twice_of_an_abort_that_a_worker_handles() -> None:
    (step,) = steps(decided(L510, sea(taken_from="guest"), PLAIN, host(early=1)), Signal)
    assert step.code == AR
