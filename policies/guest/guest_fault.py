"""What a guest's access to a poisoned page brings its VMM: KVM meets the poison when it maps the page at stage 2."""

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
    """A place in a VMM that its guest accesses."""

    vm: Vm | None
    slot: Memslot | None
    """The memory slot that it is in; None where slots are not known."""


UNKNOWN_GUEST: Final = GuestMemory(None, None)


def guest_memory(place: MappedAddress, facts: Facts) -> GuestMemory | None:
    """The guest that accesses a place; None where it is no guest's memory. A VM without known slots has all of its process."""
    vm = facts.vm_of(place.pid)
    if vm is None:
        return None
    address = place.address
    if not vm.memslots or address is None:
        return GuestMemory(vm, None)
    position = vm.memslots.first_containing(untag_address(address))
    return None if position is None else GuestMemory(vm, vm.memslots[position])


def guest_access(frame: Frame, place: MappedAddress, tid: int | None, memory: GuestMemory, facts: Facts) -> Signal:
    """KVM's signal to the vCPU thread `tid`, which may block or ignore it. Mirrors `kvm_send_hwpoison_signal`."""
    return Signal(place.pid, tid, "SIGBUS", "BUS_MCEERR_AR", place.address, _shift(frame, place, memory.slot, facts), forced=False)


def _shift(frame: Frame, place: MappedAddress, slot: Memslot | None, facts: Facts) -> int:
    """log2 of the bytes that KVM would map at once: only hugetlb counts, and no dirty-logged slot. Mirrors `user_mem_abort`."""
    if frame.page.state is not PageState.HUGETLB or (slot is not None and _logs(slot)):
        return facts.page_shift
    blocks = (shift for shift in (facts.pud_shift, facts.pmd_shift) if shift <= frame.shift)
    return next((shift for shift in blocks if slot is None or _fits(slot, place.address, shift)), facts.page_shift)


def _logs(slot: Memslot) -> bool:
    return "log_dirty_pages" in slot.flags and "readonly" not in slot.flags


def _fits(slot: Memslot, address: int | None, shift: int) -> bool:
    """Whether a block of 2^shift bytes around an address lies within the slot, alike on both sides.

    Mirrors `fault_supports_stage2_huge_mapping`.
    """
    if address is None:
        return True
    start, size = slot.userspace_addr, 1 << shift
    block = address & -size
    return (start ^ slot.guest_phys_addr) % size == 0 and start <= block and block + size <= start + slot.memory_size


@lru_cache(maxsize=256)
def meets_poison(policy: Policy) -> Rationale:
    """The rule behind `guest_access`."""
    outcome = "the guest's access is retried and meets the poison at stage 2: a signal that is not forced"
    return rule(policy, "signals.stage_2", outcome, "kvm_send_hwpoison_signal", "kvm_runs_task_work")
