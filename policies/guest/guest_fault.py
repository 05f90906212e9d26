"""Signal to a VMM when its guest accesses a poisoned page (stage 2 fault in KVM)."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from ras_triage.models.decision import Rationale, Signal
from ras_triage.models.host import PageState, Vm
from ras_triage.models.memslots import Memslot, untag_address
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.memory import Frame, MappedAddress
from ras_triage.policies.pipeline.stage_result import rule


class GuestMemory(NamedTuple):
    """The guest and memory slot of an address in a VMM."""

    vm: Vm | None
    slot: Memslot | None
    """None where the slots are not known."""


UNKNOWN_GUEST: Final = GuestMemory(None, None)


def guest_memory(mapping: MappedAddress, facts: Facts) -> GuestMemory | None:
    """Return the guest that a mapping belongs to, or None. Without known slots a VM's memory is its whole process."""
    vm = facts.vm_of(mapping.pid)
    if vm is None:
        return None
    address = mapping.address
    if not vm.memslots or address is None:
        return GuestMemory(vm, None)
    position = vm.memslots.first_containing(untag_address(address))
    return None if position is None else GuestMemory(vm, vm.memslots[position])


def guest_access(frame: Frame, mapping: MappedAddress, tid: int | None, memory: GuestMemory, facts: Facts) -> Signal:
    """Return KVM's signal to the vCPU thread `tid`, which may block or ignore it. Mirrors `kvm_send_hwpoison_signal`."""
    return Signal(mapping.pid, tid, "SIGBUS", "BUS_MCEERR_AR", mapping.address, _shift(frame, mapping, memory.slot, facts), forced=False)


def _shift(frame: Frame, mapping: MappedAddress, slot: Memslot | None, facts: Facts) -> int:
    """Return log2 of the bytes that KVM would map: a block only for hugetlb, outside dirty-logged slots. Mirrors `user_mem_abort`."""
    if frame.page.state is not PageState.HUGETLB or (slot is not None and _logs(slot)):
        return facts.page_shift
    blocks = (shift for shift in (facts.pud_shift, facts.pmd_shift) if shift <= frame.shift)
    return next((shift for shift in blocks if slot is None or _fits(slot, mapping.address, shift)), facts.page_shift)


def _logs(slot: Memslot) -> bool:
    return "log_dirty_pages" in slot.flags and "readonly" not in slot.flags


def _fits(slot: Memslot, address: int | None, shift: int) -> bool:
    """Return whether the aligned block of 2^shift bytes around an address lies in the slot and is aligned in both address spaces.

    Mirrors `fault_supports_stage2_huge_mapping`.
    """
    if address is None:
        return True
    start, size = slot.userspace_addr, 1 << shift
    block = address & -size
    return (start ^ slot.guest_phys_addr) % size == 0 and start <= block and block + size <= start + slot.memory_size


@lru_cache(maxsize=256)
def guest_access_rule(policy: Policy) -> Rationale:
    """Return the rationale of `guest_access`."""
    outcome = "the guest's access is retried and faults at stage 2: SIGBUS from KVM, not forced"
    return rule(policy, "signals.stage_2", outcome, "kvm_send_hwpoison_signal", "kvm_runs_task_work")
