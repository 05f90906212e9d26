"""Look-ups in host facts."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.host import Host, Page
from ras_triage.models.memslots import LINEAR_SEARCH_SLOTS, Memslot, Memslots
from ras_triage.policies.pipeline.facts import LINEAR_SEARCH_LIMIT, Facts
from tests.policies.events import ALL, PAGE, block, decided, host, memory, page, sea

frames = st.integers(0, 40)


def elsewhere(count: int) -> list[dict[str, Any]]:
    return [page() | {"physical_address": 0x8000_0000 + 4096 * index} for index in range(count)]


@pytest.mark.parametrize("policy", [*ALL, "uniform"])
@pytest.mark.parametrize("count", [1, LINEAR_SEARCH_LIMIT, LINEAR_SEARCH_LIMIT + 1, 1000])
def test_page_facts_that_do_not_cover_the_error_change_nothing(policy: str, count: int) -> None:
    """With nine of them this was an IndexError."""
    alone = decided(policy, sea(), block(memory()), host(pages=None) | {"pages": None})
    beside = decided(policy, sea(), block(memory()), host(*elsewhere(count)))
    assert (alone.plan, alone.next_access, alone.assumptions) == (beside.plan, beside.next_access, beside.assumptions)


def test_of_many_facts_that_cover_an_address_the_first_counts() -> None:
    covering = [page("shmem", shift=21, dirty=True), page("anonymous", dirty=True), page("slab", shift=30)]
    for first, second, third in permutations(covering):
        many = decided("uniform", sea(), block(memory()), host(*elsewhere(20), first, second, third))
        assert many.plan == decided("uniform", sea(), block(memory()), host(first)).plan


page_facts = st.builds(
    Page, physical_address=frames.map(lambda frame: PAGE + frame * 4096 + 64), shift=st.sampled_from([None, 12, 13, 16, 21])
)


@given(pages=st.lists(page_facts, max_size=30), frame=frames)
def test_a_page_is_found_as_by_going_through_all(pages: list[Page], frame: int) -> None:
    address = PAGE + frame * 4096
    first = next((one for one in pages if one.physical_address >> (one.shift or 12) == address >> (one.shift or 12)), None)
    assert Facts(Host(pages=tuple(pages))).page_at(address) is first


@given(ranges=st.lists(st.tuples(frames, st.integers(0, 9)), max_size=20), address=st.integers(0, 60))
def test_a_struct_page_is_found_as_by_going_through_all_ranges(ranges: list[tuple[int, int]], address: int) -> None:
    facts = Facts(Host(valid_ranges=tuple({"start": start, "size": size} for start, size in ranges)))  # type: ignore[arg-type]
    assert facts.has_struct_page(address, None) is any(0 <= address - start < size for start, size in ranges)


def test_ranges_reach_to_the_last_address() -> None:
    facts = Facts(Host(valid_ranges=({"start": 1 << 63, "size": (1 << 64) - 1},)))  # type: ignore[arg-type]
    assert facts.has_struct_page((1 << 64) - 1, None)
    assert not facts.has_struct_page((1 << 63) - 1, None)


@given(present=st.lists(st.sampled_from("abcd")), device=st.sampled_from("abcd"))
def test_a_device_is_found_as_by_going_through_all(present: list[str], device: str) -> None:
    assert Facts(Host(pci_devices=tuple(present))).has_device(device) is (device in present)
    assert Facts(Host(aer_devices=tuple(present))).has_aer(device, is_port=True) is (device in present)


slots = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.integers(1, 12)), max_size=4 * LINEAR_SEARCH_SLOTS)


@given(made=slots, start=st.integers(0, 50), length=st.integers(1, 20))
def test_slots_are_found_as_by_going_through_all(made: list[tuple[int, int, int]], start: int, length: int) -> None:
    """Slots of several address spaces that lie over each other in the host."""
    given_slots = [
        Memslot(slot=index, as_id=space, guest_phys_addr=index << 20, memory_size=size * 4096, userspace_addr=(space + host) * 4096)
        for index, (space, host, size) in enumerate(made)
    ]
    low, high = start * 4096, (start + length) * 4096
    spans = [(slot.userspace_addr, slot.userspace_addr + slot.memory_size) for slot in given_slots]
    found = Memslots(given_slots)
    assert sorted(found.overlapping(low, high)) == [index for index, (begin, end) in enumerate(spans) if begin < high and low < end]
    starts = [spans[index][0] for index in found.overlapping(low, high)]
    assert starts == sorted(starts, reverse=True)
    assert found.first_containing(low) == next((index for index, (begin, end) in enumerate(spans) if begin <= low < end), None)
