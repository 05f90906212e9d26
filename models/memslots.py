"""A guest's memory slots, and which of them hold a host virtual address (Documentation/virt/kvm/api.rst 4.35).

RefusedSlot         a slot that KVM would not have taken
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

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

    def at(self, slots: Sequence[Any], *location: str | int) -> ValidationError:
        """The refusal as an error of the slot itself; `location` leads to the list that it is in."""
        where, given = (*location, self.position), slots[self.position]
        return ValidationError.from_exception_data(
            "Memslots", [{"type": "value_error", "loc": where, "input": given, "ctx": {"error": self}}]
        )


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


_LIST: Final = Annotated[Many[Memslot], Field(max_length=MAX_SLOTS)]


def untagged(address: int) -> int:
    """A user virtual address without its tag byte."""
    return address & _ADDRESS


class Memslots(tuple[Memslot, ...]):
    """The slots of one machine in the order given: such as KVM takes, and sorted so that they can be searched by host address.

    Checking and sorting take n log n, once. Raises RefusedSlot.
    """

    _spans: list[tuple[int, int, int]]
    """First address, untagged, and end of each slot, and its position; ascending."""
    _reach: list[int]
    """The furthest end of a slot and all before it: slots may lie over each other (aliases)."""

    def __init__(self, _: Iterable[Memslot] = ()) -> None:
        self._spans = _checked(self)
        self._reach = list(accumulate([end for _, end, _ in self._spans], max))

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._validate, handler(_LIST))

    @classmethod
    def _validate(cls, slots: tuple[Memslot, ...]) -> Memslots:
        try:
            return cls(slots)
        except RefusedSlot as refused:
            raise refused.at(slots) from None

    def holding(self, start: int, end: int) -> Iterator[int]:
        """The positions of the slots that share an address with [start, end), highest first address first."""
        index = bisect_left(self._spans, (end,)) - 1
        while index >= 0 and self._reach[index] > start:
            _, slot_end, position = self._spans[index]
            if slot_end > start:
                yield position
            index -= 1


def _checked(slots: Sequence[Memslot]) -> list[tuple[int, int, int]]:
    """The slots in the order of their host addresses. Raises RefusedSlot for one that KVM would not have taken."""
    in_guest: list[tuple[int, int, int, int]] = []
    in_host: list[tuple[int, int, int]] = []
    numbers: set[tuple[int, int]] = set()
    for position, slot in enumerate(slots):
        start, size, host = slot.guest_phys_addr, slot.memory_size, slot.userspace_addr
        base, space = host & _ADDRESS, slot.as_id
        aligned = not (start | size | host) & SMALLEST_PAGE - 1
        if not (aligned and 0 < size <= _MAX_SIZE and start + size < 1 << 64 and base + size <= _ADDRESS):
            raise RefusedSlot(position, _refusal(slot))
        in_guest.append((space, start, start + size, position))
        in_host.append((base, base + size, position))
        numbers.add((space, slot.slot))
    if len(numbers) < len(slots):
        _refuse_repeated(slots)
    _refuse_overlap(in_guest)
    in_host.sort()
    return in_host


def refuse_unaligned(slots: Sequence[Memslot], page_size: int) -> None:
    """Slots are made of whole host pages. Raises RefusedSlot."""
    for position, slot in enumerate(slots):
        if (slot.guest_phys_addr | slot.memory_size | slot.userspace_addr) & page_size - 1:
            raise RefusedSlot(position, f"address or size is not a multiple of the host's page size of {page_size} bytes")


def _refusal(slot: Memslot) -> str:
    """Why KVM would not have taken a slot. Mirrors `kvm_set_memory_region`."""
    start, size, host = slot.guest_phys_addr, slot.memory_size, slot.userspace_addr
    if size == 0:
        return "`memory_size` is 0, which deletes a slot"
    for name, number in (("guest_phys_addr", start), ("memory_size", size), ("userspace_addr", host)):
        if number & SMALLEST_PAGE - 1:
            return f"`{name}` {number:#x} is not page aligned"
    if size > _MAX_SIZE:
        return f"`memory_size` {size:#x} is more than {MAX_SLOT_PAGES} pages"
    if start + size >= 1 << 64:
        return f"`guest_phys_addr` {start:#x} plus `memory_size` {size:#x} goes beyond 64 bits"
    return f"`userspace_addr` {host:#x} plus `memory_size` {size:#x} goes beyond the end of user space"


def _refuse_repeated(slots: Sequence[Memslot]) -> None:
    """Within an address space a slot has one number."""
    seen: dict[tuple[int, int], int] = {}
    for position, slot in enumerate(slots):
        if (earlier := seen.setdefault((slot.as_id, slot.slot), position)) != position:
            raise RefusedSlot(position, f"slot {slot.slot} of address space {slot.as_id} is already entry {earlier}")


def _refuse_overlap(spans: list[tuple[int, int, int, int]]) -> None:
    """Within an address space a guest physical address has one slot; `spans` are address space, start, end and position."""
    spans.sort()
    for (space, _, end, one), (other_space, start, _, other) in pairwise(spans):
        if end > start and space == other_space:
            first, second = sorted((one, other))
            raise RefusedSlot(second, f"overlaps entry {first} in guest physical address space {space}, at {start:#x}")
