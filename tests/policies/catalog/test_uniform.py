"""Principles of the `uniform` policy (docs/uniform.md) with random events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.decision import Action, Decision, InjectSerror, Signal
from ras_triage.models.event import Event
from ras_triage.models.notification import HEST_TYPES, NotificationType
from ras_triage.policies.catalog.policies import uniform_policy
from ras_triage.policies.decide import decide

UNIFORM = uniform_policy()
PAGE = 0x56EDD000
SEVERITIES = st.sampled_from(["recoverable", "corrected", "informational", "fatal", 7])
STATES = st.sampled_from(["anonymous", "page_cache", "shmem", "hugetlb", "thp", "ksm", "free", "slab", "swap_cache", "zero"])

memory_sections = st.fixed_dictionaries(
    {"type": st.just("memory"), "severity": SEVERITIES},
    optional={"physical_address": st.sampled_from([hex(PAGE), hex(PAGE + 0x1040), "0x9000000"]), "flags": st.just(["threshold_exceeded"])},
)
arm_sections = st.fixed_dictionaries(
    {
        "type": st.just("arm_processor"),
        "severity": SEVERITIES,
        "error_infos": st.lists(
            st.fixed_dictionaries({"error_type": st.integers(0, 31)}, optional={"physical_fault_address": st.just(hex(PAGE))}), max_size=2
        ),
    }
)
other_sections = st.fixed_dictionaries({"type": st.sampled_from(["pcie", "generic_processor", "memory2"]), "severity": SEVERITIES})
blocks = st.fixed_dictionaries(
    {"severity": SEVERITIES, "sections": st.lists(st.one_of(memory_sections, arm_sections, other_sections), max_size=3)}
)
hosts = st.fixed_dictionaries(
    {
        "current": st.just({"pid": 103, "tid": 104}),
        "tasks": st.tuples(
            st.fixed_dictionaries({"pid": st.just(103), "mce_kill": st.sampled_from(["default", "early", "late"])}),
            st.fixed_dictionaries({"pid": st.just(200), "mce_kill": st.sampled_from(["default", "early", "late"])}),
        ),
        "sysctl": st.fixed_dictionaries({"vm.memory_failure_early_kill": st.integers(0, 1)}),
        "valid_ranges": st.just([{"start": "0x40000000", "size": "0x40000000"}]),
        "pages": st.tuples(
            st.fixed_dictionaries(
                {
                    "physical_address": st.just(hex(PAGE)),
                    "state": STATES,
                    "dirty": st.booleans(),
                    "mappings": st.lists(
                        st.sampled_from([{"pid": 103, "address": "0xffff897d5000"}, {"pid": 200, "address": "0xffff00001000"}]), max_size=2
                    ),
                }
            )
        ),
    }
)
asynchronous = st.sampled_from([kind.value for kind in HEST_TYPES if kind is not NotificationType.SEA])


def decided(notification: dict[str, Any], block: dict[str, Any] | None, host: dict[str, Any]) -> Decision:
    return decide(Event.model_validate({"notification": notification, "status_block": block, "host": host}), UNIFORM)


def signals(decision: Decision) -> list[Signal]:
    return [step for step in decision.plan if isinstance(step, Signal)]


def outcome(decision: Decision) -> tuple[Any, ...]:
    """What user space and the machine get to see."""
    panics = decision.action is Action.PANIC
    return panics, () if panics else tuple(sorted(map(str, signals(decision)))), decision.next_access


@given(blocks, hosts, asynchronous, asynchronous)
def test_the_same_record_has_the_same_outcome_with_every_notification_type(block: Any, host: Any, one: str, other: str) -> None:
    assert outcome(decided({"type": one}, block, host)) == outcome(decided({"type": other}, block, host))


@given(blocks, hosts, asynchronous)
def test_an_abort_changes_only_what_the_consuming_thread_gets(block: Any, host: Any, kind: str) -> None:
    told, consumed = decided({"type": kind}, block, host), decided({"type": "sea"}, block, host)
    panics = Action.PANIC in (told.action, consumed.action)
    assert (told.action is Action.PANIC) == (consumed.action is Action.PANIC)
    if not panics:
        bystanders = [[step for step in signals(decision) if step.pid != 103] for decision in (told, consumed)]
        assert bystanders[0] == bystanders[1]
        assert all(step.code == "BUS_MCEERR_AO" for step in signals(told))


@given(blocks, hosts, st.sampled_from([kind.value for kind in HEST_TYPES]), st.sampled_from(["user", "guest"]))
def test_a_corrected_error_never_signals(block: Any, host: Any, kind: str, taken_from: str) -> None:
    block = block | {"severity": "corrected", "sections": [section | {"severity": "corrected"} for section in block["sections"]]}
    decision = decided({"type": kind, "taken_from": taken_from}, block, host)
    assert decision.action is Action.HANDLED


@given(st.none() | blocks, hosts, st.integers(0, 2**64 - 1), st.none() | st.integers(0, 2**25 - 1))
def test_a_fault_address_given_with_an_serror_changes_nothing_but_a_warning(
    block: Any, host: Any, address: int, syndrome: int | None
) -> None:
    notification: dict[str, Any] = {"type": "sei"} | ({} if syndrome is None else {"syndrome": 0xBE000000 | syndrome})
    without, with_address = decided(notification, block, host), decided(notification | {"fault_address": address}, block, host)
    added = [warning.code for warning in with_address.warnings if warning not in without.warnings]
    assert added == ["far_meaningless_for_serror"]
    assert set(without.warnings) <= set(with_address.warnings)
    assert (with_address.plan, with_address.next_access, with_address.rationale) == (without.plan, without.next_access, without.rationale)


@given(st.none() | blocks, hosts, st.sampled_from([kind.value for kind in HEST_TYPES]))
def test_making_the_process_a_vmm_changes_no_signal(block: Any, host: Any, kind: str) -> None:
    vm = {"id": "vm-1", "pid": 103, "vcpus": [{"index": 0, "tid": 104}]}
    process, vmm = decided({"type": kind}, block, host), decided({"type": kind}, block, host | {"vms": [vm]})
    assert (signals(vmm), vmm.next_access) == (signals(process), process.next_access)


@given(st.none() | blocks, hosts, st.sampled_from(["sea", "sei"]), st.sampled_from(["user", "guest", "kernel"]))
def test_no_step_addressed_to_user_space_carries_a_raw_syndrome(block: Any, host: Any, kind: str, taken_from: str) -> None:
    syndrome = 0x96000010 | 0x1A5 << 14 if kind == "sea" else 0xBE000C11 | 0x155 << 14
    decision = decided({"type": kind, "syndrome": syndrome, "taken_from": taken_from}, block, host)
    for step in [*signals(decision), *decision.next_access]:
        assert syndrome not in asdict(step).values()  # type: ignore[call-overload]
    assert all(step.vsesr_el2 not in (syndrome, syndrome & 0x1FFFFFF) for step in decision.plan if isinstance(step, InjectSerror))


@given(blocks, hosts)
def test_a_containment_warning_panics_with_every_type_of_an_error_source(block: Any, host: Any) -> None:
    warned = block | {"sections": [{"type": "memory", "severity": "recoverable", "flags": ["containment_warning"]}]}
    for kind in HEST_TYPES:
        assert decided({"type": kind.value}, warned, host).action is Action.PANIC


def test_an_abort_that_nothing_can_repair_ends_the_interrupted_context() -> None:
    block = {"severity": "recoverable", "sections": [{"type": "arm_processor", "error_infos": [{"error_type": 4}]}]}
    host = {"current": {"pid": 103, "tid": 104}}
    user, guest, kernel = (decided({"type": "sea", "taken_from": taken_from}, block, host) for taken_from in ("user", "guest", "kernel"))
    assert [(step.tid, step.code, step.address) for step in signals(user)] == [(104, "SI_KERNEL", None)]
    assert [step.guest_esr for step in guest.plan if isinstance(step, InjectSerror)] == [0xBE000411]
    assert not signals(guest)
    assert kernel.action is Action.PANIC


def test_an_serror_without_a_record_is_decided_by_its_syndrome() -> None:
    expected = {6: Action.HANDLED, 2: Action.HANDLED, 3: Action.SIGNAL, 1: Action.SIGNAL, 0: Action.PANIC, 5: Action.PANIC}
    for error_type, action in expected.items():
        syndrome = 0xBE000011 | error_type << 10
        assert decided({"type": "sei", "syndrome": syndrome}, None, {"current": {"pid": 1, "tid": 1}}).action is action
    assert decided({"type": "sei", "syndrome": 0xBE000000}, None, {}).action is Action.PANIC
    assert decided({"type": "sei", "syndrome": 0xBF000000}, None, {}).action is Action.PANIC
