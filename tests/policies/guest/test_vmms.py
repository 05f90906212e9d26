"""VMM behaviour flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from ras_triage.models.decision import Action, Decision, RecordGuestError, VmmExits
from ras_triage.models.host import Vm
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.catalog.vmms import EXIT_CAUSES, FLAGS, InvalidVmm, UnknownVmm, Vmm, exit_causes, load_vmm, vmms
from ras_triage.policies.decide import decide as decide_event
from ras_triage.policies.guest.guest_stage import notify_guests
from ras_triage.policies.pipeline.facts import Facts
from ras_triage.policies.pipeline.stage_result import StageResult
from tests.policies.events import L73, OTHER, PID, TID, VA, block, decided, event, host, memory, page, sea, signals, steps
from tests.policies.guest.test_guest_stage import EARLY, FROM_GUEST, NOWHERE, PLAIN, announced, consumed, exits, guest_half, vm

DIE = ("kvmtool", "cloud_hypervisor", "firecracker", "crosvm")


@pytest.mark.parametrize("vmm", DIE)
@pytest.mark.parametrize("how", [consumed, announced])
def test_a_vmm_without_a_handler_dies_of_either_signal(vmm: str, how: Callable[..., Any]) -> None:
    decision = how(vmm)
    assert guest_half(decision) == ["vmm_exits"]
    assert decision.action is Action.SIGNAL


def test_each_dies_its_own_way() -> None:
    ways = {vmm: exits(consumed(vmm))[0] for vmm in DIE}
    assert len(set(ways.values())) == len(DIE)
    assert "_exit(149)" in ways["firecracker"]
    assert all("default action" in ways[vmm] for vmm in DIE if vmm != "firecracker")


def test_the_kernels_signals_are_the_same_whatever_the_vmm() -> None:
    told = {tuple(signals(how(vmm))) for vmm in vmms() for how in (consumed,)}
    assert len(told) == 1


@pytest.mark.parametrize("vmm", list(vmms()))
@pytest.mark.parametrize("notification", [FROM_GUEST, sea(), "gpio"])
@pytest.mark.parametrize("data", [PLAIN, NOWHERE, None])
def test_under_uniform_being_a_vmm_changes_no_signal(vmm: str, notification: Any, data: bytes | None) -> None:
    machine = host(vms=[vm(vmm)], tasks=EARLY)
    assert signals(decided("uniform", notification, data, machine)) == signals(decided("uniform", notification, data, host(tasks=EARLY)))


def test_every_vmm_has_a_summary_and_evidence() -> None:
    assert all(vmm.summary and vmm.evidence for vmm in vmms().values())
    assert Vm.model_fields["vmm"].default in vmms()


def test_a_vmm_that_nobody_described_is_refused_with_its_place() -> None:
    with pytest.raises(UnknownVmm, match=r"unknown VMM `quemu`; expected one of `standard`, .*; did you mean `qemu`") as refused:
        decided(L73, FROM_GUEST, PLAIN, host(vms=[vm(), vm("quemu", id="vm-2", pid=OTHER)]))
    assert refused.value.index == 1


def test_every_vmm_says_how_it_ends_where_it_may_end() -> None:
    for vmm in vmms().values():
        assert set(vmm.exits) == set(exit_causes(vmm.behaviours)), vmm.name


# QEMU, line by line


@pytest.mark.parametrize("ghes", [[], ["gpio"]])
def test_qemu_without_a_source_to_write_to_dies_of_what_was_consumed_and_ignores_the_rest(ghes: list[str]) -> None:
    died = consumed("qemu", guest={"ghes": ghes})
    assert guest_half(died) == ["vmm_exits"]
    assert "ras=off" in exits(died)[0]
    assert died.action is Action.SIGNAL
    ignored = announced("qemu", guest={"ghes": ghes})
    assert guest_half(ignored) == ["log"]
    assert ignored.action is Action.SIGNAL


def test_qemu_blocks_the_signal_in_threads_that_run_no_vcpu() -> None:
    machine = vm("qemu", vcpus=[{"index": 0, "tid": 110}])
    decision = decided(L73, sea(taken_from="user"), PLAIN, host(vms=[machine]))
    assert "blocks SIGBUS" in exits(decision)[0]
    assert exits(decided(L73, FROM_GUEST, PLAIN, host(vms=[machine]))) == []


def test_qemus_own_access_comes_back_at_once() -> None:
    own = decided(L73, sea(taken_from="user"), PLAIN, host(vms=[vm("qemu")]))
    assert own.certainty == "depends"
    assert any("second signal" in reason for reason in own.reasons)
    assert consumed("qemu").certainty == "certain"


# Flag by flag


class Shown(NamedTuple):
    """An event that shows a flag, and what it comes to without and with it."""

    notification: Any
    data: bytes
    vm: dict[str, Any]
    look: Callable[[StageResult], object]
    without: object
    having: object
    early: bool = True


def kinds(found: StageResult) -> list[str]:
    return [step.kind for step in found.steps]


def dies(found: StageResult) -> bool:
    return any(isinstance(step, VmmExits) for step in found.steps)


def count(found: StageResult) -> int:
    return sum(isinstance(step, RecordGuestError) for step in found.steps)


def depends(found: StageResult) -> bool:
    return bool(found.reasons)


ELSEWHERE_THREAD = vm(vcpus=[{"index": 0, "tid": 110}])
SHOWN: dict[str, Shown] = {
    "handles_sigbus": Shown(FROM_GUEST, PLAIN, vm(), dies, True, False),
    "asks_for_early_signals": Shown("gpio", PLAIN, vm(), lambda found: len(found.warnings), 0, 1, early=False),
    "tells_action_optional": Shown("gpio", PLAIN, vm(), kinds, ["translate", "log"], ["translate", "record_guest_error", "log"]),
    "tells_every_page": Shown(FROM_GUEST, PLAIN, vm(), count, 1, 16),
    "waits_for_acknowledgement": Shown(FROM_GUEST, PLAIN, vm(guest={"ack_pending": ["sea"]}), dies, True, False),
    "falls_back_on_serror": Shown(FROM_GUEST, NOWHERE, vm(), dies, True, False),
    "listens_without_source": Shown(FROM_GUEST, PLAIN, vm(guest={"ghes": ["gpio"]}), dies, True, False),
    "every_thread_listens": Shown(sea(taken_from="user"), PLAIN, ELSEWHERE_THREAD, dies, True, False),
    "outlives_its_own_access": Shown(sea(taken_from="user"), PLAIN, vm(), depends, True, False),
}


def test_every_flag_is_shown_to_change_something() -> None:
    assert set(SHOWN) == set(FLAGS)


def half(shown: Shown, monitor: Vmm) -> StageResult:
    """The guest half that a monitor with other flags comes to."""
    pages = page("hugetlb", dirty=True, shift=16) if shown.look is count else page(dirty=True)
    facts = host(pages, vms=[{**shown.vm, "vmm": monitor.name}], **({"tasks": EARLY} if shown.early else {}))
    policy, notified = resolve_policy(L73), event(shown.notification, shown.data, facts)
    alone = decided(policy, shown.notification, shown.data, {name: fact for name, fact in facts.items() if name != "vms"})
    known = Facts(notified.host, custom_vmms={monitor.name: monitor})
    return notify_guests([StageResult(alone.plan)], alone.next_access, notified.notification, policy, known)  # type: ignore[arg-type]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_changes_what_happens(flag: str) -> None:
    shown, standard = SHOWN[flag], vmms()["standard"]
    standard = replace(standard, name="custom")
    ends = dict.fromkeys(EXIT_CAUSES, "it ends")
    having = replace(standard, exits=ends, behaviours=replace(standard.behaviours, **{flag: True}))
    without = replace(standard, exits=ends, behaviours=replace(standard.behaviours, **{flag: False}))
    assert shown.look(half(shown, without)) == shown.without
    assert shown.look(half(shown, having)) == shown.having


def test_a_second_vm_of_another_process_is_not_touched() -> None:
    other = vm("firecracker", id="vm-2", pid=OTHER)
    decision = decided(L73, FROM_GUEST, block(memory()), host(page("anonymous", PID), vms=[vm(), other]))
    assert exits(decision) == []
    assert [step.ipa for step in steps(decision, RecordGuestError)] == [0x4000_0000 + VA - 0xFFFF_4000_0000]
    assert [step[0] for step in signals(decision)] == [TID]


# VMM files

OURS = """
name = "ours"
base = "qemu"
summary = "QEMU with our patches"
[flags]
tells_every_page = true
waits_for_acknowledgement = true
[exits]
source = "our QEMU exits with status 3"
"""


def test_a_vmm_file_names_a_base_and_what_differs() -> None:
    ours, qemu = load_vmm(OURS, ()), vmms()["qemu"]
    assert ours.behaviours == replace(qemu.behaviours, tells_every_page=True, waits_for_acknowledgement=True)
    assert set(ours.exits) == {"code", "thread", "source", "elsewhere"}
    assert (ours.exits["source"], ours.exits["code"]) == ("our QEMU exits with status 3", qemu.exits["code"])
    assert (ours.summary, ours.mirrors) == ("QEMU with our patches", qemu.mirrors)


def test_a_vmm_file_without_a_base_has_no_handler() -> None:
    ours = load_vmm('name = "ours"\n[exits]\nsignal = "killed"\n', ())
    assert exits(decide(ours)) == ["killed"]


def decide(vmm: Vmm) -> Decision:
    """The decision for a guest's own access under a custom VMM whose last record is not acknowledged."""
    notified = event(FROM_GUEST, PLAIN, host(page(dirty=True), vms=[vm(vmm.name, guest={"ack_pending": ["sea"]})]))
    return decide_event(notified, resolve_policy(L73), custom_vmms={vmm.name: vmm})


def test_a_custom_vmm_decides_and_is_named_with_its_digest() -> None:
    ours = load_vmm(OURS, ())
    decision = decide(ours)
    assert exits(decision) == []
    assert exits(decide(replace(vmms()["qemu"], name="their-qemu"))) == [vmms()["qemu"].exits["acknowledgement"]]
    (named,) = [fired for fired in decision.rationale if fired.rule == "guest.custom_vmm"]
    assert named.given == {"vm": "vm-1", "vmm": "ours", "digest": ours.digest}
    assert not any(fired.rule == "guest.custom_vmm" for fired in consumed("qemu").rationale)


@pytest.mark.parametrize(
    "change",
    [("tells_every_page = true", ""), ("status 3", "status 4"), ('"ours"', '"theirs"'), ('base = "qemu"', 'base = "qemu"\nmirrors="f"')],
)
def test_whatever_decides_changes_the_digest(change: tuple[str, str]) -> None:
    assert load_vmm(OURS.replace(*change), ()).digest != load_vmm(OURS, ()).digest
    assert load_vmm(OURS.replace("our patches", "patches"), ()).digest == load_vmm(OURS, ()).digest


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name = \nbase = 1", "not valid TOML: .* line 1"),
        ("", "`name`: missing; expected a string"),
        ("name = 7", "`name`: empty or not a string"),
        ('name = ""', "`name`: empty or not a string"),
        (f'name = "{"x" * 65}"', "`name`: 65 characters; expected at most 64"),
        ('name = "qemu"', "`name`: `qemu` is already in use; expected a new name"),
        ('name = "theirs"', "`name`: `theirs` is already in use"),
        ('name = "ours"\nbase = "quemu"', "`base`: unknown VMM `quemu`; expected one of .*; did you mean `qemu`"),
        ('name = "ours"\nkernel = "x"', "`kernel`: unknown key; expected one of `name`, `base`"),
        ('name = "ours"\nsummary = []', "`summary`: empty or not a string"),
        ('name = "ours"\nflags = 1', "`flags`: expected a table"),
        ('name = "ours"\n[flags]\nhandle_sigbus = true', "`flags.handle_sigbus`: unknown behaviour flag; did you mean `handles_sigbus`"),
        ('name = "ours"\n[flags]\nhandles_sigbus = 1', "`flags.handles_sigbus`: expected true or false"),
        ('name = "ours"', "`exits.signal`: missing; with these flags the VMM exits for this cause"),
        ('name = "ours"\nbase = "qemu"\n[exits]\nsignal = "x"', "`exits.signal`: with these flags the VMM does not exit for this cause"),
        ('name = "ours"\nbase = "qemu"\n[exits]\nsource = 1', "`exits.source`: empty or not a string"),
        ('name = "ours"\nbase = "qemu"\n[exits]\nboredom = "x"', "`exits.boredom`: unknown cause; expected one of `signal`, `code`"),
    ],
)
def test_a_malformed_vmm_file_is_refused_with_the_place(text: str, complaint: str) -> None:
    with pytest.raises(InvalidVmm, match=complaint):
        load_vmm(text, {"theirs"})
