"""Alternative interpretations of an event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.decision import Action, Decision, MemoryFailure
from ras_triage.models.event import Event
from ras_triage.models.host import Mapping, Page, PageState
from ras_triage.models.notification import NotificationType
from ras_triage.policies.catalog.policies import Policy, derive_policy, resolve_policy
from ras_triage.policies.catalog.vmms import vmms
from ras_triage.policies.decide import decide
from tests.policies.events import (
    ALL,
    CORRECTED,
    FAR,
    FATAL,
    L61,
    L73,
    L510,
    L612,
    OTHER,
    PA,
    PAGE,
    PFN,
    PID,
    TID,
    arm,
    block,
    decided,
    error_info,
    event,
    host,
    memory,
    page,
    sea,
    steps,
)

UNIFORM = "uniform"
EVERY = (UNIFORM, *ALL)
NUMBERINGS = ("legacy", "uefi-2.10", "uefi-2.11")
HEEDED = {"policy.flags.arm_error_types_heeded": True}
ASSUMED_TYPE = frozenset({"/notification/type"})
ELSEWHERE = 0x5_0000_0000
"""A second physical page."""
MEMORY = {"slot": 0, "guest_phys_addr": "0x40000000", "memory_size": "0x10000000", "userspace_addr": hex(FAR & ~0xFFFFFFF)}
VM = {"id": "vm-1", "pid": PID, "vmm": "qemu", "vcpus": [{"index": 0, "tid": TID}], "memslots": [MEMORY], "guest": {"ghes": ["sea"]}}
"""QEMU, which passes on an error with an address, and dies of one without."""
CLEAN = {"page.state": "page_cache", "page.dirty": False}


def without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def others(decision: Decision) -> list[tuple[dict[str, Any], str]]:
    """The readings that were not taken, with their actions."""
    return [(other.when, other.action.value) for other in decision.alternatives]


def codes(decision: Decision) -> list[str]:
    return [warning.code for warning in decision.warnings]


def detail(decision: Decision, code: str) -> str:
    (found,) = [warning.detail for warning in decision.warnings if warning.code == code]
    return found


@lru_cache(maxsize=16)
def heeding(name: str) -> Policy:
    """A policy that heeds the firmware's numbering, and is otherwise the one of that name."""
    return derive_policy(f'name = "heeding-{name}"\nbase = "{name}"\n[flags]\narm_error_types_heeded = true')


# An event that tells everything


@pytest.mark.parametrize("policy", EVERY)
@pytest.mark.parametrize("notification", ["gpio", sea()])
def test_a_decision_whose_event_tells_everything_has_no_alternatives(policy: str, notification: Any) -> None:
    for kind in range(32):
        decision = decided(policy, notification, block(memory(), arm(error_info(kind))), host(early=True, arm_error_types="uefi-2.10"))
        assert (decision.alternatives, codes(decision)) == ((), [])


def test_a_record_that_panics_has_no_alternatives() -> None:
    decision = decided(L612, sea(), block(memory(), arm(error_info(2)), severity=FATAL), {})
    assert (decision.action, decision.alternatives) == (Action.PANIC, ())


def test_an_event_without_a_record_has_no_alternatives() -> None:
    assert decided(L612, sea(), None, {}).alternatives == ()


# The numbering of ARM error types

TOLD_ARM = [
    (0, ("signal", "handled", "handled")),
    (1, ("handled", "handled", "signal")),
    (2, ("handled", "signal", "handled")),
    (3, ("handled", "signal", "signal")),
    (4, ("handled", "handled", "handled")),
    (5, ("handled", "handled", "signal")),
    (0x1A, ("handled", "signal", "handled")),
]
"""What an error type comes to under each numbering: a cache error is signalled to those who asked for it, and nothing else is."""
OWN = {UNIFORM: 1, L510: 0, L61: 1, L612: 1, L73: 1}
"""The numbering that each policy takes, of `NUMBERINGS`."""


@pytest.mark.parametrize(("kind", "actions"), TOLD_ARM)
def test_the_uniform_policy_reads_error_types_in_the_numbering_that_was_told(kind: int, actions: tuple[str, ...]) -> None:
    data = block(arm(error_info(kind)))
    for numbering, action in zip(NUMBERINGS, actions, strict=True):
        decision = decided(UNIFORM, "gpio", data, host(early=True, arm_error_types=numbering))
        assert (decision.action, decision.alternatives) == (action, ())
        assert [fired.given["read_as"] for fired in decision.rationale if fired.rule == "sections.arm_error_info"] == [numbering]


@pytest.mark.parametrize(("kind", "actions"), TOLD_ARM)
def test_a_kernel_reads_error_types_in_its_own_numbering_whatever_was_told(kind: int, actions: tuple[str, ...]) -> None:
    for policy in ALL:
        told = {decided(policy, "gpio", block(arm(error_info(kind))), host(early=True, arm_error_types=name)).plan for name in NUMBERINGS}
        assert told == {decided(policy, "gpio", block(arm(error_info(kind))), host(early=True)).plan}
        assert decided(policy, "gpio", block(arm(error_info(kind))), host(early=True)).action == actions[OWN[policy]]


@pytest.mark.parametrize(("kind", "actions"), TOLD_ARM)
@pytest.mark.parametrize("policy", EVERY)
def test_an_untold_numbering_has_an_alternative_for_each_that_comes_to_another_action(
    policy: str, kind: int, actions: tuple[str, ...]
) -> None:
    decision = decided(policy, "gpio", block(arm(error_info(kind))), host(early=True))
    own = actions[OWN[policy]]
    assert decision.action == own
    more = {} if policy == UNIFORM else HEEDED
    expected = [({"host.arm_error_types": name} | more, action) for name, action in zip(NUMBERINGS, actions, strict=True) if action != own]
    assert others(decision) == expected
    assert codes(decision) == (["ambiguous_arm_error_type"] if expected else [])


def test_the_warning_names_what_the_byte_means_in_each_numbering() -> None:
    decision = decided(UNIFORM, "gpio", block(arm(error_info(2))), host(early=True))
    assert detail(decision, "ambiguous_arm_error_type") == (
        "ARM error type 0x02 is bus (legacy), cache (uefi-2.10), tlb (uefi-2.11); uefi-2.10 assumed; "
        "the action would be `handled` with legacy or `handled` with uefi-2.11"
    )
    old = decided(L510, "gpio", block(arm(error_info(0))), host(early=True))
    assert "legacy used, this kernel's numbering whatever the firmware's" in detail(old, "ambiguous_arm_error_type")


def test_the_uniform_policy_says_which_numbering_it_assumed() -> None:
    def assumed(policy: str, **facts: Any) -> list[str]:
        found = decided(policy, "gpio", block(arm(error_info(2))), host(**facts)).assumptions
        return [assumption.assumed for assumption in found if assumption.fact == "host.arm_error_types"]

    assert assumed(UNIFORM) == ["uefi-2.10"]
    assert assumed(UNIFORM, arm_error_types="legacy") == assumed(L612) == []


def test_a_numbering_that_was_assumed_for_the_sender_is_as_if_not_told() -> None:
    asked = event("gpio", block(arm(error_info(2))), host(early=True, arm_error_types="legacy"))
    decision = decide(asked, resolve_policy(UNIFORM), frozenset({"/host/arm_error_types"}))
    assert (decision.action, others(decision)) == (Action.HANDLED, [({"host.arm_error_types": "uefi-2.10"}, "signal")])


@pytest.mark.parametrize("task", [{"mce_kill": "early"}, {"threads": [{"tid": TID, "mce_kill": "early"}]}])
def test_one_thread_that_asked_to_be_told_makes_the_numbering_matter(task: dict[str, Any]) -> None:
    data = block(arm(error_info(2)))
    assert others(decided(UNIFORM, "gpio", data, host(tasks=[{"pid": PID}]))) == []
    asked = others(decided(UNIFORM, "gpio", data, host(tasks=[{"pid": PID} | task])))
    assert asked == [({"host.arm_error_types": "legacy"}, "handled"), ({"host.arm_error_types": "uefi-2.11"}, "handled")]


def test_a_host_on_which_any_failure_panics_makes_the_numbering_matter() -> None:
    facts = host(sysctl={"vm.memory_failure_recovery": 0})
    assert others(decided(L612, "gpio", block(arm(error_info(0))), facts)) == [({"host.arm_error_types": "legacy"} | HEEDED, "panic")]


def test_an_error_info_without_an_address_means_the_same_in_every_numbering() -> None:
    for policy in EVERY:
        assert decided(policy, sea(), block(arm(error_info(2, address=None))), host()).alternatives == ()


def test_a_corrected_error_means_the_same_in_every_numbering() -> None:
    for policy in EVERY:
        assert decided(policy, sea(), block(arm(error_info(2), severity=CORRECTED)), host()).alternatives == ()


def test_an_abort_that_kills_either_way_has_no_alternative() -> None:
    """A signal with an address or one without: the action is the same."""
    assert decided(L612, sea(), block(arm(error_info(2))), host()).alternatives == ()


def test_old_firmware_on_a_new_kernel_kills_for_a_page_that_could_have_been_read_again() -> None:
    decision = decided(L612, sea(), block(arm(error_info(0))), host(page("page_cache", dirty=False)))
    assert decision.action is Action.SIGNAL
    assert others(decision) == [({"host.arm_error_types": "legacy"} | HEEDED, "handled")]


def test_a_warning_spells_out_no_more_than_a_few_error_types() -> None:
    decision = decided(UNIFORM, "gpio", block(arm(*[error_info(kind) for kind in range(256)])), host(early=True))
    assert decision.alternatives == ()
    quiet = decided(UNIFORM, "gpio", block(arm(*[error_info(kind) for kind in range(1, 256, 4)])), host(early=True))
    assert others(quiet) == [({"host.arm_error_types": "uefi-2.11"}, "signal")]
    assert len(detail(quiet, "ambiguous_arm_error_type")) < 500


# Synchronous or not


@pytest.mark.parametrize("policy", EVERY)
def test_an_assumed_asynchronous_notification_has_the_abort_as_its_alternative(policy: str) -> None:
    asked = event("polled", block(memory()), host())
    decision = decide(asked, resolve_policy(policy), ASSUMED_TYPE)
    assert others(decision) == [({"notification.type": "sea"}, "signal")]
    assert codes(decision) == ["assumed_asynchronous"]
    assert detail(decision, "assumed_asynchronous") == (
        "notification type not given, `polled` assumed; with `sea` the action would be `signal`"
    )


@pytest.mark.parametrize("policy", EVERY)
def test_an_assumed_abort_has_an_asynchronous_notification_as_its_alternative(policy: str) -> None:
    decision = decide(event("sea", block(memory()), host()), resolve_policy(policy), ASSUMED_TYPE)
    assert others(decision) == [({"notification.type": "polled"}, "handled")]
    assert codes(decision) == ["assumed_synchronous"]


def test_a_notification_that_changes_nothing_has_no_alternative() -> None:
    for data in (block(memory(), severity=FATAL), block(memory(CORRECTED), severity=CORRECTED)):
        decision = decide(event("polled", data, host()), resolve_policy(UNIFORM), ASSUMED_TYPE)
        assert (decision.alternatives, codes(decision)) == ((), [])


def test_a_notification_that_was_told_has_no_alternative() -> None:
    asked = event("polled", block(memory()), host())
    assert decide(asked, resolve_policy(L612), frozenset({"/status_block"})) == decide(asked, resolve_policy(L612))


# The state of pages


@pytest.mark.parametrize("policy", [L510, L61, L612])
def test_a_page_that_is_not_told_may_be_one_of_which_nothing_is_lost(policy: str) -> None:
    decision = decided(policy, sea(), block(memory()), host(pages=None))
    assert (decision.action, others(decision)) == (Action.SIGNAL, [(CLEAN, "handled")])
    assert detail(decision, "assumed_page_state") == (
        "page state not given, `anonymous` assumed; the action would be `handled` with `page.state=page_cache`, `page.dirty=false`"
    )
    assert [(step.page_type, step.result) for step in decision.alternatives[0].plan if isinstance(step, MemoryFailure)] == [
        ("clean LRU page", "recovered")
    ]


def test_a_page_that_is_not_told_may_be_the_kernels_own_and_the_end_of_the_machine() -> None:
    facts = host(pages=None, sysctl={"vm.panic_on_unrecoverable_memory_failure": 1})
    assert others(decided(L73, sea(), block(memory()), facts)) == [(CLEAN, "handled"), ({"page.state": "slab"}, "panic")]
    assert others(decided(L73, "gpio", block(memory()), facts)) == [({"page.state": "slab"}, "panic")]
    assert others(decided(L612, "gpio", block(memory()), facts)) == []


def test_a_page_of_a_virtual_machine_that_is_not_told_may_be_one_that_the_kernel_can_do_nothing_for() -> None:
    decision = decided(L73, sea(), block(memory()), host(pages=None, vms=[VM]))
    assert decision.action is Action.INJECT
    assert others(decision) == [(CLEAN, "handled"), ({"page.state": "kernel"}, "signal")]


@pytest.mark.parametrize(
    ("notification", "data", "pages"), [(sea(), block(memory()), None), ("gpio", block(arm(error_info(0))), [page(dirty=True)])]
)
def test_a_vmm_of_a_file_decides_the_alternatives_as_well(notification: Any, data: bytes, pages: Any) -> None:
    def decide_with(vmm: str) -> Decision:
        facts = host(pages=pages, early=True, vms=[{**VM, "vmm": vmm}])
        return decide(event(notification, data, facts), resolve_policy(L73), custom_vmms={"ours": replace(vmms()["qemu"], name="ours")})

    assert [other.when for other in decide_with("ours").alternatives] == [other.when for other in decide_with("qemu").alternatives] != []


def test_a_page_that_is_not_told_and_that_nobody_consumed_comes_to_the_same_in_any_state() -> None:
    for policy in EVERY:
        decision = decided(policy, "gpio", block(memory()), host(pages=None, early=True))
        assert (decision.action, decision.alternatives) == (Action.HANDLED, ())


def test_a_page_that_is_soft_offlined_comes_to_the_same_in_any_state() -> None:
    assert decided(L612, "gpio", block(memory(CORRECTED, 8), severity=CORRECTED), host(pages=None)).alternatives == ()


def test_a_mapped_page_without_a_state_has_those_of_the_others() -> None:
    facts = host(page("unknown", dirty=None))
    assert others(decided(L612, sea(), block(memory()), facts)) == [(CLEAN, "handled")]


def test_a_page_that_is_told_to_be_dirty_is_not_read_as_clean() -> None:
    assert others(decided(L612, sea(), block(memory()), host(page("unknown", dirty=True)))) == [({"page.state": "kernel"}, "handled")]


@pytest.mark.parametrize(("state", "action"), [("anonymous", "handled"), ("page_cache", "signal")])
def test_a_page_of_which_it_is_not_told_whether_it_is_dirty_has_the_other_as_its_alternative(state: str, action: str) -> None:
    decision = decided(L612, "gpio", block(memory()), host(page(state), early=True))
    assert others(decision) == [({"page.dirty": action == "signal"}, action)]
    assert codes(decision) == ["assumed_page_state"]


# What holds for all

PAGES = {PAGE: PA, ELSEWHERE: ELSEWHERE}
"""The physical pages that records speak of, with an address in each."""

addresses = st.sampled_from([*PAGES.values(), None])
sections = st.one_of(
    st.builds(lambda address, severity: memory(severity, address=address), addresses, st.sampled_from([0, 0, CORRECTED])),
    st.builds(
        lambda kinds: arm(*[error_info(kind, address=address) for kind, address in kinds]),
        st.lists(st.tuples(st.integers(0, 6), addresses), max_size=3),
    ),
)
facts_of_pages = st.fixed_dictionaries(
    {
        "physical_address": st.sampled_from(list(PAGES)),
        "state": st.sampled_from(["anonymous", "page_cache", "hugetlb", "thp", "dax", "slab", "free", "unknown", "no_struct_page"]),
        "mappings": st.lists(
            st.sampled_from([{"pid": PID, "address": FAR & ~0xFFF}, {"pid": OTHER, "address": "0xffff00001000"}]), max_size=2
        ),
    },
    optional={"dirty": st.booleans(), "poisoned": st.booleans(), "pinned": st.booleans()},
)
hosts = st.fixed_dictionaries(
    {
        "current": st.just({"pid": PID, "tid": TID}),
        "tasks": st.tuples(
            st.fixed_dictionaries({"pid": st.just(PID), "mce_kill": st.sampled_from(["default", "early"])}),
            st.fixed_dictionaries({"pid": st.just(OTHER), "mce_kill": st.sampled_from(["default", "early"])}),
        ),
        "sysctl": st.fixed_dictionaries(
            {
                "vm.memory_failure_early_kill": st.integers(0, 1),
                "vm.panic_on_unrecoverable_memory_failure": st.integers(0, 1),
                "vm.memory_failure_recovery": st.sampled_from([1, 1, 1, 0]),
            }
        ),
    },
    optional={
        "pages": st.lists(facts_of_pages, max_size=2, unique_by=lambda fact: fact["physical_address"]),
        "vms": st.just([VM]),
        "arm_error_types": st.sampled_from(NUMBERINGS),
    },
)
notifications = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["polled", "gpio", "sdei", "sei"])}),
    st.fixed_dictionaries({"type": st.just("sea"), "fault_address": st.just(FAR), "taken_from": st.sampled_from(["user", "kernel"])}),
)
events = st.builds(
    lambda notification, sections, facts: Event.model_validate(
        {"notification": notification, "status_block": block(*sections), "host": facts}
    ),
    notifications,
    st.lists(sections, max_size=3),
    hosts,
)
assumptions = st.sampled_from([frozenset[str](), ASSUMED_TYPE, frozenset({"/host/arm_error_types"})])


def is_untold(fact: Page) -> bool:
    return fact.state is PageState.UNKNOWN and not fact.mappings


def in_state(fact: Page, state: PageState, dirty: bool | None) -> Page:
    """A page fact with the reading filled in where it leaves that open."""
    contradicts = dirty is not None and fact.dirty not in (None, dirty)
    if fact.state is not PageState.UNKNOWN or fact.poisoned or contradicts:
        return fact
    return fact.model_copy(update={"state": state, "dirty": fact.dirty if dirty is None else dirty})


def filled_in(asked: Event, when: dict[str, Any]) -> Event:
    """The event as it would be if its sender had told the reading."""
    facts, notification = asked.host, asked.notification
    if "notification.type" in when:
        taken = notification.model_copy(update={"type": NotificationType(when["notification.type"])})
        return asked.model_copy(update={"notification": taken})
    if "host.arm_error_types" in when:
        return asked.model_copy(update={"host": facts.model_copy(update={"arm_error_types": when["host.arm_error_types"]})})
    told = {fact.physical_address: fact for fact in facts.pages or () if not is_untold(fact)}
    if "page.state" in when:
        consumed = notification.type is NotificationType.SEA and notification.taken_from == "user"
        mappings = (Mapping(pid=PID, address=FAR & ~0xFFF),) if consumed else ()
        state, dirty = PageState(when["page.state"]), when.get("page.dirty")
        told = {address: in_state(fact, state, dirty) for address, fact in told.items()}
        told |= {
            address: Page(physical_address=address, state=state, dirty=dirty, mappings=mappings) for address in PAGES.keys() - told.keys()
        }
    else:
        told = {
            address: fact.model_copy(update={"dirty": when["page.dirty"]}) if fact.dirty is None and not fact.poisoned else fact
            for address, fact in told.items()
        }
    return asked.model_copy(update={"host": facts.model_copy(update={"pages": tuple(told.values())})})


def heeds(policy: str, when: dict[str, Any]) -> Policy:
    return heeding(policy) if HEEDED.keys() <= when.keys() else resolve_policy(policy)


@given(events, st.sampled_from(EVERY), assumptions)
def test_an_alternative_is_what_the_event_comes_to_with_its_reading_filled_in(asked: Event, policy: str, assumed: frozenset[str]) -> None:
    decision = decide(asked, resolve_policy(policy), assumed)
    for other in decision.alternatives:
        told = decide(filled_in(asked, other.when), heeds(policy, other.when))
        assert (told.action, told.plan) == (other.action, other.plan)


def readings_of(asked: Event, policy: str, assumed: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Every reading that a decision might have an alternative for."""
    if asked.host.arm_error_types is None or "/host/arm_error_types" in assumed:
        more = {} if policy == UNIFORM else HEEDED
        yield from ({"host.arm_error_types": numbering} | more for numbering in NUMBERINGS)
    if "/notification/type" in assumed:
        yield {"notification.type": "polled" if asked.notification.type is NotificationType.SEA else "sea"}
    yield from (CLEAN, {"page.state": "kernel"}, {"page.state": "slab"}, {"page.dirty": True}, {"page.dirty": False})


@given(events, st.sampled_from(EVERY), assumptions)
def test_every_interpretation_with_another_action_is_an_alternative(asked: Event, policy: str, assumed: frozenset[str]) -> None:
    decision = decide(asked, resolve_policy(policy), assumed)
    said = {(next(iter(other.when)), other.action) for other in decision.alternatives}
    for when in readings_of(asked, policy, assumed):
        action = decide(filled_in(asked, when), heeds(policy, when)).action
        assert action is decision.action or (next(iter(when)), action) in said, when


@given(events, st.sampled_from(EVERY), assumptions)
def test_every_alternative_is_another_action_and_is_said_once_and_warned_of(asked: Event, policy: str, assumed: frozenset[str]) -> None:
    decision = decide(asked, resolve_policy(policy), assumed)
    assert decision.action not in {other.action for other in decision.alternatives}
    whens = [repr(other.when) for other in decision.alternatives]
    assert len(set(whens)) == len(whens) <= 8
    mentioned = {"ambiguous_arm_error_type", "assumed_asynchronous", "assumed_synchronous", "assumed_page_state"} & set(codes(decision))
    assert bool(mentioned) == bool(decision.alternatives)


@given(events, st.sampled_from(EVERY), assumptions)
def test_alternatives_do_not_change_the_decision(asked: Event, policy: str, assumed: frozenset[str]) -> None:
    decision, plain = decide(asked, resolve_policy(policy), assumed), decide(asked, resolve_policy(policy))
    assert (decision.event_key, decision.action, decision.plan, decision.rationale, decision.assumptions, decision.next_access) == (
        plain.event_key, plain.action, plain.plan, plain.rationale, plain.assumptions, plain.next_access
    )  # fmt: skip
    assert decide(asked, resolve_policy(policy), assumed) == decision


def test_the_page_that_a_reading_speaks_of_is_the_one_that_was_consumed() -> None:
    decision = decided(L612, sea(), block(memory()), without(host(), "pages"))
    for plan in (decision.plan, decision.alternatives[0].plan):
        assert {step.pfn for step in plan if isinstance(step, MemoryFailure)} == {PFN}
    assert [step.pfn for step in steps(decision, MemoryFailure)] == [PFN]
