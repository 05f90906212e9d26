"""Translation of a host virtual address to guest physical ranges."""

from __future__ import annotations

from collections.abc import Iterator

from ras_triage.models.decision import DecisionWarning, GuestRange, Hole, Translate
from ras_triage.models.host import Vm
from ras_triage.models.memslots import Memslot, untag_address

_CAUTIONS = {
    "readonly": ("readonly_slot", "is read-only: the guest cannot repair the memory by writing to it"),
    "guest_memfd": (
        "guest_memfd_slot",
        "has private memory without a host virtual address: the guest may not use the lost memory",
    ),
    "log_dirty_pages": ("dirty_logged_slot", "is dirty-logged: KVM maps it, and reports poison in it, page by page"),
}


def translate(vm: Vm, hva: int, lsb: int) -> Translate:
    """Return the guest physical ranges behind the 2^lsb bytes around a host virtual address, over all slots and address spaces.

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
    """Return the slots that overlap [start, end), in the order of the event."""
    return [vm.memslots[position] for position in sorted(vm.memslots.overlapping(start, end))]


def _holes(start: int, end: int, covered: list[tuple[int, int]]) -> Iterator[Hole]:
    """Yield the parts of [start, end) that nothing covers."""
    for low, high in sorted(covered):
        if low > start:
            yield Hole(start, low - start)
        start = max(start, high)
    if start < end:
        yield Hole(start, end - start)


def slot_warnings(vm: Vm, hva: int, lsb: int) -> tuple[DecisionWarning, ...]:
    """Return warnings about the flags of the slots behind an address."""
    slots = _slots(vm, *_lost(untag_address(hva), lsb))
    return tuple(_caution(slot, flag) for slot in slots if slot.flags for flag in dict.fromkeys(slot.flags))


def _caution(slot: Memslot, flag: str) -> DecisionWarning:
    code, words = _CAUTIONS[flag]
    return DecisionWarning(code, f"slot {slot.slot} {words}")
