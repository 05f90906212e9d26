"""A guest's memory slots, and which of them hold a host virtual address (Documentation/virt/kvm/api.rst 4.35).

RefusedSlot         a slot that KVM would not have taken
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field

from models.scalars import U16, Hex64, Many, Wire

SMALLEST_PAGE: Final = 4096
MAX_SLOT_PAGES: Final = (1 << 31) - 1
"""Pages of one slot (KVM_MEM_MAX_NR_PAGES)."""
MAX_SLOTS: Final = 32767
"""Slots of one machine (KVM_USER_MEM_SLOTS)."""

_MAX_SIZE: Final = MAX_SLOT_PAGES * SMALLEST_PAGE
_ADDRESS: Final = (1 << 56) - 1
"""The bits of a virtual address below its tag byte (TBI, MTE)."""


class RefusedSlot(ValueError):
    """A slot that KVM would not have taken. `position` counts from 0 in the order given."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(detail)
        self.position = position


class Memslot(Wire):
    """struct kvm_userspace_memory_region."""

    slot: U16
    as_id: U16 = 0
    """Address space."""
    guest_phys_addr: Hex64
    memory_size: Hex64
    """Bytes."""
    userspace_addr: Hex64
    flags: Many[Literal["log_dirty_pages", "readonly", "guest_memfd"]] = ()


Memslots = Annotated[Many[Memslot], Field(max_length=MAX_SLOTS)]


def untagged(address: int) -> int:
    """A user virtual address without its tag byte."""
    return address & _ADDRESS


class SlotTable(NamedTuple):
    """The slots in the order of their host virtual addresses, ready to be searched."""

    starts: tuple[int, ...] = ()
    """First address of each slot, untagged, ascending."""
    ends: tuple[int, ...] = ()
    reach: tuple[int, ...] = ()
    """The furthest end of a slot and all before it: slots may lie over each other (aliases)."""
    positions: tuple[int, ...] = ()
    """Where each slot stands in the order given."""

    def holding(self, start: int, end: int) -> Iterator[int]:
        """The positions of the slots that share an address with [start, end), highest first address first."""
        index = bisect_left(self.starts, end) - 1
        while index >= 0 and self.reach[index] > start:
            if self.ends[index] > start:
                yield self.positions[index]
            index -= 1


def prepare(slots: Sequence[Memslot]) -> SlotTable:
    """Check a table as KVM does, slot by slot, and sort it; takes n log n. Raises RefusedSlot."""
    for position, slot in enumerate(slots):
        if refusal := _refusal(slot):
            raise RefusedSlot(position, refusal)
    _refuse_collisions(slots)
    spans = sorted((untagged(slot.userspace_addr), slot.memory_size, position) for position, slot in enumerate(slots))
    ends = tuple(start + size for start, size, _ in spans)
    return SlotTable(tuple(span[0] for span in spans), ends, tuple(accumulate(ends, max)), tuple(span[2] for span in spans))


def refuse_unaligned(slots: Sequence[Memslot], page_size: int) -> None:
    """Slots are made of whole host pages. Raises RefusedSlot."""
    for position, slot in enumerate(slots):
        if (slot.guest_phys_addr | slot.memory_size | slot.userspace_addr) & page_size - 1:
            raise RefusedSlot(position, f"address or size is not a multiple of the host's page size of {page_size} bytes")


def _refusal(slot: Memslot) -> str | None:
    """Mirrors `kvm_set_memory_region`."""
    start, size, host = slot.guest_phys_addr, slot.memory_size, slot.userspace_addr
    end, host_end = start + size, (host & _ADDRESS) + size
    if size and not (start | size | host) & SMALLEST_PAGE - 1 and size <= _MAX_SIZE and end < 1 << 64 and host_end <= _ADDRESS:
        return None
    if size == 0:
        return "`memory_size` is 0, which deletes a slot"
    for name, number in (("guest_phys_addr", start), ("memory_size", size), ("userspace_addr", host)):
        if number & SMALLEST_PAGE - 1:
            return f"`{name}` {number:#x} is not page aligned"
    if size > _MAX_SIZE:
        return f"`memory_size` {size:#x} is more than {MAX_SLOT_PAGES} pages"
    if end >= 1 << 64:
        return f"`guest_phys_addr` {start:#x} plus `memory_size` {size:#x} goes beyond 64 bits"
    return f"`userspace_addr` {host:#x} plus `memory_size` {size:#x} goes beyond the end of user space"


def _refuse_collisions(slots: Sequence[Memslot]) -> None:
    """Within an address space a slot has one number, and a guest physical address one slot."""
    seen: dict[tuple[int, int], int] = {}
    for position, slot in enumerate(slots):
        if (earlier := seen.setdefault((slot.as_id, slot.slot), position)) != position:
            raise RefusedSlot(position, f"slot {slot.slot} of address space {slot.as_id} is already entry {earlier}")
    spans = sorted((slot.as_id, slot.guest_phys_addr, slot.memory_size, position) for position, slot in enumerate(slots))
    for (space, start, size, one), (other_space, other_start, _, other) in pairwise(spans):
        if space == other_space and start + size > other_start:
            first, second = sorted((one, other))
            raise RefusedSlot(second, f"overlaps entry {first} in guest physical address space {space}, at {other_start:#x}")
