"""Responses of VMMs to signals."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.decision import Action, Decision, InjectAbort, InjectSerror, RecordGuestError, Signal, Step, Translate, VmmExits
from ras_triage.models.memslots import MAX_SLOTS
from ras_triage.policies.guest.guest_record import encode_guest_record
from ras_triage.policies.guest.injection import serror_severity
from ras_triage.policies.guest.vmm_response import ASSUMED_EL0, MAX_RECORDS
from tests.policies.events import (
    ALL,
    AO,
    AR,
    FATAL,
    KERNEL,
    L73,
    L510,
    L612,
    OBJERR,
    OTHER,
    PAGE,
    PID,
    TID,
    VA,
    block,
    decided,
    host,
    logged,
    memory,
    outcomes,
    page,
    sea,
    sei,
    signals,
    steps,
)

RAM, SIZE = 0xFFFF_4000_0000, 0x4000_0000
IPA = 0x4000_0000 + VA - RAM
SLOT = {"slot": 0, "guest_phys_addr": 0x4000_0000, "memory_size": SIZE, "userspace_addr": RAM}
FROM_GUEST = sea(taken_from="guest")
PLAIN = block(memory())
NOWHERE = block(memory(address=None))
EARLY = [{"pid": PID, "threads": [{"tid": PID, "mce_kill": "early"}, {"tid": TID, "mce_kill": "early"}]}, {"pid": OTHER}]


def vm(vmm: str = "standard", **facts: Any) -> dict[str, Any]:
    guest = {"ghes": ["sea", "gpio"]} | facts.pop("guest", {})
    return {"id": "vm-1", "pid": PID, "vmm": vmm, "vcpus": [{"index": 3, "tid": TID}], "memslots": [SLOT], "guest": guest} | facts


def consumed(vmm: str = "standard", *pages: dict[str, Any], policy: str = L73, data: bytes = PLAIN, **facts: Any) -> Decision:
    """A guest's vCPU thread met the error; `facts` are the VM's."""
    return decided(policy, FROM_GUEST, data, host(*pages, vms=[vm(vmm, **facts)], tasks=EARLY))


def announced(vmm: str = "standard", *pages: dict[str, Any], policy: str = L73, **facts: Any) -> Decision:
    """The error was found before anybody met it, and the VMM's main thread asked to know."""
    return decided(policy, "gpio", PLAIN, host(*pages, vms=[vm(vmm, **facts)], tasks=EARLY))


def guest_half(decision: Decision) -> list[str]:
    """The kinds of the steps after the last signal."""
    kinds = [step.kind for step in decision.plan]
    last = max(index for index, kind in enumerate(kinds) if kind == "signal")
    return kinds[last + 1 :]


def records(decision: Decision) -> list[tuple[str, int]]:
    for step in steps(decision, RecordGuestError):
        assert step.status_block == encode_guest_record(step.ipa)
    return [(step.notification, step.ipa) for step in steps(decision, RecordGuestError)]


def aborts(decision: Decision) -> list[tuple[int | None, int]]:
    return [(step.vcpu, step.guest_esr) for step in steps(decision, InjectAbort)]


def serrors(decision: Decision) -> list[tuple[int | None, int, int]]:
    return [(step.vcpu, step.vsesr_el2, step.guest_esr) for step in steps(decision, InjectSerror)]


def exits(decision: Decision) -> list[str]:
    return [step.why for step in steps(decision, VmmExits)]


def assumed(decision: Decision) -> set[str]:
    return {known.fact for known in decision.assumptions}


# Action required


@pytest.mark.parametrize("vmm", ["standard", "qemu"])
@pytest.mark.parametrize("policy", ALL)
def test_a_guest_that_consumed_an_error_gets_a_record_and_an_abort(vmm: str, policy: str) -> None:
    decision = consumed(vmm, policy=policy)
    assert decision.action is Action.INJECT
    assert guest_half(decision) == ["translate", "record_guest_error", "inject_abort", "log"]
    (found,) = steps(decision, Translate)
    assert (found.vm, found.hva, found.primary) == ("vm-1", VA, IPA)
    assert records(decision) == [("sea", IPA)]
    assert aborts(decision) == [(3, 0x92000410)]
    assert logged(decision, "a Linux guest survives")
    assert "host.vms.guest" in assumed(decision)


def test_the_vcpu_is_the_one_whose_thread_was_signalled() -> None:
    decision = consumed(vcpus=[{"index": 0, "tid": 110}, {"index": 5, "tid": TID}])
    assert aborts(decision) == [(5, 0x92000410)]
    assert "host.vms.vcpus" not in assumed(decision)


@pytest.mark.parametrize(("vcpus", "vcpu"), [([], None), ([{"index": 2, "tid": 110}, {"index": 4, "tid": 111}], 2)])
def test_a_thread_that_nobody_listed_is_taken_to_run_the_first_vcpu(vcpus: list[Any], vcpu: int | None) -> None:
    decision = consumed(vcpus=vcpus)
    assert aborts(decision) == [(vcpu, 0x92000410)]
    assert "host.vms.vcpus" in assumed(decision)


def test_a_guest_without_an_abort_source_finds_the_record_elsewhere() -> None:
    decision = consumed(guest={"ghes": ["gsiv"]})
    assert (records(decision), aborts(decision)) == ([("gsiv", IPA)], [(3, 0x92000410)])
    assert outcomes(decision, "guest.tell") == ["the guest takes an abort; the record is in its gsiv source"]


@pytest.mark.parametrize(
    ("guest", "facts", "told"),
    [
        ({"ghes": []}, {}, (3, 0x411, 0xBE000411)),
        ({"ghes": [], "ras_extension": False}, {}, (3, 0x1000000, 0xBF000000)),
        ({"ghes": []}, {"ras_extension": False}, (3, 0, 0xBF000000)),
        ({"ghes": [], "serror_masked": True}, {"ras_extension": False}, (3, 0, 0xBE000000)),
    ],
)
def test_a_guest_without_any_source_gets_a_virtual_serror_and_panics(guest: dict[str, Any], facts: dict[str, Any], told: Any) -> None:
    user = sea(taken_from="user")
    decision = decided(L73, user, PLAIN, host(vms=[vm(guest=guest)], **facts))
    assert serrors(decision) == [told]
    assert (records(decision), aborts(decision)) == ([], [])
    assert logged(decision, "a Linux guest panics")
    (step,) = steps(decision, InjectSerror)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, int(step.has_esr), 0, step.vsesr_el2)


@pytest.mark.parametrize(
    ("masked", "guest_esr", "assumed"), [(None, 0xBC000411, True), (False, 0xBC000411, False), (True, 0xBE000411, False)]
)
def test_a_guest_that_masks_serrors_sees_what_the_cpu_supplies(masked: bool | None, guest_esr: int, assumed: bool) -> None:
    facts = host(vms=[vm(guest={"ghes": [], "serror_masked": masked})])
    decision = decided("linux-7.1.13", sea(taken_from="user"), PLAIN, facts)
    assert serrors(decision) == [(3, 0x411, guest_esr)]
    assert ("guest.serror_masked" in {one.fact for one in decision.assumptions}) == assumed


@pytest.mark.parametrize("notification", [sea(taken_from="guest"), sei(0xBE000C11, "guest")])
def test_a_guest_that_does_not_see_the_ras_extension_gets_none_of_its_syndromes_from_kvm_either(notification: dict[str, Any]) -> None:
    facts = host(vms=[vm(guest={"ras_extension": False})])
    assert serrors(decided("uniform", notification, None, facts)) == [(3, 0x1000000, 0xBF000000)]
    assert serrors(decided("uniform", notification, None, host(vms=[vm()]))) == [(3, 0x411, 0xBE000411)]


@pytest.mark.parametrize(
    ("vmm", "facts", "assumed"),
    [
        (vm(), {}, []),
        (vm(memslots=[]), {}, ["host.vms.memslots"]),
        ({"id": "vm-1", "pid": PID, "memslots": [SLOT]}, {}, ["host.vms.vcpus", "host.vms.guest"]),
        (vm(guest={"ghes": [], "page_size": 16384}), {"ras_extension": None}, ["host.ras_extension"]),
        (vm(guest={"ghes": [], "page_size": 16384}), {"ras_extension": False}, ["guest.serror_masked"]),
        (vm(guest={"ghes": [], "serror_masked": False}), {"ras_extension": False}, []),
    ],
)
def test_what_the_guest_half_leans_on_and_nobody_said_is_listed(vmm: dict[str, Any], facts: dict[str, Any], assumed: list[str]) -> None:
    decision = decided(L73, sea(taken_from="user"), PLAIN, host(vms=[vmm], **facts))
    listed = [one.fact for one in decision.assumptions if one.assumed != ASSUMED_EL0.assumed]
    assert listed == assumed


@pytest.mark.parametrize("asked", ["early", "default"])
def test_thousands_of_vms_that_map_a_page_cost_no_more_than_their_number(asked: str) -> None:
    pids = range(1000, 21000)
    facts = host(
        page("anonymous", *pids, dirty=True),
        vms=[{"id": "vm", "pid": pid, "vmm": "qemu"} for pid in pids],
        tasks=[{"pid": pid, "mce_kill": asked} for pid in pids],
    )
    began = time.process_time()
    decided(L73, "gpio", PLAIN, facts)
    assert time.process_time() - began < 5


def test_memory_of_the_vmm_itself_consumed_on_the_guests_behalf_ends_the_guest() -> None:
    elsewhere = {**SLOT, "userspace_addr": 0xAAAA_0000_0000}
    decision = consumed(memslots=[elsewhere])
    (found,) = steps(decision, Translate)
    assert (found.ranges, [(hole.hva, hole.length) for hole in found.holes], found.primary) == ((), [(VA, 4096)], None)
    assert serrors(decision) == [(3, 0x411, 0xBE000411)]
    assert "exit(1)" in exits(consumed("qemu", memslots=[elsewhere]))[0]


def test_a_record_that_the_guest_has_not_acknowledged_is_waited_for() -> None:
    decision = consumed(guest={"ack_pending": ["sea"]})
    assert guest_half(decision) == ["translate", "log", "record_guest_error", "inject_abort", "log"]
    assert logged(decision, "until the guest acknowledges the last record in its sea source")
    other = consumed(guest={"ack_pending": ["gpio"]})
    assert not logged(other, "until the guest acknowledges")


def test_a_record_that_the_guest_has_not_acknowledged_ends_qemu() -> None:
    decision = consumed("qemu", guest={"ack_pending": ["sea"]})
    assert guest_half(decision) == ["translate", "vmm_exits"]
    assert "abort()" in exits(decision)[0]
    assert decision.action is Action.TRANSLATE
    assert aborts(consumed("qemu", guest={"ack_pending": ["gpio"]})) == [(3, 0x92000410)]


HUGE = page("hugetlb", dirty=True, shift=21)


def test_every_guest_page_of_a_huge_page_gets_a_record() -> None:
    decision = consumed("standard", HUGE)
    start = IPA & -(1 << 21)
    told = records(decision)
    assert told[0] == ("sea", IPA)
    assert len(told) == 512
    assert [notification for notification, _ in told[1:]] == ["gpio"] * 511
    assert sorted(ipa for _, ipa in told) == [start + number * 4096 for number in range(512)]
    assert aborts(decision) == [(3, 0x92000410)]
    assert logged(decision, "acknowledgement after each record in its gpio source")


def test_guest_pages_have_the_guests_own_size() -> None:
    told = records(consumed("standard", HUGE, guest={"page_size": 65536}))
    assert len(told) == 32
    assert len({ipa >> 16 for _, ipa in told}) == 32


def test_qemu_tells_one_page_whatever_was_lost() -> None:
    decision = consumed("qemu", HUGE)
    (found,) = steps(decision, Translate)
    assert sum(part.length for part in found.ranges) == 1 << 21
    assert records(decision) == [("sea", IPA)]


def test_a_plan_spells_out_a_bounded_number_of_records() -> None:
    """A gigabyte in pages of 4 KiB."""
    decision = consumed("standard", page("hugetlb", dirty=True, shift=30), memslots=[{**SLOT, "guest_phys_addr": 1 << 32}])
    told = records(decision)
    assert len(told) == 1 + MAX_RECORDS
    assert logged(decision, f"{(1 << 18) - 1 - MAX_RECORDS} more guest pages of vm-1")


def test_an_alias_gets_a_record_of_its_own() -> None:
    alias = {**SLOT, "slot": 1, "guest_phys_addr": 0x10_0000_0000}
    assert records(consumed(memslots=[SLOT, alias])) == [("sea", IPA), ("gpio", IPA - 0x4000_0000 + 0x10_0000_0000)]


# Action optional


def test_what_nobody_consumed_is_told_by_a_source_of_its_own() -> None:
    decision = announced()
    assert [code for _, code, _, _ in signals(decision)] == [AO]
    assert guest_half(decision) == ["translate", "record_guest_error", "log"]
    assert records(decision) == [("gpio", IPA)]
    assert decision.action is Action.TRANSLATE
    assert logged(decision, "before any access")


@pytest.mark.parametrize(
    ("ghes", "pending", "source", "waits"),
    [
        (["sea", "polled"], [], "polled", False),
        (["gsiv", "gpio"], [], "gsiv", False),
        (["gsiv", "gpio"], ["gsiv"], "gpio", False),
        (["gpio"], ["gpio"], "gpio", True),
        (["gsiv", "gpio"], ["gpio", "gsiv"], "gsiv", True),
    ],
)
def test_a_free_source_is_preferred(ghes: list[str], pending: list[str], source: str, waits: bool) -> None:
    decision = announced(guest={"ghes": ghes, "ack_pending": pending})
    assert records(decision) == [(source, IPA)]
    assert logged(decision, "until the guest acknowledges") is waits


@pytest.mark.parametrize("ghes", [[], ["sea"]])
def test_without_such_a_source_the_guest_gets_an_serror_that_it_outlives(ghes: list[str]) -> None:
    decision = announced(guest={"ghes": ghes})
    assert serrors(decision) == [(3, 0x811, 0xBE000811)]
    assert logged(decision, "a Linux guest survives")
    assert decision.action is Action.INJECT


@pytest.mark.parametrize(("guest", "facts"), [({"ras_extension": False}, {}), ({}, {"ras_extension": False})])
def test_nobody_panics_for_an_error_that_nobody_consumed(guest: dict[str, Any], facts: dict[str, Any]) -> None:
    decision = decided(L73, "gpio", PLAIN, host(vms=[vm(guest={"ghes": []} | guest)], tasks=EARLY, **facts))
    assert guest_half(decision) == ["translate", "log"]
    assert logged(decision, "its guest is notified when it accesses the page")


def test_qemu_tells_nothing_of_what_nobody_consumed() -> None:
    decision = announced("qemu")
    assert guest_half(decision) == ["translate", "log"]
    assert logged(decision, "blocks migration")
    assert outcomes(decision, "guest.tell") == ["no notification until the guest accesses the page"]


def test_a_signal_about_the_vmms_own_memory_does_not_concern_the_guest() -> None:
    for vmm in ("standard", "qemu"):
        decision = announced(vmm, memslots=[{**SLOT, "userspace_addr": 0xAAAA_0000_0000}])
        assert guest_half(decision) == ["translate", "log"]
        assert logged(decision, "none of its guest's")


def test_a_thread_that_acts_on_the_page_spares_the_guest_a_second_record() -> None:
    """Linux 6.12 sends the VMM both signals."""
    tasks = [{"pid": PID, "threads": [{"tid": PID, "mce_kill": "early"}, {"tid": TID}]}]
    decision = decided(L612, FROM_GUEST, PLAIN, host(vms=[vm()], tasks=tasks))
    assert records(decision) == [("sea", IPA)]
    assert len(steps(decision, Translate)) == 1


def test_two_pages_in_one_source_are_told_one_after_the_other() -> None:
    two = block(memory(), memory(address=PAGE + 0x1000))
    pages = [page(dirty=True), {"physical_address": PAGE + 0x1000, "dirty": True, "state": "anonymous"}]
    pages[1]["mappings"] = [{"pid": PID, "address": VA + 0x1000}]
    decision = decided(L73, "gpio", two, host(*pages, vms=[vm()], tasks=EARLY))
    assert records(decision) == [("gpio", IPA), ("gpio", IPA + 0x1000)]
    assert [step.what for step in decision.plan if step.kind == "log" and "until the guest acknowledges" in step.what]


def test_virtual_serrors_that_are_pending_together_are_one() -> None:
    two = block(memory(), memory(address=PAGE + 0x1000))
    other = {"physical_address": PAGE + 0x1000, "dirty": True, "state": "anonymous", "mappings": [{"pid": PID, "address": VA + 0x1000}]}
    decision = decided(L73, "gpio", two, host(page(dirty=True), other, vms=[vm(guest={"ghes": []})], tasks=EARLY))
    assert len(steps(decision, Translate)) == 2
    assert serrors(decision) == [(3, 0x811, 0xBE000811)]


# Signals that say nothing of memory


def test_a_signal_without_an_address_ends_the_guest_or_its_vmm() -> None:
    decision = consumed(data=NOWHERE)
    assert signals(decision) == [(TID, KERNEL, None, None)]
    assert guest_half(decision) == ["inject_serror", "log"]
    assert serrors(decision) == [(3, 0x411, 0xBE000411)]
    assert exits(consumed("qemu", data=NOWHERE)) == [
        "QEMU handles only BUS_MCEERR_AR and BUS_MCEERR_AO: it restores the default action and raises SIGBUS again"
    ]


def test_an_abort_of_the_vmm_that_no_record_accounts_for_is_no_memory_error() -> None:
    for vmm, kind in (("standard", InjectSerror), ("qemu", VmmExits)):
        decision = decided(L73, sea(), None, host(vms=[vm(vmm)]))
        assert [code for _, code, _, _ in signals(decision)] == [OBJERR]
        assert len(steps(decision, kind)) == 1


def test_no_vmm_outlives_sigkill() -> None:
    for vmm in ("standard", "qemu", "firecracker"):
        walk = sea(0x92000015)
        assert exits(decided(L73, walk, None, host(vms=[vm(vmm)]))) == ["SIGKILL cannot be handled"]


def test_an_address_that_nobody_told_leaves_the_outcome_open() -> None:
    facts = {"pages": None, "current": {"pid": PID, "tid": TID}, "vms": [vm()]}
    decision = decided(L73, FROM_GUEST, PLAIN, facts)
    assert decision.certainty == "depends"
    assert any("signal address unknown" in reason for reason in decision.reasons)
    assert serrors(decision) == [(3, 0x411, 0xBE000411)]
    unsure = decided(L73, FROM_GUEST, PLAIN, facts | {"vms": [vm("qemu")]})
    assert (unsure.certainty, exits(unsure), serrors(unsure)) == ("depends", [], [])


def test_a_guest_that_nobody_named_is_the_only_one_there_is() -> None:
    decision = decided(L73, FROM_GUEST, NOWHERE, {"vms": [vm()]})
    assert serrors(decision) == [(3, 0x411, 0xBE000411)]
    two = decided(L73, FROM_GUEST, NOWHERE, {"vms": [vm(), vm(id="vm-2", pid=OTHER)]})
    assert serrors(two) == []


# Around it


def test_a_vm_whose_process_is_not_signalled_is_left_alone() -> None:
    other = vm(id="vm-2", pid=OTHER)
    assert {step.vm for step in consumed_with(other).plan if isinstance(step, (Translate, InjectAbort, RecordGuestError))} == {"vm-1"}


def consumed_with(*others: dict[str, Any]) -> Decision:
    return decided(L73, FROM_GUEST, PLAIN, host(vms=[*others, vm()], tasks=EARLY))


def test_a_machine_that_goes_down_tells_no_guest() -> None:
    decision = decided(L73, FROM_GUEST, block(memory(), severity=FATAL), host(vms=[vm()]))
    assert decision.action is Action.PANIC
    assert not steps(decision, Translate)


def test_a_vmm_that_is_said_to_have_asked_for_no_early_signal_is_pointed_out() -> None:
    decision = decided(L73, "gpio", PLAIN, host(vms=[vm("qemu")]))
    assert signals(decision) == []
    assert [warning.code for warning in decision.warnings] == ["vmm_asks_for_early_signals"]
    assert decided(L73, "gpio", PLAIN, host(vms=[vm("firecracker")])).warnings == ()
    assert decided(L73, "gpio", PLAIN, host(page(dirty=True, unmapped=True), vms=[vm("qemu")])).warnings == ()


def test_special_slots_are_warned_of() -> None:
    decision = consumed(memslots=[{**SLOT, "flags": ["readonly"]}])
    assert [warning.code for warning in decision.warnings] == ["readonly_slot"]


def test_a_tagged_address_is_translated_without_its_tag() -> None:
    tagged = page(dirty=True)
    tagged["mappings"] = [{"pid": PID, "address": 0x0B << 56 | VA}]
    decision = consumed("standard", tagged)
    assert steps(decision, Translate)[0].hva == VA
    assert records(decision) == [("sea", IPA)]
    assert "address_tag_stripped" in [warning.code for warning in decision.warnings]


def test_a_plan_that_would_never_end_is_cut_and_says_so() -> None:
    """As many aliases of the page as there can be, in machine after machine of one process."""
    aliases = [{**SLOT, "slot": n, "guest_phys_addr": n << 12, "memory_size": 4096, "userspace_addr": VA} for n in range(MAX_SLOTS)]
    machines = [vm(id=f"vm-{n}", memslots=aliases) for n in range(4)]
    decision = decided(L73, FROM_GUEST, PLAIN, host(vms=machines))
    assert len(steps(decision, Translate)) == 2
    assert [reason for reason in decision.reasons if "plan too long" in reason]


def test_a_page_that_many_machines_share_is_told_to_each() -> None:
    """Same-page merging: one page, a thousand guests."""
    pids = range(1000, 2000)
    machines = [vm(id=f"vm-{pid}", pid=pid) for pid in pids]
    tasks = [{"pid": pid, "mce_kill": "early"} for pid in pids]
    decision = decided(L73, "gpio", PLAIN, host(page("ksm", *pids), vms=machines, tasks=tasks))
    assert len(records(decision)) == 1000
    assert decision.certainty == "certain"


@given(
    vmm=st.sampled_from(["standard", "qemu", "kvmtool", "cloud_hypervisor", "firecracker", "crosvm"]),
    policy=st.sampled_from([L510, L612, L73, "uniform"]),
    notification=st.sampled_from([FROM_GUEST, sea(), "gpio"]),
    data=st.sampled_from([PLAIN, NOWHERE, None]),
    ghes=st.sets(st.sampled_from(["sea", "gpio", "gsiv", "polled", "sci"])),
    ack=st.sets(st.sampled_from(["sea", "gpio"])),
    ras=st.tuples(st.booleans(), st.booleans()),
    shift=st.sampled_from([12, 16, 21]),
    inside=st.booleans(),
)
def test_whatever_a_guest_is_told_is_not_milder_than_its_error(
    vmm: str, policy: str, notification: Any, data: bytes | None, ghes: Any, ack: Any, ras: Any, shift: int, inside: bool
) -> None:
    guest = {"ghes": sorted(ghes), "ack_pending": sorted(ack), "ras_extension": ras[1]}
    slot = SLOT if inside else {**SLOT, "userspace_addr": 0xAAAA_0000_0000}
    facts = host(page("hugetlb", dirty=True, shift=shift), vms=[vm(vmm, guest=guest, memslots=[slot])], tasks=EARLY, ras_extension=ras[0])
    decision = decided(policy, notification, data, facts)
    required = [step for step in steps(decision, Signal) if step.code != AO]
    stops = steps(decision, InjectAbort) or steps(decision, VmmExits) or steps(decision, InjectSerror)
    assert not required or stops, "what a thread cannot go on from must not pass its guest by"
    if required and all(step.code != AR for step in required):
        assert not steps(decision, InjectAbort)
    for told in steps(decision, InjectSerror):
        assert serror_severity(told.vsesr_el2) >= serror_severity(0x411 if required else 0x811)
        assert told.has_esr is ras[0]
    assert all(step.status_block == encode_guest_record(step.ipa) for step in steps(decision, RecordGuestError))
    assert _is_in_order(decision.plan)


def _is_in_order(plan: tuple[Step, ...]) -> bool:
    """The host's half comes first, then the address, then the record, then what makes the guest look at it."""
    rank = {"signal": 0, "translate": 1, "record_guest_error": 2, "inject_abort": 3}
    first = {kind: index for index, kind in reversed(list(enumerate(step.kind for step in plan)))}
    present = [first[kind] for kind in sorted(rank, key=lambda kind: rank[kind]) if kind in first]
    return present == sorted(present)
