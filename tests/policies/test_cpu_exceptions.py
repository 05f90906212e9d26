"""CPU exceptions without a record: SErrors and unclaimed aborts."""

from __future__ import annotations

import struct
from itertools import product
from typing import Any

import pytest

from ras_triage.models.decision import Action, Decision, ExitToVmm, InjectSerror, Oops, Panic, Signal
from tests.policies.events import (
    ALL,
    BUSKERN,
    CORRECTED,
    ESR_USER,
    FAR,
    FATAL,
    FNV,
    KERNEL,
    L61,
    L73,
    L510,
    L612,
    OBJERR,
    PFN,
    PID,
    S1PTW,
    SIGKILL,
    TID,
    block,
    decided,
    failures,
    host,
    logged,
    memory,
    outcomes,
    queued,
    rejected,
    repeat,
    sea,
    sei,
    signals,
    steps,
)

UNIFORM = "uniform"
IDS = 1 << 24
UEU_ISS = 1 << 10 | 0x11
TAINTS = (L61, L612, L73)


# SErrors


def serror(aet: int, dfsc: int, ids: int = 0, rest: int = 0) -> int:
    return 0xBE00_0000 | ids << 24 | aet << 10 | dfsc | rest


def classify(ids: int, ras: bool, dfsc: int, aet: int) -> str:
    """The table of SError syndromes, written down a second time."""
    if ids or not ras:
        return "not-ras"
    if dfsc != 0x11:
        return "uncategorised"
    return {0: "uncontainable", 1: "fatal", 2: "nothing", 3: "fatal", 6: "nothing"}.get(aet, "reserved")


HOST = {"not-ras": "panic", "uncategorised": "panic", "uncontainable": "panic", "reserved": "panic", "fatal": "panic", "nothing": "nothing"}
GUEST = HOST | {"not-ras": "inject", "fatal": "inject"}


def action_taken(decision: Decision) -> str:
    if steps(decision, Panic):
        return "panic"
    return "inject" if steps(decision, InjectSerror) else "nothing"


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("where", ["user", "kernel", "guest"])
@pytest.mark.parametrize("ras", [True, False])
def test_every_serror_syndrome_comes_to_what_its_class_says(policy: str, where: str, ras: bool) -> None:
    table = GUEST if where == "guest" else HOST
    for ids, aet, dfsc in product((0, 1), range(8), (0, 0x10, 0x11, 0x12, 0x3F)):
        kind = classify(ids, ras, dfsc, aet)
        decision = decided(policy, sei(serror(aet, dfsc, ids), where), None, host(ras_extension=ras))
        assert action_taken(decision) == table[kind], (ids, aet, dfsc)
        assert signals(decision) == []
        assert decision.certainty == "certain"
        assert len(outcomes(decision, "exceptions.serror")) == 1


@pytest.mark.parametrize("dfsc", range(64))
def test_only_one_fault_status_code_makes_the_error_type_mean_something(dfsc: int) -> None:
    decision = decided(L73, sei(serror(6, dfsc)))
    assert action_taken(decision) == ("nothing" if dfsc == 0x11 else "panic")


def test_bits_beside_the_class_of_an_serror_are_ignored() -> None:
    for rest in (1 << 9, 1 << 13, 1 << 9 | 1 << 13, 1 << 6, 1 << 37):
        assert action_taken(decided(L612, sei(serror(6, 0x11, rest=rest)))) == "nothing"
        assert action_taken(decided(L612, sei(serror(0, 0x11, rest=rest)))) == "panic"


@pytest.mark.parametrize("policy", ALL)
def test_an_serror_panic_says_what_the_kernel_says_and_taints_newer_ones(policy: str) -> None:
    decision = decided(policy, sei(serror(3, 0x11)), None, host(sysctl={"kernel.panic": 10}))
    assert [(step.cause, step.message, step.reboots_after_s) for step in steps(decision, Panic)] == [
        ("serror", "Asynchronous SError Interrupt", 10)
    ]
    assert logged(decision, "tainted") == (policy in TAINTS)
    assert decision.action is Action.PANIC


@pytest.mark.parametrize("policy", ALL)
def test_a_record_is_never_read_for_an_serror(policy: str) -> None:
    for severity in (FATAL, CORRECTED):
        decision = decided(policy, sei(serror(2, 0x11)), block(memory(), severity=severity))
        assert action_taken(decision) == "nothing"
        assert queued(decision) == []
        assert rejected(decision, "at probe")


NO_RAS_UNMASKED = dict.fromkeys(ALL, 0xBE00_0000) | {L73: 0xBF00_0000}
"""ESR_EL1 on a host without the RAS extension: from the CPU, or from KVM, which chooses an IMPLEMENTATION DEFINED syndrome."""


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize(
    ("ras", "masked", "iss", "guest_esr"),
    [(True, True, IDS, 0xBF00_0000), (True, False, IDS, 0xBF00_0000), (False, True, 0, 0xBE00_0000)],
)
def test_a_guest_gets_an_serror_without_the_hosts_syndrome(policy: str, ras: bool, masked: bool, iss: int, guest_esr: int) -> None:
    vm = {"id": "vm-1", "pid": PID, "guest": {"serror_masked": masked}}
    decision = decided(policy, sei(serror(3, 0x11), "guest"), None, host(ras_extension=ras, vms=[vm]))
    (step,) = steps(decision, InjectSerror)
    assert (step.vsesr_el2, step.guest_esr, step.has_esr) == (iss, guest_esr, ras)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, int(ras), 0, iss)
    assert decision.action is Action.INJECT


def test_the_injected_serror_names_the_vcpu_that_was_running() -> None:
    vm = {"id": "vm-1", "pid": PID, "vcpus": [{"index": 0, "tid": 110}, {"index": 3, "tid": TID}]}
    (step,) = steps(decided(L73, sei(serror(1, 0x11), "guest"), None, host(vms=[vm])), InjectSerror)
    assert (step.vm, step.vcpu) == ("vm-1", 3)


def test_a_fault_address_given_with_an_serror_is_ignored_with_a_warning() -> None:
    decision = decided(L73, sei(serror(3, 0x11), fault_address=FAR))
    assert [warning.code for warning in decision.warnings] == ["far_meaningless_for_serror"]
    assert decision.plan == decided(L73, sei(serror(3, 0x11))).plan


def test_without_a_syndrome_an_sei_notification_is_only_a_source_that_is_not_read() -> None:
    decision = decided(L73, "sei", block(memory(), severity=FATAL))
    assert decision.action is Action.HANDLED
    assert any(assumption.fact == "notification.syndrome" for assumption in decision.assumptions)


@pytest.mark.parametrize(
    ("where", "aet", "expected"),
    [
        *((where, aet, "nothing") for where in ("user", "kernel", "guest") for aet in (2, 6)),
        *((where, aet, "panic") for where in ("user", "kernel", "guest") for aet in (0, 4, 5, 7)),
        *(("kernel", aet, "panic") for aet in (1, 3)),
        *(("guest", aet, "inject") for aet in (1, 3)),
    ],
)
def test_the_uniform_policy_ends_the_smallest_context_that_an_serror_interrupted(where: str, aet: int, expected: str) -> None:
    decision = decided(UNIFORM, sei(serror(aet, 0x11), where))
    assert action_taken(decision) == expected
    for step in steps(decision, InjectSerror):
        assert step.vsesr_el2 == UEU_ISS


def test_the_uniform_policy_ends_a_user_thread_for_an_serror_that_it_cannot_go_on_from() -> None:
    for aet in (1, 3):
        decision = decided(UNIFORM, sei(serror(aet, 0x11)))
        assert signals(decision) == [BUSKERN]
        assert decision.action is Action.SIGNAL
    for where in ("user", "guest"):
        assert action_taken(decided(UNIFORM, sei(serror(6, 0x11, ids=1), where))) == "panic"
        assert action_taken(decided(UNIFORM, sei(serror(6, 0x10), where))) == "panic"


# Aborts that no record claims

EXTERNAL = (0x10, 0x13, *range(0x14, 0x19), *range(0x1B, 0x20))
ON_ACCESS = (0x10, 0x18)
LEVEL_MINUS_1 = (0x13, 0x1B)


def abort(fsc: int, exception_class: int = 0x24, **fields: Any) -> dict[str, Any]:
    return sea(exception_class << 26 | 1 << 25 | fsc, **fields)


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("fsc", EXTERNAL, ids=hex)
@pytest.mark.parametrize("exception_class", [0x20, 0x24], ids=["instruction", "data"])
def test_an_unclaimed_abort_brings_what_the_kernels_fault_table_says(policy: str, fsc: int, exception_class: int) -> None:
    decision = decided(policy, abort(fsc, exception_class))
    expected = (TID, OBJERR, FAR, None) if fsc in ON_ACCESS else (TID, SIGKILL, None, None)
    assert signals(decision) == [expected]
    (fired,) = [fired for fired in decision.rationale if fired.rule == "exceptions.unclaimed"]
    assert fired.mirrors == ("do_bad" if fsc in LEVEL_MINUS_1 and policy in (L510, L61) else "do_sea")
    assert decision.certainty == "certain"


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("fsc", EXTERNAL, ids=hex)
def test_a_record_claims_an_abort_whose_handler_asks_for_one(policy: str, fsc: int) -> None:
    asks = fsc not in LEVEL_MINUS_1 or policy in (L612, L73)
    decision = decided(policy, abort(fsc), block(memory()))
    assert bool(failures(decision)) == asks
    assert rejected(decision, "does not call APEI") != asks
    assert signals(decision)[0][1] == ("BUS_MCEERR_AR" if asks else SIGKILL)


@pytest.mark.parametrize("fsc", [code for code in range(64) if code not in EXTERNAL], ids=hex)
def test_a_syndrome_that_is_no_external_abort_is_taken_for_one_with_a_warning(fsc: int) -> None:
    decision = decided(L73, abort(fsc))
    assert signals(decision) == [(TID, OBJERR, FAR, None)]
    assert [warning.code for warning in decision.warnings] == ["syndrome_not_external_abort"]


@pytest.mark.parametrize("policy", ALL)
def test_no_other_bit_of_the_syndrome_decides_anything(policy: str) -> None:
    for bits in (1 << 9, 1 << 6, 1 << 8, 3 << 11, 1 << 7):
        assert signals(decided(policy, sea(ESR_USER | bits))) == [(TID, OBJERR, FAR, None)]


@pytest.mark.parametrize("policy", ALL)
def test_a_fault_address_that_is_not_valid_is_signalled_as_zero(policy: str) -> None:
    assert signals(decided(policy, sea(ESR_USER | FNV))) == [(TID, OBJERR, 0, None)]


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize(("tag", "untagged"), [(0x5A << 56, 0), (0xFF << 56, 0)])
def test_tag_bits_of_a_fault_address_are_hidden(policy: str, tag: int, untagged: int) -> None:
    low = 0x0000_7FFF_1234_5678
    data = decided(policy, abort(0x10, 0x24, fault_address=tag | low))
    assert signals(data) == [(TID, OBJERR, untagged | low, None)]
    instruction = decided(policy, abort(0x10, 0x20, fault_address=tag | low))
    assert signals(instruction) == [(TID, OBJERR, tag | low if policy == L510 else low, None)]


def test_an_address_in_the_upper_half_keeps_its_sign() -> None:
    assert signals(decided(L73, abort(0x10, fault_address=0x00FF_8000_0000_1000))) == [(TID, OBJERR, 0xFFFF_8000_0000_1000, None)]


@pytest.mark.parametrize("policy", ALL)
def test_an_unclaimed_abort_taints_newer_kernels_and_its_signal_is_forced(policy: str) -> None:
    for fsc in (0x10, 0x15):
        decision = decided(policy, abort(fsc))
        assert logged(decision, "tainted") == (policy in TAINTS)
        assert [step.forced for step in steps(decision, Signal)] == [True]


def test_nothing_addressed_to_user_space_has_room_for_a_syndrome() -> None:
    raw = ESR_USER | 0x1C0
    for policy in (*ALL, UNIFORM):
        for step in steps(decided(policy, sea(raw)), Signal):
            assert raw not in (step.address, step.lsb, step.tid, step.pid)


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("data", [block(memory()), block(memory(), severity=FATAL), block(status=0), None])
def test_an_abort_in_the_kernel_is_an_oops_and_its_record_stays_pending(policy: str, data: bytes | None) -> None:
    decision = decided(policy, sea(0x9600_0010, taken_from="kernel"), data)
    assert [(step.pid, step.cause) for step in steps(decision, Oops)] == [(PID, "synchronous external abort")]
    assert (signals(decision), queued(decision)) == ([], [])
    assert rejected(decision, "does not call APEI")
    assert not any(step.kind == "acknowledge" for step in decision.plan)
    # the interrupted task dies, and the machine lives
    assert decision.action is Action.SIGNAL


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("facts", [{"sysctl": {"kernel.panic_on_oops": 1}}, {"current": {"pid": 1, "tid": 1}}])
def test_an_oops_ends_the_machine_where_it_was_told_to_or_lost_init(policy: str, facts: dict[str, Any]) -> None:
    decision = decided(policy, sea(0x9600_0010, taken_from="kernel"), None, host(**facts))
    assert [step.cause for step in steps(decision, Panic)] == ["oops"]
    assert len(steps(decision, Oops)) == 1


def test_an_abort_in_the_kernel_with_nobody_running_may_be_an_idle_cpu() -> None:
    decision = decided(L73, sea(0x9600_0010, taken_from="kernel"), None, host(current=None))
    assert decision.certainty == "depends"
    assert "idle" in decision.reasons[0]


def test_the_thread_of_an_unclaimed_abort_need_not_be_known() -> None:
    decision = decided(L73, sea(), None, host(current=None))
    assert signals(decision) == [(None, OBJERR, FAR, None)]
    assert any(assumption.fact == "host.current" for assumption in decision.assumptions)


@pytest.mark.parametrize("policy", [*ALL, UNIFORM])
def test_the_thread_that_consumed_a_memory_error_need_not_be_known(policy: str) -> None:
    decision = decided(policy, sea(), block(memory()), host(current=None, pages=None))
    assert signals(decision) == [(None, "BUS_MCEERR_AR", FAR & ~0xFFF, 12)]
    assert decision.action is Action.SIGNAL
    assert any(assumption.fact == "host.current" for assumption in decision.assumptions)


def test_the_uniform_policy_gives_an_abort_on_a_walk_the_same_signal() -> None:
    for fsc in EXTERNAL:
        assert signals(decided(UNIFORM, abort(fsc))) == [(TID, OBJERR, FAR, None)]


def test_the_uniform_policy_reads_the_record_of_an_abort_in_the_kernel() -> None:
    kernel = sea(0x9600_0010, taken_from="kernel")
    corrected = decided(UNIFORM, kernel, block(memory(CORRECTED), severity=CORRECTED))
    assert corrected.action is Action.HANDLED
    for data in (None, block(memory()), block()):
        assert decided(UNIFORM, kernel, data).action is Action.PANIC


# Guests


def with_vm(**facts: Any) -> dict[str, Any]:
    vm = {"id": "vm-1", "pid": PID, "vcpus": [{"index": 0, "tid": TID}], "sea_to_user": True}
    return host(**({"vms": [vm]} | facts))


@pytest.mark.parametrize("fsc", EXTERNAL, ids=hex)
@pytest.mark.parametrize("s1ptw", [0, S1PTW])
def test_kvm_exits_for_an_abort_that_is_not_its_own(fsc: int, s1ptw: int) -> None:
    notification = sea(ESR_USER & ~0x3F | fsc | s1ptw, taken_from="guest")
    decision = decided(L73, notification, None, with_vm())
    own = bool(s1ptw) and fsc in range(0x13, 0x18)
    assert (len(steps(decision, ExitToVmm)), len(steps(decision, InjectSerror))) == ((0, 1) if own else (1, 0))


def test_the_exit_shows_a_masked_syndrome() -> None:
    raw = ESR_USER | 1 << 24 | 3 << 11 | 1 << 9 | 1 << 6 | 1 << 14
    (step,) = steps(decided(L73, sea(raw, taken_from="guest"), None, with_vm()), ExitToVmm)
    assert step.fields["esr"] & ~(0x3F << 26 | 1 << 25 | 3 << 11 | 1 << 10 | 1 << 9 | 1 << 8 | 1 << 6 | 0x3F) == 0
    assert step.fields["gva"] == FAR
    (step,) = steps(decided(L73, sea(raw | FNV, taken_from="guest"), None, with_vm()), ExitToVmm)
    assert step.fields["gva"] == 0


def test_the_exit_shows_every_field_that_says_something_about_the_abort_and_no_physical_address() -> None:
    shown = (0x3F << 26, 1 << 25, 3 << 11, 1 << 9, 1 << 8, 1 << 6)
    for bits in shown:
        (step,) = steps(decided(L73, sea(bits | 0x10, taken_from="guest"), None, with_vm()), ExitToVmm)
        assert step.fields == {"flags": 0, "esr": bits | 0x10, "gva": FAR, "gpa": 0}
        assert (step.vm, step.vcpu) == ("vm-1", 0)


@pytest.mark.parametrize("policy", [L510, L61, L612])
def test_older_kernels_inject_whatever_the_vmm_asked_for(policy: str) -> None:
    (step,) = steps(decided(policy, sea(taken_from="guest"), None, with_vm()), InjectSerror)
    assert step.vsesr_el2 == IDS


@pytest.mark.parametrize("policy", ALL)
def test_without_the_ras_extension_a_guests_own_abort_never_reaches_the_host(policy: str) -> None:
    decision = decided(policy, sea(taken_from="guest"), None, with_vm(ras_extension=False))
    assert decision.action is Action.HANDLED
    assert (signals(decision), steps(decision, InjectSerror), steps(decision, ExitToVmm)) == ([], [], [])


@pytest.mark.parametrize(("policy", "claimed"), [(L510, True), (L61, True), (L612, True), (L73, False)])
def test_a_repeated_record_livelocks_a_guest_or_leaves_its_abort_unclaimed(policy: str, claimed: bool) -> None:
    data = block(memory())
    decision = decided(policy, sea(taken_from="guest"), data, host(recent=[repeat(data)]))
    assert bool(steps(decision, InjectSerror)) != claimed


VNCR, SET = 1 << 13, 3 << 11


def test_a_nested_hypervisors_own_access_is_not_the_vmms_business() -> None:
    for exception_class, exits in ((0x24, 0), (0x25, 0), (0x20, 1)):
        notification = abort(0x10 | VNCR, exception_class, taken_from="guest")
        decision = decided(L73, notification, None, with_vm())
        assert (len(steps(decision, ExitToVmm)), len(steps(decision, InjectSerror))) == (exits, 1 - exits)


@pytest.mark.parametrize("guest_ras", [True, False])
def test_the_exit_shows_the_error_type_to_a_guest_that_has_the_ras_extension(guest_ras: bool) -> None:
    vm = {"id": "vm-1", "pid": PID, "sea_to_user": True, "guest": {"ras_extension": guest_ras}}
    (step,) = steps(decided(L73, sea(ESR_USER | SET, taken_from="guest"), None, host(vms=[vm])), ExitToVmm)
    assert step.fields["esr"] == (ESR_USER | SET if guest_ras else ESR_USER)


@pytest.mark.parametrize(("fsc", "fnv", "assumed"), [(0x10, 0, True), (0x10, FNV, False), (0x18, 0, False), (0x15, 0, False)])
def test_a_guest_address_that_kvm_could_translate_is_taken_as_not_translated(fsc: int, fnv: int, assumed: bool) -> None:
    decision = decided(L73, abort(fsc | fnv, taken_from="guest"), None, with_vm())
    assert (len(steps(decision, ExitToVmm)), any(known.fact == "guest.page_tables" for known in decision.assumptions)) == (1, assumed)


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize(("fsc", "s1ptw", "reaches"), [(0x10, S1PTW, False), (0x15, 0, False), (0x15, S1PTW, True), (0x1D, S1PTW, True)])
def test_without_the_ras_extension_only_an_abort_on_a_stage_2_walk_reaches_the_host(
    policy: str, fsc: int, s1ptw: int, reaches: bool
) -> None:
    notification = abort(fsc | s1ptw, taken_from="guest")
    assert bool(queued(decided(policy, notification, block(memory()), with_vm(ras_extension=False)))) == reaches
    decision = decided(policy, notification, None, with_vm(ras_extension=False))
    assert [step.guest_esr for step in steps(decision, InjectSerror)] == [NO_RAS_UNMASKED[policy]] * reaches
    assert any(known.fact == "guest.serror_masked" for known in decision.assumptions) == (reaches and policy == L73)
    assert steps(decision, ExitToVmm) == []


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("fsc", LEVEL_MINUS_1, ids=hex)
def test_kvm_knows_an_abort_on_a_level_minus_1_walk_or_fails(policy: str, fsc: int) -> None:
    knows = policy in (L612, L73)
    unclaimed = decided(policy, abort(fsc, taken_from="guest"))
    assert (len(steps(unclaimed, InjectSerror)), logged(unclaimed, "KVM_RUN returns EFAULT")) == (int(knows), not knows)
    with_record = decided(policy, abort(fsc, taken_from="guest"), block(memory()))
    assert (bool(queued(with_record)), rejected(with_record, "does not call APEI")) == (knows, not knows)


def test_kvm_learnt_of_level_minus_1_walks_one_release_before_the_host() -> None:
    by_host, by_guest = (decided("linux-6.8.0", abort(0x13, taken_from=where), block(memory())) for where in ("user", "guest"))
    assert (bool(queued(by_host)), bool(queued(by_guest))) == (False, True)


def test_the_ras_extension_is_taken_for_granted_for_a_guests_abort() -> None:
    decision = decided(L73, sea(taken_from="guest"), block(memory()), host(ras_extension=None))
    assert any(known.fact == "host.ras_extension" for known in decision.assumptions)


# What a claimed abort leaves


@pytest.mark.parametrize("policy", ALL)
def test_a_claimed_abort_that_queued_nothing_kills_where_the_kernel_kills(policy: str) -> None:
    decision = decided(policy, sea(), block())
    assert signals(decision) == ([] if policy == L510 else [BUSKERN])
    for step in steps(decision, Signal):
        assert (step.code, step.address, step.lsb, step.forced) == (KERNEL, None, None, True)


@pytest.mark.parametrize("policy", ALL)
def test_an_overflowing_queue_still_counts_as_queued(policy: str) -> None:
    crowd = [memory(address=(PFN + index) << 12) for index in range(20)]
    free = [{"physical_address": (PFN + index) << 12, "state": "free"} for index in range(20)]
    decision = decided(policy, sea(), block(*crowd), host(*free))
    assert signals(decision) == []
    assert len(queued(decision)) == (20 if policy == L73 else 16)


def test_work_of_the_interrupted_thread_takes_no_room_in_the_queue_of_the_worker() -> None:
    crowd = [memory(address=(PFN + index) << 12) for index in range(16)]
    free = [{"physical_address": (PFN + index) << 12, "state": "free"} for index in range(17)]
    worn = memory(CORRECTED, 8, address=(PFN + 16) << 12)
    decision = decided(L73, sea(), block(*crowd, worn), host(*free))
    assert queued(decision)[-1] == (PFN + 16, ("soft_offline",), "kworker")
    assert not logged(decision, "overflow")


@pytest.mark.parametrize("policy", [*ALL, UNIFORM])
def test_a_guests_fault_address_is_no_address_of_the_thread_that_runs_it(policy: str) -> None:
    decision = decided(policy, sea(taken_from="guest"), block(memory()), host(pages=None))
    assert FAR & ~0xFFF not in [step.address for step in steps(decision, Signal)]
    assert FAR not in [step.address for step in steps(decision, Signal)]
