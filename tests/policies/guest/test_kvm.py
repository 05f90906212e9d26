"""Outcome of KVM_SET_VCPU_EVENTS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.kvm import VcpuEvents
from ras_triage.models.syndrome import serror_syndrome
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.guest.kvm import InjectionOutcome, VcpuState, linux_guest_reaction, set_vcpu_events
from tests.policies.events import ALL, L61, L73, L510, L612
from tests.policies.vectors import cases, name_of, recordings

RECORDED = recordings("kvm")
ON_RAS, WITHOUT_RAS = (
    VcpuState(host_ras=True, guest_ras=True, serror_masked=None),
    VcpuState(host_ras=False, guest_ras=False, serror_masked=None),
)
EINVAL = 22
IDS = 1 << 24
ABORT = 0x9600_0010
UNTIL_6_12 = (L510, L61, L612)

u64 = st.integers(0, (1 << 64) - 1)
events = st.builds(VcpuEvents, st.booleans(), st.booleans(), st.booleans(), u64 | st.integers(0, (1 << 25) - 1))
vcpus = st.builds(VcpuState, st.booleans(), st.booleans(), st.none() | st.booleans())


def asked(policy: str, vcpu: VcpuState = ON_RAS, **fields: Any) -> InjectionOutcome:
    return set_vcpu_events(VcpuEvents(**fields), vcpu, resolve_policy(policy))


def abort(policy: str) -> int:
    """ESR_EL1 of an injected abort: 6.1 is one of the releases that sign-extend it."""
    return ABORT | (0xFFFF_FFFF << 32 if policy == L61 else 0)


def rules(done: InjectionOutcome) -> dict[str, str]:
    return {fired.rule: fired.outcome for fired in done.rationale}


# What real kernels did


@pytest.mark.parametrize("path", RECORDED, ids=name_of)
def test_answers_agree_with_what_the_booted_kernel_did(path: Path) -> None:
    vectors = cases(path)
    assert vectors
    for vector in vectors:
        given_events, seen = vector["vcpu_events"], vector["observed"]
        fields = given_events | {"serror_esr": int(given_events["serror_esr"], 16)}
        ras, masked = vector["host_ras"], vector["guest"] == "bare"
        done = asked(f"linux-{vector['kernel']}", VcpuState(host_ras=ras, guest_ras=ras, serror_masked=masked), **fields)
        assert done.errno == seen["errno"], vector["id"]
        if seen.get("guest_esr") is not None:
            assert done.guest_esr == int(seen["guest_esr"], 16), vector["id"]
        if "linux_guest" in seen:
            assert done.linux_guest == seen["linux_guest"], vector["id"]


def test_eight_kernels_are_recorded_as_hosts() -> None:
    releases = {"6.1.176", "6.1.192", "6.12.107", "6.16.12", "6.17.8", "7.1.13", "7.2.6", "7.3.4"}
    assert {name_of(path) for path in RECORDED} == {f"kvm-{release}" for release in releases}


# What the ioctl takes


@pytest.mark.parametrize("policy", ALL)
def test_a_syndrome_may_have_25_bits_and_no_more(policy: str) -> None:
    for bit in range(64):
        done = asked(policy, serror_pending=1, serror_has_esr=1, serror_esr=1 << bit)
        assert (done.accepted, done.errno) == ((True, 0) if bit < 25 else (False, EINVAL))
        assert done.guest_esr == (0xBE00_0000 | 1 << bit if bit < 25 else None)


@pytest.mark.parametrize("policy", ALL)
def test_without_the_ras_extension_no_syndrome_can_be_chosen_but_an_serror_injected(policy: str) -> None:
    refused = asked(policy, WITHOUT_RAS, serror_pending=1, serror_has_esr=1)
    assert (refused.errno, refused.guest_esr, refused.linux_guest) == (EINVAL, None, None)
    assert "RAS extension" in rules(refused)["kvm.set_vcpu_events"]
    done = asked(policy, WITHOUT_RAS, serror_pending=1)
    # from 6.17 on it is KVM, where SErrors are unmasked, that writes ESR_EL1
    assert (done.errno, done.guest_esr, done.linux_guest) == (0, 0xBF00_0000 if policy == L73 else 0xBE00_0000, "panics")
    assert bool(done.assumptions) == (policy == L73)


@pytest.mark.parametrize("policy", ALL)
def test_a_syndrome_that_is_not_pending_is_not_looked_at(policy: str) -> None:
    done = asked(policy, WITHOUT_RAS, serror_has_esr=1, serror_esr=(1 << 64) - 1)
    assert (done.accepted, done.arrivals, done.linux_guest) == (True, (), None)


@pytest.mark.parametrize("policy", ALL)
def test_without_a_syndrome_the_guest_gets_an_implementation_defined_one(policy: str) -> None:
    done = asked(policy, serror_pending=1, serror_esr=0x811)
    assert (done.guest_esr, done.linux_guest) == (0xBF00_0000, "panics")


@pytest.mark.parametrize("policy", ALL)
@pytest.mark.parametrize("fields", [{"pad": b"\0\0\0\0\1"}, {"reserved": bytes(47) + b"\1"}])
def test_a_reserved_byte_that_is_set_is_refused_before_anything_is_injected(policy: str, fields: dict[str, bytes]) -> None:
    done = asked(policy, serror_pending=1, ext_dabt_pending=1, **fields)
    assert (done.errno, done.arrivals) == (EINVAL, ())


@pytest.mark.parametrize("policy", ALL)
def test_every_value_but_0_is_yes(policy: str) -> None:
    assert asked(policy, serror_pending=255).arrivals == asked(policy, serror_pending=1).arrivals != ()


@pytest.mark.parametrize("policy", ALL)
def test_an_abort_is_taken_before_the_serror_that_comes_with_it(policy: str) -> None:
    for masked in (None, False):
        done = asked(
            policy,
            VcpuState(host_ras=True, guest_ras=True, serror_masked=masked),
            serror_pending=1,
            serror_has_esr=1,
            serror_esr=0x411,
            ext_dabt_pending=1,
        )
        assert [(arrival.esr, arrival.when) for arrival in done.arrivals] == [(abort(policy), "at_once"), (0xBE00_0411, "when_unmasked")]
        assert (done.guest_esr, done.linux_guest) == (abort(policy), "panics")


@pytest.mark.parametrize("policy", ALL)
def test_an_abort_alone_brings_no_serror(policy: str) -> None:
    done = asked(policy, WITHOUT_RAS, ext_dabt_pending=1)
    assert (done.accepted, done.guest_esr, done.linux_guest) == (True, abort(policy), None)
    assert any("0x24" in assumption.assumed for assumption in done.assumptions)


@pytest.mark.parametrize("vcpu", [ON_RAS, WITHOUT_RAS])
def test_row_139_a_newer_kernel_injects_the_abort_and_then_refuses_the_serror(vcpu: VcpuState) -> None:
    done = asked(L73, vcpu, serror_pending=1, serror_has_esr=1, serror_esr=1 << 25, ext_dabt_pending=1)
    assert (done.accepted, done.errno, done.linux_guest) == (False, EINVAL, None)
    assert [(arrival.exception, arrival.esr) for arrival in done.arrivals] == [("data_abort", ABORT)]
    assert next(fired for fired in done.rationale if fired.rule == "kvm.data_abort").since == "6.17"


@pytest.mark.parametrize("policy", UNTIL_6_12)
@pytest.mark.parametrize("vcpu", [ON_RAS, WITHOUT_RAS])
def test_row_140_an_older_kernel_refuses_both(policy: str, vcpu: VcpuState) -> None:
    done = asked(policy, vcpu, serror_pending=1, serror_has_esr=1, serror_esr=1 << 25, ext_dabt_pending=1)
    assert (done.errno, done.arrivals) == (EINVAL, ())


@pytest.mark.parametrize("policy", ALL)
def test_an_unmasked_serror_is_emulated_by_newer_kernels_and_masked_by_none(policy: str) -> None:
    unmasked = "at_once" if policy == L73 else "when_unmasked"
    for masked, expected in ((False, unmasked), (True, "when_unmasked"), (None, unmasked)):
        (arrival,) = asked(
            policy, VcpuState(host_ras=True, guest_ras=True, serror_masked=masked), serror_pending=1, serror_has_esr=1, serror_esr=0x811
        ).arrivals
        assert (arrival.when, arrival.esr) == (expected, 0xBE00_0811)


WITHOUT_IL, WITH_IL = 0xBC00_0011, 0xBE00_0011


@pytest.mark.parametrize(
    ("release", "masked", "esr"),
    [
        ("6.16.12", False, WITH_IL),
        ("6.17.0", False, WITHOUT_IL),
        ("6.17.0", None, WITHOUT_IL),
        ("6.17.0", True, WITH_IL),
        ("6.18.15", False, WITHOUT_IL),
        ("7.1.13", False, WITHOUT_IL),
        ("7.2.0", False, WITH_IL),
    ],
)
def test_kvms_own_entry_leaves_il_clear_from_6_17_to_7_1(release: str, masked: bool | None, esr: int) -> None:
    vcpu = VcpuState(host_ras=True, guest_ras=True, serror_masked=masked)
    done = asked(f"linux-{release}", vcpu, serror_pending=1, serror_has_esr=1, serror_esr=0x11)
    assert (done.guest_esr, done.linux_guest) == (esr, "panics")
    assert ("without IL" in rules(done)["kvm.serror"]) == (esr == WITHOUT_IL)
    assert [assumption.fact for assumption in done.assumptions] == ([] if masked is not None else ["guest.serror_masked"])


@pytest.mark.parametrize(
    ("release", "extended"),
    [
        ("5.15.200", False), ("5.18.19", False), ("5.19.0", True), ("6.1.0", True), ("6.1.192", True), ("6.6.53", True), ("6.6.54", False),
        ("6.10.13", False), ("6.11.1", True), ("6.11.2", False), ("6.12.0", False),
    ],
)  # fmt: skip
def test_an_injected_abort_has_a_sign_extended_syndrome_from_5_19_to_6_11(release: str, extended: bool) -> None:
    assert asked(f"linux-{release}", ext_dabt_pending=1).guest_esr == ABORT | (0xFFFF_FFFF << 32 if extended else 0)


def test_the_il_bit_of_an_injected_abort_is_that_of_the_last_exit_until_7_1() -> None:
    for release, facts in (("7.1.13", ["vcpu.exception_level", "vcpu.last_exit"]), ("7.2.0", ["vcpu.exception_level"])):
        assert [assumption.fact for assumption in asked(f"linux-{release}", ext_dabt_pending=1).assumptions] == facts


def test_a_release_that_is_not_fully_known_gives_an_answer_that_depends() -> None:
    assert asked("linux-6.1.x", serror_pending=1).reasons
    assert asked(L61, serror_pending=1).reasons == ()


@given(events, vcpus, st.sampled_from(ALL))
def test_what_arrives_is_what_was_asked_for(given_events: VcpuEvents, vcpu: VcpuState, policy: str) -> None:
    done = set_vcpu_events(given_events, vcpu, resolve_policy(policy))
    assert done.accepted == (done.errno == 0)
    kinds = [arrival.exception for arrival in done.arrivals]
    assert not (set(kinds) - {"data_abort"} and not given_events.serror_pending)
    assert not (set(kinds) - {"serror"} and not given_events.ext_dabt_pending)
    assert (done.linux_guest is None) == ("serror" not in kinds)
    if done.accepted:
        assert kinds == ["data_abort"] * bool(given_events.ext_dabt_pending) + ["serror"] * bool(given_events.serror_pending)
    for arrival in done.arrivals:
        assert arrival.esr & (1 << 32) - 1 >> 25 << 25 == (0xBE00_0000 if arrival.exception == "serror" else 0x9600_0000)


# What a Linux guest does


@pytest.mark.parametrize(
    ("iss", "does"),
    [
        (0x1811, "survives"),
        (0x811, "survives"),
        (0x1A11, "survives"),
        (0xC11, "panics"),
        (0x411, "panics"),
        (0x11, "panics"),
        (0x1011, "panics"),
        (0x1411, "panics"),
        (0x1C11, "panics"),
        (0x0, "panics"),
        (0x1800, "panics"),
        (IDS, "panics"),
        (IDS | 0x1811, "panics"),
    ],
    ids=lambda value: hex(value) if isinstance(value, int) else value,
)
def test_a_linux_guest_survives_only_what_lets_its_context_go_on(iss: int, does: str) -> None:
    assert linux_guest_reaction(serror_syndrome(0xBE00_0000 | iss), guest_ras=True) == does
    assert linux_guest_reaction(serror_syndrome(0xBE00_0000 | iss), guest_ras=False) == "panics"


def test_a_guest_from_which_the_extension_is_hidden_panics_of_what_it_cannot_read() -> None:
    done = asked(L73, VcpuState(host_ras=True, guest_ras=False, serror_masked=None), serror_pending=1, serror_has_esr=1, serror_esr=0x811)
    assert (done.guest_esr, done.linux_guest) == (0xBE00_0811, "panics")
    assert rules(done)["kvm.linux_guest"] == "the guest sees no architected syndrome: panics"
