"""Translation of host virtual addresses to guest physical ranges."""

from __future__ import annotations

import json
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ras_triage.models.decision import Translate
from ras_triage.models.event import Event
from ras_triage.models.host import Host, Vm
from ras_triage.models.memslots import MAX_SLOTS
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.policies.guest.translation import slot_warnings, translate
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError

MIB, GIB = 1 << 20, 1 << 30
RAM = 0xFFFF_4000_0000


def slot(number: int, guest: int, size: int, host: int, *flags: str, as_id: int = 0) -> dict[str, Any]:
    return {
        "slot": number,
        "as_id": as_id,
        "guest_phys_addr": guest,
        "memory_size": size,
        "userspace_addr": host,
        "flags": list(flags),
    }


def vm(*slots: dict[str, Any]) -> Vm:
    return Vm.model_validate({"id": "vm-1", "pid": 103, "memslots": list(slots)})


def ranges(found: Translate) -> list[tuple[int, int, int, int]]:
    return [(part.ipa, part.length, part.slot, part.as_id) for part in found.ranges]


def holes(found: Translate) -> list[tuple[int, int]]:
    return [(hole.hva, hole.length) for hole in found.holes]


ONE = vm(slot(0, GIB, GIB, RAM))


def test_an_address_keeps_its_offset_in_the_slot() -> None:
    found = translate(ONE, RAM + 0xFA6123, 12)
    assert (found.vm, found.hva, found.primary) == ("vm-1", RAM + 0xFA6123, 0x40FA6123)
    assert ranges(found) == [(0x40FA6000, 4096, 0, 0)]
    assert holes(found) == []


def test_memory_in_no_slot_is_one_hole() -> None:
    found = translate(ONE, RAM - 4096, 12)
    assert (ranges(found), holes(found), found.primary) == ([], [(RAM - 4096, 4096)], None)


def test_a_machine_without_slots_has_no_guest_memory() -> None:
    assert holes(translate(vm(), RAM, 21)) == [(RAM, 2 * MIB)]


def test_an_alias_is_one_more_range_and_the_slot_given_first_is_primary() -> None:
    aliased = vm(slot(7, 8 * GIB, GIB, RAM), slot(3, GIB, GIB, RAM))
    found = translate(aliased, RAM + 0x5000, 12)
    assert ranges(found) == [(GIB + 0x5000, 4096, 3, 0), (8 * GIB + 0x5000, 4096, 7, 0)]
    assert found.primary == 8 * GIB + 0x5000


def test_a_huge_page_over_two_slots_has_ranges_that_do_not_follow_each_other() -> None:
    base = RAM + GIB
    split = vm(slot(0, GIB, GIB + MIB, RAM), slot(1, 4 * GIB, GIB, base + MIB))
    found = translate(split, base + 4096, 21)
    assert ranges(found) == [(2 * GIB, MIB, 0, 0), (4 * GIB, MIB, 1, 0)]
    assert (holes(found), found.primary) == ([], 2 * GIB + 4096)


def test_a_huge_page_over_a_slots_end_is_partly_the_vmms_own() -> None:
    """A gigabyte page across the PCI hole."""
    short = vm(slot(0, GIB, GIB - MIB, RAM))
    found = translate(short, RAM + GIB - 4096, 30)
    assert ranges(found) == [(GIB, GIB - MIB, 0, 0)]
    assert holes(found) == [(RAM + GIB - MIB, MIB)]
    assert found.primary is None


def test_holes_between_slots_come_in_order() -> None:
    gaps = vm(slot(0, GIB, 4096, RAM + 4096), slot(1, 2 * GIB, 4096, RAM + 3 * 4096))
    assert holes(translate(gaps, RAM, 14)) == [(RAM, 4096), (RAM + 8192, 4096)]


def test_address_space_0_comes_first_and_then_the_lowest_address() -> None:
    spaces = vm(slot(0, GIB, MIB, RAM, as_id=1), slot(1, 4 * GIB, MIB, RAM), slot(2, 2 * GIB, MIB, RAM))
    assert [(as_id, ipa) for ipa, _, _, as_id in ranges(translate(spaces, RAM, 12))] == [(0, 2 * GIB), (0, 4 * GIB), (1, GIB)]


@pytest.mark.parametrize("tag", [0x5A, 0x0F, 0xFF])
def test_tag_bits_are_no_part_of_an_address(tag: int) -> None:
    tagged = tag << 56 | RAM + 0x2000
    assert translate(ONE, tagged, 12) == translate(ONE, RAM + 0x2000, 12)
    assert translate(vm(slot(0, GIB, GIB, 0x0B << 56 | RAM)), tagged, 12).primary == GIB + 0x2000


def test_addresses_are_64_bits_wide() -> None:
    high = vm(slot(0, (1 << 52) - GIB, GIB, (1 << 52) - GIB))
    assert translate(high, (1 << 52) - 1, 12).primary == (1 << 52) - 1
    assert ranges(translate(high, (1 << 52) - 1, 12)) == [((1 << 52) - 4096, 4096, 0, 0)]


def test_special_slots_are_pointed_out() -> None:
    special = vm(slot(0, GIB, MIB, RAM, "readonly"), slot(1, 2 * GIB, MIB, RAM + MIB, "guest_memfd", "log_dirty_pages"))
    codes = [[warning.code for warning in slot_warnings(special, address, 12)] for address in (RAM, RAM + MIB, RAM + GIB)]
    assert codes == [["readonly_slot"], ["guest_memfd_slot", "dirty_logged_slot"], []]


# For every table


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Slots that KVM takes, a few pages each: apart in guest memory, and anywhere in the host's, over each other too."""
    pages = draw(st.lists(st.integers(1, 6), min_size=1, max_size=8))
    slots = []
    guest = draw(st.integers(0, 8)) << 12
    for number, count in enumerate(pages):
        host = RAM + (draw(st.integers(0, 24)) << 12)
        slots.append(slot(number, guest, count << 12, host, as_id=draw(st.integers(0, 1))))
        guest += (count + draw(st.integers(0, 3))) << 12
    return draw(st.permutations(slots))


@given(tables(), st.data())
def test_an_address_inside_a_slot_translates_and_back(slots: list[dict[str, Any]], data: st.DataObject) -> None:
    known = data.draw(st.sampled_from(slots))
    offset = data.draw(st.integers(0, known["memory_size"] - 1))
    hva = known["userspace_addr"] + offset
    found = translate(vm(*slots), hva, 12)
    by_number = {entry["slot"]: entry for entry in slots}
    back = {part.ipa - by_number[part.slot]["guest_phys_addr"] + by_number[part.slot]["userspace_addr"] for part in found.ranges}
    assert back == {hva & -4096}
    assert (known["slot"], known["guest_phys_addr"] + (offset & -4096)) in {(part.slot, part.ipa) for part in found.ranges}
    first = next(entry for entry in slots if entry["userspace_addr"] <= hva < entry["userspace_addr"] + entry["memory_size"])
    assert found.primary == first["guest_phys_addr"] + hva - first["userspace_addr"]


@given(tables(), st.integers(-8, 40), st.integers(12, 18))
def test_ranges_and_holes_together_are_exactly_what_is_lost(slots: list[dict[str, Any]], page: int, lsb: int) -> None:
    hva = RAM + (page << 12)
    found = translate(vm(*slots), hva, lsb)
    by_number = {entry["slot"]: entry for entry in slots}
    told: set[int] = set()
    for part in found.ranges:
        start = part.ipa - by_number[part.slot]["guest_phys_addr"] + by_number[part.slot]["userspace_addr"]
        told |= set(range(start, start + part.length, 4096))
    empty = {address for hole in found.holes for address in range(hole.hva, hole.hva + hole.length, 4096)}
    start = hva & -(1 << lsb)
    assert told | empty == set(range(start, start + (1 << lsb), 4096))
    assert not told & empty
    assert sum(hole.length for hole in found.holes) == len(empty) * 4096


@given(tables(), st.integers(0, 24), st.integers(12, 18), st.randoms(use_true_random=False))
def test_the_order_of_the_slots_changes_only_which_address_is_primary(
    slots: list[dict[str, Any]], page: int, lsb: int, random: Any
) -> None:
    hva = RAM + (page << 12)
    found = translate(vm(*slots), hva, lsb)
    shuffled = list(slots)
    random.shuffle(shuffled)
    other = translate(vm(*shuffled), hva, lsb)
    assert (found.ranges, found.holes) == (other.ranges, other.holes)
    assert [(part.as_id, part.ipa) for part in found.ranges] == sorted((part.as_id, part.ipa) for part in found.ranges)


# Slots that KVM would have refused


def problem(*slots: dict[str, Any], **facts: Any) -> tuple[str, str]:
    """The pointer and the words with which an event with these slots is refused."""
    event = {"notification": "sea", "host": {"vms": [{"id": "vm-1", "pid": 103, "memslots": list(slots)}], **facts}}
    with pytest.raises(ProblemError) as refused:
        read_event(json.dumps(event).encode())
    (fault,) = refused.value.problem.errors
    assert refused.value.problem.status == 422
    return fault.pointer, fault.detail


GOOD = [slot(0, GIB, MIB, RAM), slot(1, 2 * GIB, MIB, RAM + MIB)]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (slot(2, 3 * GIB + 1, MIB, RAM), "`guest_phys_addr` 0xc0000001 is not page aligned"),
        (slot(2, 3 * GIB, MIB + 512, RAM), "`memory_size` 0x100200 is not page aligned"),
        (slot(2, 3 * GIB, MIB, RAM + 8), "`userspace_addr` 0xffff40000008 is not page aligned"),
        (slot(2, 3 * GIB, 0, RAM), "`memory_size` is 0"),
        (slot(2, 3 * GIB, 1 << 43, RAM), "more than 2147483647 pages"),
        (slot(2, (1 << 64) - 4096, 4096, RAM), "exceeds 64 bits"),
        (slot(2, (1 << 64) - 4096, MIB, RAM), "exceeds 64 bits"),
        (slot(2, 3 * GIB, MIB, (1 << 64) - 4096), "exceeds the end of user space"),
        (slot(2, 3 * GIB, MIB, (1 << 56) - 4096), "exceeds the end of user space"),
        (slot(2, 2 * GIB + MIB - 4096, MIB, RAM), "overlaps entry 1 in guest physical address space 0, at 0x800ff000"),
        (slot(2, GIB, 8 * GIB, RAM), "overlaps entry 0"),
        (slot(1, 3 * GIB, MIB, RAM), "slot 1 of address space 0 is already entry 1"),
    ],
)
def test_a_slot_that_kvm_would_refuse_is_named(bad: dict[str, Any], words: str) -> None:
    pointer, detail = problem(*GOOD, bad)
    assert pointer == "/host/vms/0/memslots/2"
    assert words in detail


def test_the_largest_slot_that_kvm_takes_is_taken() -> None:
    assert translate(vm(slot(0, 0, ((1 << 31) - 1) << 12, 0)), 0x1000, 12).primary == 0x1000


def test_slots_are_made_of_the_hosts_own_pages() -> None:
    pointer, detail = problem(slot(0, GIB, MIB, RAM), slot(1, 2 * GIB, MIB, RAM + MIB + 4096), page_size=65536)
    assert (pointer, "65536" in detail) == ("/host/vms/0/memslots/1", True)
    Host.model_validate({"page_size": 4096, "vms": [{"id": "vm-1", "pid": 1, "memslots": [slot(1, 4096, 4096, RAM + 4096)]}]})


def test_the_same_guest_address_may_be_in_two_address_spaces_and_the_same_host_memory_in_two_slots() -> None:
    vm(slot(0, GIB, MIB, RAM), slot(0, GIB, MIB, RAM, as_id=1), slot(1, 2 * GIB, MIB, RAM))


HOSTILE: dict[str, Callable[[int], dict[str, Any]]] = {
    "overlapping": lambda number: slot(number, GIB, MIB, RAM),
    "nested": lambda number: slot(number, number << 12, GIB, RAM),
    "overflowing": lambda number: slot(number, (1 << 64) - 4096, 8192, RAM),
    "unaligned": lambda number: slot(number, number, 4096, RAM),
    "more-than-there-can-be": lambda number: slot(number & 0xFFFF, number << 12, 4096, RAM, as_id=number >> 16),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_tens_of_thousands_of_hostile_slots_are_a_clear_problem_in_bounded_time(kind: str) -> None:
    began = time.process_time()
    pointer, detail = problem(*(HOSTILE[kind](number) for number in range(40_000)))
    assert time.process_time() - began < 10
    assert pointer == "/host/vms/0/memslots"
    assert detail == f"should not be longer than {MAX_SLOTS}"


@pytest.mark.parametrize("kind", ["overlapping", "nested"])
def test_as_many_hostile_slots_as_there_can_be_are_a_clear_problem_in_bounded_time(kind: str) -> None:
    began = time.process_time()
    pointer, detail = problem(*(HOSTILE[kind](number) for number in range(MAX_SLOTS)))
    assert time.process_time() - began < 10
    assert pointer == "/host/vms/0/memslots/1"
    assert "overlaps entry 0" in detail


def test_as_many_good_slots_as_there_can_be_translate() -> None:
    many = vm(*(slot(number, number << 12, 4096, RAM) for number in range(MAX_SLOTS)))
    found = translate(many, RAM, 12)
    assert len(found.ranges) == MAX_SLOTS
    assert found.primary == 0


def test_a_slot_table_is_checked_when_a_machine_is_made_in_python_too() -> None:
    with pytest.raises(ValidationError, match="not page aligned"):
        vm(slot(0, 1, 4096, RAM))


def test_a_table_survives_being_written_read_and_copied() -> None:
    machine = vm(slot(0, GIB, GIB, RAM), slot(1, 8 * GIB, MIB, RAM, "readonly"))
    again = Vm.model_validate_json(machine.model_dump_json())
    for other in (again, machine.model_copy(), machine.model_copy(deep=True), pickle.loads(pickle.dumps(machine))):
        assert other == machine
        assert translate(other, RAM + 4096, 21) == translate(machine, RAM + 4096, 21)


# Speed

PAGE = {"physical_address": "0x56edd000", "state": "anonymous", "dirty": True, "mappings": [{"pid": 103, "address": hex(RAM + 0xFA6000)}]}


def test_500_slots_translate_in_less_time_than_the_host_side_takes() -> None:
    machine = vm(*(slot(number, number * MIB, MIB, RAM + number * 2 * MIB) for number in range(500)))
    section = {"type": "memory", "physical_address": "0x56edd040"}
    event = Event.model_validate(
        {
            "notification": {"type": "sea", "taken_from": "guest"},
            "status_block": {"severity": "recoverable", "sections": [section]},
            "host": {"current": {"pid": 103, "tid": 104}, "pages": [PAGE]},
        }
    )
    policy = resolve_policy("linux-7.3.4")

    def spent(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    host = statistics.median(spent(lambda: decide(event, policy)) for _ in range(300))
    guest = statistics.median(spent(lambda: translate(machine, RAM + 0xFA6000, 12)) for _ in range(300))
    assert guest < host
