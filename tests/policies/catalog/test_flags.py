"""Behaviour flags and the releases that set them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ras_triage.models.decision import Decision, ExitToVmm, InjectSerror, Oops, Panic, RecoverPcie, ReportCxl, Signal
from ras_triage.models.kvm import VcpuEvents
from ras_triage.models.records import guid
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.policies import (
    OLDEST,
    LedgerEntry,
    Policy,
    change_ledger,
    derive_policy,
    linux_policy,
    resolve_policy,
    uniform_policy,
)
from ras_triage.policies.catalog.release import Release, parse_mainline, parse_release
from ras_triage.policies.guest.kvm import InjectionOutcome, VcpuState, set_vcpu_events
from tests.policies.events import (
    ALL,
    AO,
    AR,
    BUSKERN,
    CORRECTED,
    ESR_USER,
    FAR,
    FATAL,
    L61,
    L73,
    L510,
    L612,
    OBJERR,
    OTHER,
    PFN,
    PID,
    SIGKILL,
    THRESHOLD,
    TID,
    VA,
    arm,
    block,
    cxl_event,
    cxl_protocol,
    decided,
    error_info,
    failures,
    host,
    logged,
    memory,
    offlined,
    other,
    outcomes,
    page,
    pcie,
    queued,
    rejected,
    repeat,
    sea,
    sei,
    signals,
    steps,
)

UNIFORM = "uniform"
PLAIN = block(memory())
TAINTED = "tainted"
INVALID = 0x10_0000_0000


class Flag(NamedTuple):
    """An event that shows a flag: what is looked at, and what it comes to without and with the flag."""

    base: str
    notification: str | dict[str, Any]
    data: bytes | None
    facts: dict[str, Any]
    look: Callable[[Decision], object]
    without: object
    having: object


def returned(decision: Decision) -> object:
    (_, kind, result, returns) = failures(decision)[0]
    return kind, result, returns


def panics(decision: Decision) -> list[tuple[str, int | None]]:
    return [(step.message, step.reboots_after_s) for step in steps(decision, Panic)]


def recovery(decision: Decision) -> tuple[list[bool], list[int | None]]:
    """Whether recovery runs for each device, and whom oopses end."""
    return [step.recovers for step in steps(decision, RecoverPcie)], [step.pid for step in steps(decision, Oops)]


def arrival(name: str) -> Callable[[Decision], object]:
    return lambda decision: [fired.since for fired in decision.rationale if fired.rule == name]


def says(words: str) -> Callable[[Decision], object]:
    return lambda decision: logged(decision, words)


def huge(state: str = "hugetlb", **facts: Any) -> dict[str, Any]:
    return page(state, **({"dirty": True, "shift": 21} | facts))


AR_T, AR_LEADER, AO_LEADER = (TID, AR, VA, 12), (PID, AR, VA, 12), (PID, AO, VA, 12)
UNMAPPED = {"unmapped": True}
BEHIND = block(arm(count=1), other(error_info(2)[:16]))
"""An ARM section that claims one error info and has none; the next section's header reads as one for page frame 0."""
LONG = block(other(), raw=(20 + 88, 70_000), tail=bytes(70_000))
SLAB = page("slab", unmapped=True)
POISONED = page(dirty=True, poisoned=True)
EAGER = [{"pid": PID, "threads": [{"tid": PID}, {"tid": TID}]}, {"pid": OTHER, "mce_kill": "early"}]
TAGGED = 0x5A << 56 | FAR
INSTRUCTION_ABORT = 0x8200_0010
LEVEL_MINUS_1 = ESR_USER & ~0x3F | 0x13
TABLE_WALK = ESR_USER & ~0x3F | 0x15
VM = {"id": "vm-1", "pid": PID, "vcpus": [{"index": 0, "tid": TID}], "sea_to_user": True}
UER = 0xBE00_0000 | 3 << 10 | 0x11
HUGE_START = VA & -(1 << 21)

SHOWN: dict[str, Flag] = {
    # GHES driver
    "arm_errors_handled": Flag(L73, "gpio", block(arm(error_info(2))), host(), queued, [], [(PFN, (), "kworker")]),
    "sea_action_required": Flag(L61, sea(), PLAIN, host(), queued, [(PFN, (), "kworker")], [(PFN, ("action_required",), "kworker")]),
    "sea_kills_when_nothing_queued": Flag(L61, sea(), block(memory(address=None)), host(), signals, [], [BUSKERN]),
    "queued_accumulates": Flag(L73, sea(), block(memory(), arm(error_info(4))), host(), signals, [BUSKERN], [AR_T]),
    "action_required_in_task_work": Flag(L73, sea(), PLAIN, host(SLAB), signals, [], [BUSKERN]),
    "pfn_left_to_memory_failure": Flag(L73, "gpio", block(memory(address=INVALID)), host(), queued, [], [(INVALID >> 12, (), "kworker")]),
    "arm_error_type_bitmask": Flag(L61, "gpio", block(arm(error_info(2))), host(), queued, [], [(PFN, (), "kworker")]),
    "arm_section_bounded": Flag(L612, "gpio", block(arm(error_info(2), size=39)), host(), says("firmware bug"), False, True),
    "arm_section_bounded_exactly": Flag(L73, "gpio", BEHIND, host(), queued, [(0, (), "kworker")], []),
    "duplicate_sea_unclaimed": Flag(L73, sea(), PLAIN, host(recent=[repeat(PLAIN)]), signals, [], [(TID, OBJERR, FAR, None)]),
    "sea_precheck": Flag(L73, sea(), block(status=0), host(), arrival("read.pending"), [None], ["7.0"]),
    "panic_honours_timeout": Flag(
        L73, "gpio", block(severity=FATAL), host(), panics, [("Fatal hardware error!", 30)], [("GHES: Fatal hardware error", None)]
    ),
    "ghes_panic_taints": Flag(L73, "gpio", block(severity=FATAL), host(), says(TAINTED), False, True),
    "block_limited_to_buffer": Flag(
        L73, {"type": "gpio", "error_block_length": 131072}, LONG, host(), lambda decision: rejected(decision, "65536"), False, True
    ),
    "aer_needs_unmasked_status": Flag(
        L73,
        "gpio",
        block(pcie(status=0)),
        host(),
        recovery,
        ([True], []),
        ([False], []),
    ),
    "aer_without_state_oopses": Flag("linux-6.17.7", "gpio", block(pcie()), host(), recovery, ([True], []), ([False], [None])),
    "aer_integrated_endpoint_recovered": Flag(
        L61, "gpio", block(pcie(valid=0x89, bus=0, port_type=9)), host(pci_devices=None), recovery, ([True], [None]), ([True], [])
    ),
    "cxl_events_dispatched": Flag(L612, "gpio", block(cxl_event()), host(), lambda decision: len(steps(decision, ReportCxl)), 0, 1),
    "cxl_protocol_errors_dispatched": Flag(
        L73, "gpio", block(cxl_protocol()), host(), lambda decision: len(steps(decision, ReportCxl)), 0, 1
    ),
    "sdei_always_built": Flag(L61, "sdei", PLAIN, host(config=None), lambda decision: decision.certainty, "depends", "certain"),
    # arm64 exceptions and KVM
    "exception_taints": Flag(L61, sea(), None, host(), says(TAINTED), False, True),
    "walk_level_minus_1_is_sea": Flag(L612, sea(LEVEL_MINUS_1), PLAIN, host(), signals, [(TID, SIGKILL, None, None)], [AR_T]),
    "abort_address_untagged": Flag(
        L61, sea(INSTRUCTION_ABORT, fault_address=TAGGED), None, host(), signals, [(TID, OBJERR, TAGGED, None)], [(TID, OBJERR, FAR, None)]
    ),
    "kvm_runs_task_work": Flag(
        L61,
        sea(taken_from="guest"),
        PLAIN,
        host(page("shmem", dirty=False)),
        lambda decision: any("stage 2" in reason for reason in decision.reasons),
        True,
        False,
    ),
    "kvm_walk_level_minus_1_is_sea": Flag(
        L612, sea(LEVEL_MINUS_1, taken_from="guest"), None, host(), lambda decision: len(steps(decision, InjectSerror)), 0, 1
    ),
    "kvm_sea_to_user": Flag(L73, sea(taken_from="guest"), None, host(vms=[VM]), lambda decision: len(steps(decision, ExitToVmm)), 0, 1),
    # memory failure
    "free_page_taken_at_once": Flag(
        L61, "gpio", PLAIN, host(page("free", **UNMAPPED)), returned, ("free buddy page", "delayed", 0), ("free buddy page", "recovered", 0)
    ),
    "free_huge_page_recovered": Flag(
        L61,
        "gpio",
        PLAIN,
        host(huge("hugetlb_free", **UNMAPPED)),
        returned,
        ("free huge page", "delayed", 0),
        ("free huge page", "recovered", 0),
    ),
    "pcp_drained": Flag(
        L61,
        "gpio",
        PLAIN,
        host(page("free_pcp", **UNMAPPED)),
        returned,
        ("high-order kernel page", "ignored", -16),
        ("free buddy page", "recovered", 0),
    ),
    "unhandlable_not_pinned": Flag(
        L510, "gpio", PLAIN, host(SLAB), returned, ("kernel slab page", "failed", -16), ("high-order kernel page", "ignored", -16)
    ),
    "unhandlable_refused_early": Flag(
        L510, "gpio", PLAIN, host(SLAB), returned, ("kernel slab page", "failed", -16), ("unknown page", "ignored", -16)
    ),
    "get_hwpoison_page_type": Flag(
        L612, "gpio", PLAIN, host(SLAB), returned, ("unknown page", "ignored", -16), ("get hwpoison page", "ignored", -16)
    ),
    "kernel_owned_type": Flag(
        L73, "gpio", PLAIN, host(SLAB), returned, ("get hwpoison page", "ignored", -16), ("reserved kernel page", "ignored", -16)
    ),
    "extra_references_tolerated": Flag(
        L61,
        "gpio",
        PLAIN,
        host(page(dirty=True, pinned=True)),
        returned,
        ("dirty LRU page", "failed", -16),
        ("dirty LRU page", "recovered", 0),
    ),
    "unmap_failure_kills_clean": Flag(
        L61, "gpio", PLAIN, host(page("page_cache", dirty=False, unmap_fails=True), early=1), signals, [], [(PID, SIGKILL, None, None)]
    ),
    "unmap_failure_sends_sigbus": Flag(
        L612, "gpio", PLAIN, host(page(dirty=True, unmap_fails=True), early=1), signals, [(PID, SIGKILL, None, None)], [AO_LEADER]
    ),
    "ksm_handled": Flag(L612, "gpio", PLAIN, host(page("ksm", dirty=True), early=1), signals, [], [AO_LEADER]),
    "thp_split_failure_kills": Flag(L612, "gpio", PLAIN, host(huge("thp", split_fails=True), early=1), signals, [], [(PID, AO, VA, 21)]),
    "thp_split_reads_subpages": Flag(
        "linux-6.17.5",
        "gpio",
        PLAIN,
        host(huge("thp")),
        lambda decision: [known.fact for known in decision.assumptions],
        [],
        ["host.pages.split_fails"],
    ),
    "swapped_in_page_is_dirty": Flag(
        L612,
        "gpio",
        PLAIN,
        host(page("swap_cache")),
        returned,
        ("clean swapcache page", "recovered", 0),
        ("dirty swapcache page", "delayed", 0),
    ),
    "file_thp_handled": Flag(
        L61, "gpio", PLAIN, host(huge("file_thp")), returned, ("high-order kernel page", "ignored", -16), ("dirty LRU page", "recovered", 0)
    ),
    "gigantic_hugetlb_handled": Flag(
        L61, "gpio", PLAIN, host(huge(shift=30)), returned, ("non-pmd-sized huge page", "ignored", -16), ("huge page", "recovered", 0)
    ),
    "hugetlb_signal_names_base_page": Flag(
        L612, "gpio", PLAIN, host(huge(), early=1), signals, [(PID, AO, HUGE_START, 21)], [(PID, AO, VA, 21)]
    ),
    "hugetlb_tail_not_collected": Flag(L612, "gpio", PLAIN, host(huge(), early=1), signals, [(PID, AO, VA, 21)], []),
    "shmem_page_kept": Flag(L61, "gpio", PLAIN, host(page("shmem", dirty=True)), says("stays in the page cache"), False, True),
    "hugetlbfs_page_kept": Flag(L61, "gpio", PLAIN, host(huge(file_backed=True)), says("stays in the page cache"), False, True),
    "dax_early_kill": Flag(L61, "gpio", PLAIN, host(huge("dax"), early=1), signals, [], [(PID, AO, VA, 21)]),
    "action_optional_to_others": Flag(
        L73, sea(), PLAIN, host(page("anonymous", PID, OTHER, dirty=True), tasks=EAGER), signals, [AR_T], [AR_T, (OTHER, AO, VA, 12)]
    ),
    "kill_accessing_process": Flag(L73, sea(), PLAIN, host(POISONED), signals, [], [AR_T]),
    "kill_accessing_absent_is_fine": Flag(L73, sea(), PLAIN, host(page(dirty=True, poisoned=True, unmapped=True)), signals, [BUSKERN], []),
    "kill_accessing_names_base_page": Flag(
        L73, sea(), PLAIN, host(huge(poisoned=True, file_backed=True)), signals, [(TID, AR, HUGE_START, 21)], [(TID, AR, VA, 21)]
    ),
    "already_poisoned_reported": Flag(
        L612, "gpio", PLAIN, host(POISONED), returned, (None, None, -133), ("already poisoned page", "failed", -133)
    ),
    "already_poisoned_page_type": Flag(
        L612, "gpio", PLAIN, host(POISONED), returned, ("already poisoned", "failed", -133), ("already poisoned page", "failed", -133)
    ),
    "second_hugetlb_error_is_huge_page": Flag(
        L73,
        "gpio",
        PLAIN,
        host(huge(poisoned=True, file_backed=True)),
        returned,
        ("already poisoned page", "failed", -133),
        ("huge page", "failed", -133),
    ),
    "panic_on_unrecoverable_sysctl": Flag(
        L73,
        "gpio",
        PLAIN,
        host(SLAB, sysctl={"vm.panic_on_unrecoverable_memory_failure": 1}),
        lambda decision: [step.cause for step in steps(decision, Panic)],
        [],
        ["memory_failure"],
    ),
    "soft_offline_sysctl": Flag(
        L612,
        "gpio",
        block(memory(CORRECTED, THRESHOLD), severity=CORRECTED),
        host(sysctl={"vm.enable_soft_offline": 0}),
        offlined,
        [(PFN, "recovered", 0)],
        [(PFN, "ignored", -95)],
    ),
    "soft_offline_kernel_page_errno": Flag(
        L73,
        "gpio",
        block(memory(CORRECTED, THRESHOLD), severity=CORRECTED),
        host(SLAB),
        offlined,
        [(PFN, "failed", -5)],
        [(PFN, "failed", -131)],
    ),
    "poisoned_hugetlb_not_migratable": Flag(
        L73,
        "gpio",
        block(memory(CORRECTED, THRESHOLD), severity=CORRECTED),
        host(huge(poisoned=True, file_backed=True)),
        offlined,
        [(PFN, "recovered", 0)],
        [(PFN, "failed", -5)],
    ),
    # principles that no kernel holds yet
    "reads_every_notification": Flag(UNIFORM, "nmi", PLAIN, host(), queued, [], [(PFN, (), "kworker")]),
    "abort_in_kernel_reads_record": Flag(
        UNIFORM,
        sea(0x9600_0010, taken_from="kernel"),
        block(memory(CORRECTED), severity=CORRECTED),
        host(),
        lambda decision: (decision.action.value, rejected(decision, "does not call APEI")),
        ("signal", True),
        ("handled", False),
    ),
    "corrected_never_signals": Flag(UNIFORM, sea(), block(memory(CORRECTED), severity=CORRECTED), host(), signals, [BUSKERN], []),
    "worst_section_panics": Flag(
        UNIFORM, "gpio", block(memory(FATAL)), host(), lambda decision: [step.cause for step in steps(decision, Panic)], [], ["ghes"]
    ),
    "duplicates_only_unprinted": Flag(UNIFORM, "sdei", PLAIN, host(recent=[repeat(PLAIN)]), queued, [], [(PFN, (), "kworker")]),
    "walk_abort_is_bus_error": Flag(
        UNIFORM, sea(TABLE_WALK), None, host(), signals, [(TID, SIGKILL, None, None)], [(TID, OBJERR, FAR, None)]
    ),
    "serror_ends_context": Flag(
        UNIFORM, sei(UER), None, host(), lambda decision: (signals(decision), len(panics(decision))), ([], 1), ([BUSKERN], 0)
    ),
    "guest_access_signals_alike": Flag(
        UNIFORM,
        "gpio",
        PLAIN,
        host(vms=[VM]),
        lambda decision: [(step.tid, step.forced) for step in decision.next_access if isinstance(step, Signal)],
        [(TID, False)],
        [(PID, True)],
    ),
    "arm_error_types_heeded": Flag(
        UNIFORM, "gpio", block(arm(error_info(2))), host(arm_error_types="legacy"), queued, [(PFN, (), "kworker")], []
    ),
}


class Answer(NamedTuple):
    """Events that show a flag in what KVM_SET_VCPU_EVENTS comes to."""

    events: VcpuEvents
    vcpu: VcpuState
    look: Callable[[InjectionOutcome], object]
    without: object
    having: object


REFUSED = VcpuEvents(serror_pending=1, serror_has_esr=1, ext_dabt_pending=1, serror_esr=0x11)
ABORTED = VcpuState(host_ras=True, guest_ras=True, serror_masked=False)
ANSWERED: dict[str, Answer] = {
    "kvm_serror_emulated": Answer(
        VcpuEvents(serror_pending=1),
        VcpuState(host_ras=False, guest_ras=False, serror_masked=False),
        lambda done: done.guest_esr,
        0xBE00_0000,
        0xBF00_0000,
    ),
    "kvm_ext_dabt_first": Answer(
        REFUSED,
        VcpuState(host_ras=False, guest_ras=False, serror_masked=None),
        lambda done: (done.errno, done.guest_esr),
        (22, None),
        (22, 0x9600_0010),
    ),
    "kvm_serror_entry_without_il": Answer(
        VcpuEvents(serror_pending=1),
        ABORTED,
        lambda done: done.guest_esr,
        0xBF00_0000,
        0xBD00_0000,
    ),
    "kvm_abort_syndrome_sign_extended": Answer(
        VcpuEvents(ext_dabt_pending=1), ABORTED, lambda done: done.guest_esr, 0x9600_0010, 0xFFFF_FFFF_9600_0010
    ),
    "kvm_abort_il_always_set": Answer(VcpuEvents(ext_dabt_pending=1), ABORTED, lambda done: len(done.assumptions), 2, 1),
}


def variant(base: str, flag: str, value: bool) -> Policy:
    return derive_policy(f'name = "variant"\nbase = "{base}"\n[flags]\n{flag} = {str(value).lower()}\n')


@pytest.mark.parametrize("flag", SHOWN)
def test_a_flag_changes_what_is_decided(flag: str) -> None:
    shown = SHOWN[flag]
    seen = [shown.look(decided(variant(shown.base, flag, value), shown.notification, shown.data, shown.facts)) for value in (False, True)]
    assert seen == [shown.without, shown.having]


@pytest.mark.parametrize("flag", ANSWERED)
def test_a_flag_changes_what_an_injection_comes_to(flag: str) -> None:
    shown = ANSWERED[flag]
    seen = [shown.look(set_vcpu_events(shown.events, shown.vcpu, variant(L73, flag, value))) for value in (False, True)]
    assert seen == [shown.without, shown.having]


def test_every_flag_is_shown_to_change_something() -> None:
    assert set(SHOWN) | set(ANSWERED) | {"ghes_assist_sources_skipped"} == set(FLAGS), "the one flag is shown in test_error_sources.py"


def test_a_user_policy_has_a_digest_of_its_own_for_each_flag() -> None:
    digests = {variant(L73, flag, not getattr(resolve_policy(L73).behaviours, flag)).digest for flag in FLAGS}
    assert len(digests) == len(FLAGS)
    assert resolve_policy(L73).digest not in digests


HELD = {
    "sea_action_required": (1, 1, 1, 1),
    "sea_kills_when_nothing_queued": (0, 1, 1, 1),
    "queued_accumulates": (0, 0, 0, 1),
    "action_required_in_task_work": (0, 0, 0, 1),
    "pfn_left_to_memory_failure": (0, 0, 0, 1),
    "arm_error_type_bitmask": (0, 1, 1, 1),
    "arm_section_bounded": (0, 0, 1, 1),
    "arm_section_bounded_exactly": (0, 0, 0, 1),
    "duplicate_sea_unclaimed": (0, 0, 0, 1),
    "sea_precheck": (0, 0, 0, 1),
    "panic_honours_timeout": (0, 1, 1, 1),
    "ghes_panic_taints": (0, 1, 1, 1),
    "exception_taints": (0, 1, 1, 1),
    "block_limited_to_buffer": (0, 1, 1, 1),
    "cxl_events_dispatched": (0, 0, 1, 1),
    "cxl_protocol_errors_dispatched": (0, 0, 0, 1),
    "aer_needs_unmasked_status": (0, 0, 0, 1),
    "aer_without_state_oopses": (0, 0, 0, 0),
    "aer_integrated_endpoint_recovered": (0, 1, 1, 1),
    "sdei_always_built": (0, 1, 1, 1),
    "soft_offline_sysctl": (0, 0, 1, 1),
    "panic_on_unrecoverable_sysctl": (0, 0, 0, 1),
    "soft_offline_kernel_page_errno": (0, 0, 0, 1),
    "poisoned_hugetlb_not_migratable": (0, 0, 1, 1),
    "ghes_assist_sources_skipped": (0, 0, 1, 1),
    "kill_accessing_process": (0, 1, 1, 1),
    "kill_accessing_absent_is_fine": (0, 1, 1, 1),
    "kill_accessing_names_base_page": (0, 0, 1, 1),
    "already_poisoned_reported": (0, 0, 1, 1),
    "already_poisoned_page_type": (0, 0, 1, 1),
    "second_hugetlb_error_is_huge_page": (0, 0, 1, 1),
    "action_optional_to_others": (0, 1, 1, 1),
    "dax_early_kill": (0, 1, 1, 1),
    "unmap_failure_kills_clean": (0, 1, 1, 1),
    "unmap_failure_sends_sigbus": (0, 0, 1, 1),
    "ksm_handled": (0, 0, 1, 1),
    "thp_split_failure_kills": (0, 0, 1, 1),
    "file_thp_handled": (0, 1, 1, 1),
    "thp_split_reads_subpages": (0, 0, 0, 0),
    "swapped_in_page_is_dirty": (0, 0, 0, 0),
    "gigantic_hugetlb_handled": (0, 1, 1, 1),
    "hugetlb_signal_names_base_page": (0, 0, 1, 1),
    "hugetlb_tail_not_collected": (0, 0, 0, 0),
    "shmem_page_kept": (0, 1, 1, 1),
    "hugetlbfs_page_kept": (0, 1, 1, 1),
    "extra_references_tolerated": (0, 1, 1, 1),
    "free_page_taken_at_once": (0, 1, 1, 1),
    "free_huge_page_recovered": (0, 1, 1, 1),
    "pcp_drained": (0, 1, 1, 1),
    "unhandlable_not_pinned": (0, 1, 1, 1),
    "unhandlable_refused_early": (0, 1, 1, 1),
    "get_hwpoison_page_type": (0, 0, 1, 1),
    "kernel_owned_type": (0, 0, 0, 1),
    "walk_level_minus_1_is_sea": (0, 0, 1, 1),
    "abort_address_untagged": (0, 1, 1, 1),
    "kvm_walk_level_minus_1_is_sea": (0, 0, 1, 1),
    "kvm_serror_emulated": (0, 0, 0, 1),
    "kvm_serror_entry_without_il": (0, 0, 0, 0),
    "kvm_abort_syndrome_sign_extended": (0, 1, 0, 0),
    "kvm_abort_il_always_set": (0, 0, 0, 1),
    "kvm_ext_dabt_first": (0, 0, 0, 1),
    "kvm_sea_to_user": (0, 0, 0, 1),
    "kvm_runs_task_work": (0, 1, 1, 1),
    "arm_errors_handled": (1, 1, 1, 1),
}
"""What the four releases that were read have: 5.10.223, 6.1.192, 6.12.107, 7.3.4."""

PRINCIPLES = (
    "reads_every_notification",
    "abort_in_kernel_reads_record",
    "corrected_never_signals",
    "worst_section_panics",
    "duplicates_only_unprinted",
    "walk_abort_is_bus_error",
    "serror_ends_context",
    "guest_access_signals_alike",
    "arm_error_types_heeded",
)


@pytest.mark.parametrize("flag", HELD)
def test_the_releases_that_were_read_have_the_flags_they_have(flag: str) -> None:
    assert tuple(int(getattr(resolve_policy(policy).behaviours, flag)) for policy in ALL) == HELD[flag]


def test_principles_are_held_by_no_kernel_and_by_the_uniform_policy() -> None:
    assert set(HELD) | set(PRINCIPLES) == set(FLAGS)
    for flag in PRINCIPLES:
        assert [getattr(resolve_policy(policy).behaviours, flag) for policy in (*ALL, UNIFORM)] == [False] * 4 + [True]


def test_the_uniform_policy_is_otherwise_the_newest_kernel() -> None:
    same = [flag for flag in FLAGS if flag not in PRINCIPLES]
    assert [getattr(uniform_policy().behaviours, flag) for flag in same] == [getattr(resolve_policy(L73).behaviours, flag) for flag in same]


FLIPS = {
    "sea_action_required": ("5.10.210", "6.1.77", "6.8.0"),
    "sea_kills_when_nothing_queued": ("6.1.164", "6.12.43", "6.17.0"),
    "queued_accumulates": ("6.12.118", "7.3.4"),
    "duplicate_sea_unclaimed": ("6.12.117", "7.3.0"),
    "hugetlb_tail_not_collected": ("6.6.11", "6.7.0"),
    "hugetlb_signal_names_base_page": ("6.6.11", "6.7.0"),
    "action_required_in_task_work": ("6.17.0",),
    "pfn_left_to_memory_failure": ("6.19.0",),
    "panic_honours_timeout": ("6.1.129", "6.12.14", "6.14.0"),
    "ghes_panic_taints": ("6.1.149", "6.12.43", "6.17.0"),
    "exception_taints": ("6.1.149", "6.12.43", "6.17.0"),
    "arm_error_type_bitmask": ("6.1.160", "6.12.63", "6.19.0"),
    "arm_section_bounded": ("6.12.75", "7.0.0"),
    "block_limited_to_buffer": ("6.1.165", "6.12.75", "7.0.0"),
    "sdei_always_built": ("6.1.142", "6.12.34"),
    "action_optional_to_others": ("5.11.0",),
    "kill_accessing_process": ("5.14.0",),
    "kill_accessing_absent_is_fine": ("5.15.181", "6.1.135", "6.12.24", "6.15.0"),
    "kill_accessing_names_base_page": ("6.12.69", "6.19.0"),
    "second_hugetlb_error_is_huge_page": ("6.12.69", "6.18.9", "6.19.0"),
    "already_poisoned_reported": ("6.11.0",),
    "already_poisoned_page_type": ("6.12.48", "6.16.8", "6.17.0"),
    "aer_without_state_oopses": ("6.16.0",),
    "thp_split_reads_subpages": ("6.12.0",),
    "swapped_in_page_is_dirty": ("6.11.0",),
    "soft_offline_sysctl": ("6.11.0",),
    "ksm_handled": ("6.4.0",),
    "arm_errors_handled": ("5.12.17", "5.13.2", "5.14.0"),
    "kvm_walk_level_minus_1_is_sea": ("6.8.0",),
    "walk_level_minus_1_is_sea": ("6.9.0",),
    "kvm_serror_emulated": ("6.17.0",),
    "kvm_serror_entry_without_il": ("6.17.0",),
    "kvm_abort_syndrome_sign_extended": ("5.19.0",),
    "kvm_abort_il_always_set": ("7.2.0",),
    "kvm_ext_dabt_first": ("6.17.0",),
}
"""Releases at which a behaviour arrives: mainline, and stable releases that carried it back."""

NEVER = {
    "sea_kills_when_nothing_queued": ("5.10.223", "5.10.999", "6.1.163", "6.12.42"),
    "action_required_in_task_work": ("6.1.999", "6.12.999", "6.16.999"),
    "queued_accumulates": ("6.1.999", "6.12.117", "7.2.999", "7.3.0"),
    "pfn_left_to_memory_failure": ("6.12.999", "6.18.999"),
    "duplicate_sea_unclaimed": ("6.12.116", "7.2.999"),
    "hugetlb_tail_not_collected": ("6.1.999", "6.6.10", "6.6.88", "6.13.12"),
    "arm_section_bounded_exactly": ("7.1.999",),
    "sea_precheck": ("6.12.999",),
    "arm_section_bounded": ("5.10.999", "6.1.999"),
    "exception_taints": ("5.10.999",),
    "aer_needs_unmasked_status": ("6.12.999",),
    "thp_split_reads_subpages": ("6.11.999", "6.12.56", "6.17.6", "6.18.0"),
    "swapped_in_page_is_dirty": ("6.10.999", "6.12.56", "6.17.6", "6.18.0"),
    "aer_without_state_oopses": ("6.12.999", "6.15.999", "6.17.8", "6.18.0"),
    "cxl_events_dispatched": ("6.1.999",),
    "cxl_protocol_errors_dispatched": ("6.12.999",),
    "kill_accessing_process": ("5.10.999",),
    "kill_accessing_names_base_page": ("6.1.999",),
    "action_optional_to_others": ("5.10.999",),
    "already_poisoned_page_type": ("6.11.999", "6.13.999", "6.15.999"),
    "second_hugetlb_error_is_huge_page": ("6.1.999", "6.17.999"),
    "soft_offline_sysctl": ("6.1.999",),
    "kvm_sea_to_user": ("6.12.999",),
    "kvm_serror_emulated": ("6.12.999",),
    "kvm_serror_entry_without_il": ("6.16.999", "7.2.0", "7.3.4"),
    "kvm_abort_syndrome_sign_extended": ("5.10.999", "5.15.999", "6.6.54", "6.10.13", "6.12.0"),
    "kvm_ext_dabt_first": ("6.12.999", "6.16.999"),
    "kvm_walk_level_minus_1_is_sea": ("6.1.999", "6.7.999"),
    "kvm_runs_task_work": ("5.10.999",),
    "walk_level_minus_1_is_sea": ("6.1.999",),
}
"""Releases of series that never got a behaviour, or not yet."""


def before(release: Release) -> Release:
    """The last release of the same series, or the first of the series before, without what `release` brought."""
    if release.patch:
        return Release(release.major, release.minor, release.patch - 1)
    if release.minor:
        return max(OLDEST, Release(release.major, release.minor - 1, 0))
    return {7: Release(6, 19, 0), 6: Release(5, 19, 0)}[release.major]


def has(release: Release, flag: str) -> bool:
    return bool(getattr(linux_policy(release).behaviours, flag))


@pytest.mark.parametrize(("flag", "release"), [(flag, release) for flag, releases in FLIPS.items() for release in releases])
def test_a_behaviour_arrives_with_the_release_that_brought_it(flag: str, release: str) -> None:
    first = parse_mainline(release)
    assert (has(before(first), flag), has(first, flag)) == (False, True)
    assert linux_policy(first).since[flag] == first.brief


@pytest.mark.parametrize(("flag", "release"), [(flag, release) for flag, releases in NEVER.items() for release in releases])
def test_a_series_that_never_got_a_behaviour_does_not_have_it(flag: str, release: str) -> None:
    assert not has(parse_release(release), flag)


def test_an_old_stable_release_lacks_what_its_series_got_later() -> None:
    old = linux_policy(parse_release("6.1.100")).behaviours
    later = ("sea_kills_when_nothing_queued", "arm_error_type_bitmask", "panic_honours_timeout", "exception_taints", "ghes_panic_taints")
    assert not any(getattr(old, flag) for flag in later)
    assert all(getattr(resolve_policy(L61).behaviours, flag) for flag in later)
    assert old.sea_action_required


CHANGES = [pytest.param(change, release, id=f"{change.flag}-{release}") for change in change_ledger() for release in change.stable]


@pytest.mark.parametrize(("change", "release"), CHANGES)
def test_a_back_port_counts_from_its_own_stable_release_on(change: LedgerEntry, release: Release) -> None:
    assert release.patch is not None
    assert release.series < change.mainline.series
    previous = before(release)
    if previous >= OLDEST:
        assert has(release, change.flag)
        assert not has(previous, change.flag)
        assert linux_policy(release).since[change.flag] == release.brief


ENDS = [pytest.param(change, release, id=f"{change.flag}-{release}") for change in change_ledger() for release in change.ended]


@pytest.mark.parametrize(("change", "release"), ENDS)
def test_a_behaviour_ends_with_the_release_that_took_it_away(change: LedgerEntry, release: Release) -> None:
    assert (has(before(release), change.flag), has(release, change.flag)) == (True, False)


@pytest.mark.parametrize("change", [pytest.param(change, id=change.flag) for change in change_ledger()])
def test_every_series_from_mainline_on_has_a_behaviour_until_it_ends(change: LedgerEntry) -> None:
    following = Release(change.mainline.major, change.mainline.minor + 1, 0)
    assert has(change.mainline, change.flag)
    assert has(following, change.flag)
    assert change.mainline.series <= (5, 11) or not has(before(Release(*change.mainline.series, 0)), change.flag) or change.ended


def test_the_ledger_has_one_line_for_each_behaviour_of_a_kernel() -> None:
    assert sorted(change.flag for change in change_ledger()) == sorted(HELD)


def test_a_series_without_its_stable_release_is_taken_with_every_back_port_and_said_to_depend() -> None:
    decision = decided("linux-6.1.x", sea(), block(memory(address=None)))
    assert signals(decision) == [BUSKERN]
    assert decision.certainty == "depends"
    assert any("every backport" in reason for reason in decision.reasons)


def test_a_rule_that_a_flag_decided_says_since_when() -> None:
    decision = decided(L61, sea(), block(memory(address=None)))
    assert [fired.since for fired in decision.rationale if fired.rule == "exceptions.nothing_queued"] == ["6.1.164"]
    assert outcomes(decision, "exceptions.nothing_queued") == ["nothing queued: SIGBUS for the interrupted thread"]


def test_section_types_have_the_guids_that_kernels_compare_with() -> None:
    assert guid.guid_text(guid.MEMORY) == "a5bc1114-6f64-4ede-b863-3e83ed7c83b1"
    assert guid.guid_text(guid.CXL_PROTOCOL) == "80b9efb4-52b5-4de3-a777-68784b771048"
