"""From a signal's host virtual address to guest physical memory, over every slot and address space."""

from __future__ import annotations

from collections.abc import Iterator

from ras_triage.models.decision import DecisionWarning, GuestRange, Hole, Translate
from ras_triage.models.host import Vm
from ras_triage.models.memslots import Memslot, untag_address

_CAUTIONS = {
    "readonly": ("readonly_slot", "is read-only: the guest cannot repair what it holds by writing to it"),
    "guest_memfd": (
        "guest_memfd_slot",
        "has private memory, which no host virtual address reaches: the guest may not be using what is lost",
    ),
    "log_dirty_pages": ("dirty_logged_slot", "is dirty-logged: KVM maps it, and reports poison in it, by single pages"),
}


def translate(vm: Vm, hva: int, lsb: int) -> Translate:
    """Where in the guest the 2^lsb bytes around a host virtual address are.

    `lsb` is log2 of the bytes lost, at least the host's page shift.
    """
    hva = untag_address(hva)
    start, end = _lost(hva, lsb)
    ranges: list[GuestRange] = []
    covered: list[tuple[int, int]] = []
    primary = None
    for slot in _slots(vm, start, end):
        base = untag_address(slot.userspace_addr)
        low, high = max(start, base), min(end, base + slot.memory_size)
        ranges.append(GuestRange(slot.guest_phys_addr + low - base, high - low, slot.slot, slot.as_id))
        covered.append((low, high))
        if primary is None and low <= hva < high:
            primary = slot.guest_phys_addr + hva - base
    ranges.sort(key=lambda found: (found.as_id, found.ipa))
    return Translate(vm.id, hva, tuple(ranges), tuple(_holes(start, end, covered)), primary)


def _lost(hva: int, lsb: int) -> tuple[int, int]:
    start = hva & -(1 << lsb)
    return start, start + (1 << lsb)


def _slots(vm: Vm, start: int, end: int) -> list[Memslot]:
    """The slots that hold a part of [start, end), in the order given."""
    return [vm.memslots[position] for position in sorted(vm.memslots.overlapping(start, end))]


def _holes(start: int, end: int, covered: list[tuple[int, int]]) -> Iterator[Hole]:
    """What of [start, end) no part covers."""
    for low, high in sorted(covered):
        if low > start:
            yield Hole(start, low - start)
        start = max(start, high)
    if start < end:
        yield Hole(start, end - start)


def slot_warnings(vm: Vm, hva: int, lsb: int) -> tuple[DecisionWarning, ...]:
    """What is special about the slots that a translation meets."""
    slots = _slots(vm, *_lost(untag_address(hva), lsb))
    return tuple(_caution(slot, flag) for slot in slots if slot.flags for flag in dict.fromkeys(slot.flags))


def _caution(slot: Memslot, flag: str) -> DecisionWarning:
    code, words = _CAUTIONS[flag]
    return DecisionWarning(code, f"slot {slot.slot} {words}")
