"""KVM memory slots of a guest, searchable by host virtual address.

Source: Documentation/virt/kvm/api.rst 4.35.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from ras_triage.models.scalars import U16, FailFastTuple, Hex64, WireModel

SMALLEST_PAGE: Final = 4096
MAX_SLOT_PAGES: Final = (1 << 31) - 1
"""Most pages of one slot (KVM_MEM_MAX_NR_PAGES)."""
MAX_SLOTS: Final = 32767
"""Most slots of one virtual machine (KVM_USER_MEM_SLOTS)."""

LINEAR_SEARCH_SLOTS: Final = 8
"""Up to this number of slots a linear search is faster than the tree."""
MAX_FLAGS: Final = 64
"""Most flags of one slot, counting repeated ones."""

_MAX_SIZE: Final = MAX_SLOT_PAGES * SMALLEST_PAGE
_ADDRESS: Final = (1 << 56) - 1
"""Mask of a virtual address without its tag byte (TBI, MTE)."""


class InvalidMemslot(ValueError):
    """A slot that KVM would reject; `position` is its index in the list."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(detail)
        self.position = position

    def to_validation_error(self, slots: Sequence[Any], *location: str | int) -> ValidationError:
        """Return a pydantic error that points at the slot; `location` is the path of the list."""
        where, given = (*location, self.position), slots[self.position]
        return ValidationError.from_exception_data(
            "Memslots", [{"type": "value_error", "loc": where, "input": given, "ctx": {"error": self}}]
        )


class Memslot(WireModel):
    """struct kvm_userspace_memory_region."""

    slot: U16
    """Number of the slot."""
    as_id: U16 = 0
    """Address space."""
    guest_phys_addr: Hex64
    """Guest physical address of its start, bytes."""
    memory_size: Hex64
    """Bytes."""
    userspace_addr: Hex64
    """Host virtual address of its start, bytes."""
    flags: Annotated[FailFastTuple[Literal["log_dirty_pages", "readonly", "guest_memfd"]], Field(max_length=MAX_FLAGS)] = ()
    """Flags of the slot (KVM_MEM_*)."""


_LIST: Final = Annotated[FailFastTuple[Memslot], Field(max_length=MAX_SLOTS)]


def untag_address(address: int) -> int:
    """Return a user virtual address without its tag byte."""
    return address & _ADDRESS


class Memslots(tuple[Memslot, ...]):
    """The slots of one virtual machine, validated as by KVM and searchable by host address.

    Validating and sorting take O(n log n), once. Raises InvalidMemslot.
    """

    _spans: list[tuple[int, int, int]]
    """Untagged start address, end and position of each slot, sorted."""
    _reach: list[int] | None
    """Highest end of all slots below each node of a binary tree with `_spans` as leaves; slots may overlap (aliases)."""
    _first: tuple[list[int], list[int | None]] | None
    """Addresses at which the first slot that contains them changes, and the position of that slot."""

    def __init__(self, _: Iterable[Memslot] = ()) -> None:
        self._spans = _checked(self)
        self._reach = self._first = None

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls._validate, handler(_LIST))

    @classmethod
    def _validate(cls, slots: tuple[Memslot, ...]) -> Memslots:
        try:
            return cls(slots)
        except InvalidMemslot as error:
            raise error.to_validation_error(slots) from None

    def overlapping(self, start: int, end: int) -> Iterator[int]:
        """Yield the positions of the slots that overlap [start, end), highest start address first.

        Takes O(log n) for each of them.
        """
        if len(self._spans) <= LINEAR_SEARCH_SLOTS:
            return (position for low, high, position in reversed(self._spans) if low < end and start < high)
        return self._search(start, bisect_left(self._spans, (end,)))

    def _search(self, start: int, count: int) -> Iterator[int]:
        """Yield the positions of those of the first `count` spans that end after `start`, last first."""
        if self._reach is None:
            self._reach = _furthest([end for _, end, _ in self._spans])
        reach, leaves = self._reach, len(self._reach) // 2
        waiting = [(1, 0, leaves)]
        while waiting:
            node, low, width = waiting.pop()
            if low >= count or reach[node] <= start:
                continue
            if node >= leaves:
                yield self._spans[low][2]
            else:
                half = width // 2
                waiting += ((2 * node, low, half), (2 * node + 1, low + half, half))

    def first_containing(self, address: int) -> int | None:
        """Return the position of the first slot in the list that contains an untagged address, or None. Takes O(log n)."""
        if len(self._spans) <= LINEAR_SEARCH_SLOTS:
            return min((position for low, high, position in self._spans if low <= address < high), default=None)
        if self._first is None:
            self._first = _first_slots(self._spans)
        changes, positions = self._first
        index = bisect_right(changes, address) - 1
        return None if index < 0 else positions[index]


def _furthest(ends: list[int]) -> list[int]:
    """Return the maximum below each node of a complete binary tree: node 1 is the root, 2 n and 2 n + 1 are the children of node n."""
    leaves = 1 << (len(ends) - 1).bit_length()
    tree = [0] * leaves + ends + [0] * (leaves - len(ends))
    for node in range(leaves - 1, 0, -1):
        tree[node] = max(tree[2 * node], tree[2 * node + 1])
    return tree


def _first_slots(spans: list[tuple[int, int, int]]) -> tuple[list[int], list[int | None]]:
    """Return the addresses at which the first slot that contains them changes, ascending, and the position of that slot."""
    edges = sorted({edge for low, high, _ in spans for edge in (low, high)})
    waiting: list[tuple[int, int]] = []
    positions: list[int | None] = []
    begun = 0
    for edge in edges:
        while begun < len(spans) and spans[begun][0] <= edge:
            heappush(waiting, (spans[begun][2], spans[begun][1]))
            begun += 1
        while waiting and waiting[0][1] <= edge:
            heappop(waiting)
        positions.append(waiting[0][0] if waiting else None)
    return edges, positions


def _checked(slots: Sequence[Memslot]) -> list[tuple[int, int, int]]:
    """Validate the slots and return them sorted by host address. Raises InvalidMemslot for one that KVM would reject."""
    in_guest: list[tuple[int, int, int, int]] = []
    in_host: list[tuple[int, int, int]] = []
    numbers: set[tuple[int, int]] = set()
    for position, slot in enumerate(slots):
        start, size, host = slot.guest_phys_addr, slot.memory_size, slot.userspace_addr
        base, space = host & _ADDRESS, slot.as_id
        aligned = not (start | size | host) & SMALLEST_PAGE - 1
        if not (aligned and 0 < size <= _MAX_SIZE and start + size < 1 << 64 and base + size <= _ADDRESS):
            raise InvalidMemslot(position, _refusal(slot))
        in_guest.append((space, start, start + size, position))
        in_host.append((base, base + size, position))
        numbers.add((space, slot.slot))
    if len(numbers) < len(slots):
        _refuse_repeated(slots)
    _refuse_overlap(in_guest)
    in_host.sort()
    return in_host


def require_aligned(slots: Sequence[Memslot], page_size: int) -> None:
    """Require that slots consist of whole host pages. Raises InvalidMemslot."""
    for position, slot in enumerate(slots):
        if (slot.guest_phys_addr | slot.memory_size | slot.userspace_addr) & page_size - 1:
            raise InvalidMemslot(position, f"address or size is not a multiple of the host page size of {page_size} bytes")


def _refusal(slot: Memslot) -> str:
    """Return the reason why KVM would reject a slot. Mirrors `kvm_set_memory_region`."""
    start, size, host = slot.guest_phys_addr, slot.memory_size, slot.userspace_addr
    if size == 0:
        return "`memory_size` is 0, which deletes a slot"
    for name, number in (("guest_phys_addr", start), ("memory_size", size), ("userspace_addr", host)):
        if number & SMALLEST_PAGE - 1:
            return f"`{name}` {number:#x} is not page aligned"
    if size > _MAX_SIZE:
        return f"`memory_size` {size:#x} is more than {MAX_SLOT_PAGES} pages"
    if start + size >= 1 << 64:
        return f"`guest_phys_addr` {start:#x} plus `memory_size` {size:#x} exceeds 64 bits"
    return f"`userspace_addr` {host:#x} plus `memory_size` {size:#x} exceeds the end of user space"


def _refuse_repeated(slots: Sequence[Memslot]) -> None:
    """Raise InvalidMemslot for a slot number that is repeated within an address space."""
    seen: dict[tuple[int, int], int] = {}
    for position, slot in enumerate(slots):
        if (earlier := seen.setdefault((slot.as_id, slot.slot), position)) != position:
            raise InvalidMemslot(position, f"slot {slot.slot} of address space {slot.as_id} is already entry {earlier}")


def _refuse_overlap(spans: list[tuple[int, int, int, int]]) -> None:
    """Raise InvalidMemslot for overlapping guest physical addresses; `spans` are address space, start, end and position."""
    spans.sort()
    for (space, _, end, one), (other_space, start, _, other) in pairwise(spans):
        if end > start and space == other_space:
            first, second = sorted((one, other))
            raise InvalidMemslot(second, f"overlaps entry {first} in guest physical address space {space}, at {start:#x}")
