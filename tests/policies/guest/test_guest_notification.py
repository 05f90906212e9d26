"""Choice of a guest's notification."""

from __future__ import annotations

import struct
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.host import Guest, Vm
from ras_triage.models.syndrome import serror_syndrome
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.guest.injection import (
    GuestError,
    GuestErrorKind,
    InjectionCapabilities,
    InjectionChoice,
    InjectionMethod,
    choose_injection,
    combine_serrors,
    injection_step,
    serror_severity,
)
from ras_triage.policies.guest.kvm import linux_guest_reaction

CE, UEO, UER, UEU, UC, IDS = 0x1811, 0x811, 0xC11, 0x411, 0x11, 0x1000000
BOTH = InjectionCapabilities()
SEA = InjectionCapabilities(sea_source=True)
GPIO = InjectionCapabilities(other_source=True)
HIDDEN = InjectionCapabilities(guest_ras=False)
NO_HOST_RAS = InjectionCapabilities(host_ras=False)
NOTHING, HOST_PANIC = InjectionChoice(InjectionMethod.NOTHING), InjectionChoice(InjectionMethod.HOST_PANIC, survives=False)
CONSUMED = GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address="guest")
LATENT = GuestError(GuestErrorKind.RECOVERABLE, consumed=False, address="guest")


def panics(iss: int) -> InjectionChoice:
    return InjectionChoice(InjectionMethod.SERROR, iss, survives=False)


class Line(NamedTuple):
    """One line of the table."""

    name: str
    error: GuestError
    capabilities: InjectionCapabilities
    told: InjectionChoice


LINES = [
    Line("corrected", GuestError(GuestErrorKind.CORRECTED), BOTH, NOTHING),
    Line(
        "corrected, in the guest's memory",
        GuestError(GuestErrorKind.CORRECTED, consumed=True, address="guest"),
        InjectionCapabilities(sea_source=True, other_source=True),
        NOTHING,
    ),
    Line("consumed, with a source", CONSUMED, SEA, InjectionChoice(InjectionMethod.ABORT)),
    Line(
        "consumed, whatever the RAS extension",
        CONSUMED,
        InjectionCapabilities(sea_source=True, host_ras=False, guest_ras=False),
        InjectionChoice(InjectionMethod.ABORT),
    ),
    Line("consumed, with a source that is not for aborts", CONSUMED, GPIO, InjectionChoice(InjectionMethod.ABORT)),
    Line("consumed, without a source", CONSUMED, BOTH, panics(UEU)),
    Line("latent, with an asynchronous source", LATENT, GPIO, InjectionChoice(InjectionMethod.RECORD)),
    Line("latent, without", LATENT, SEA, InjectionChoice(InjectionMethod.SERROR, UEO, survives=True)),
    Line("latent, without, and the guest has no RAS", LATENT, HIDDEN, NOTHING),
    Line("latent, without, and the host has no RAS", LATENT, NO_HOST_RAS, NOTHING),
    Line(
        "latent, in the VMM's own memory",
        GuestError(GuestErrorKind.RECOVERABLE, address="elsewhere"),
        InjectionCapabilities(sea_source=True, other_source=True),
        NOTHING,
    ),
    Line("recoverable at an unknown address", GuestError(GuestErrorKind.UER), BOTH, panics(UER)),
    Line(
        "unrecoverable",
        GuestError(GuestErrorKind.UEU, address="guest"),
        InjectionCapabilities(sea_source=True, other_source=True),
        panics(UEU),
    ),
    Line(
        "consumed on the guest's behalf",
        GuestError(GuestErrorKind.RECOVERABLE, consumed=True, address="elsewhere"),
        InjectionCapabilities(sea_source=True, other_source=True),
        panics(UEU),
    ),
    Line("uncontained", GuestError(GuestErrorKind.UNCONTAINED), BOTH, HOST_PANIC),
    Line(
        "uncontained, and the policy isolates the VM",
        GuestError(GuestErrorKind.UNCONTAINED),
        InjectionCapabilities(ends_vm=True),
        panics(UC),
    ),
    Line(
        "fatal",
        GuestError(GuestErrorKind.FATAL, address="guest"),
        InjectionCapabilities(sea_source=True, other_source=True, ends_vm=True),
        HOST_PANIC,
    ),
    *[
        Line(f"{kind}, guest RAS hidden", GuestError(kind), HIDDEN, panics(IDS))
        for kind in (GuestErrorKind.UER, GuestErrorKind.UEU, GuestErrorKind.UNCATEGORISED)
    ],
    Line("consumed, guest RAS hidden", CONSUMED, HIDDEN, panics(IDS)),
    *[
        Line(f"{kind}, no host RAS", GuestError(kind), NO_HOST_RAS, panics(0))
        for kind in (GuestErrorKind.UER, GuestErrorKind.UEU, GuestErrorKind.IMPLEMENTATION_DEFINED)
    ],
    Line("consumed, no host RAS", CONSUMED, NO_HOST_RAS, panics(0)),
    Line("implementation defined", GuestError(GuestErrorKind.IMPLEMENTATION_DEFINED), BOTH, panics(IDS)),
    Line("uncategorised", GuestError(GuestErrorKind.UNCATEGORISED), BOTH, panics(IDS)),
]


@pytest.mark.parametrize("line", [pytest.param(line, id=line.name) for line in LINES])
def test_a_line_of_the_syndrome_table(line: Line) -> None:
    assert choose_injection(line.error, line.capabilities) == line.told


@pytest.mark.parametrize(
    ("iss", "guest_esr"),
    [(UC, 0xBE000011), (UEU, 0xBE000411), (UEO, 0xBE000811), (UER, 0xBE000C11), (CE, 0xBE001811), (IDS, 0xBF000000), (0, 0xBE000000)],
)
def test_a_guest_sees_the_syndrome_in_esr_el1(iss: int, guest_esr: int) -> None:
    step = injection_step(Vm(id="vm-1", pid=1), 2, iss, resolve_policy("linux-7.3.4"), host_ras=True)
    assert (step.vm, step.vcpu, step.has_esr, step.vsesr_el2, step.guest_esr) == ("vm-1", 2, True, iss, guest_esr)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, 1, 0, iss)


@pytest.mark.parametrize(
    ("release", "masked", "guest_esr"),
    [("6.16.12", None, 0xBE000000), ("7.1.13", None, 0xBD000000), ("7.3.4", None, 0xBF000000), ("7.3.4", True, 0xBE000000)],
)
def test_a_host_without_ras_must_not_choose_a_syndrome(release: str, masked: bool | None, guest_esr: int) -> None:
    vm = Vm(id="vm-1", pid=1, guest=Guest(serror_masked=masked))
    step = injection_step(vm, None, choose_injection(CONSUMED, NO_HOST_RAS).iss, resolve_policy(f"linux-{release}"), host_ras=False)
    assert (step.has_esr, step.vsesr_el2, step.guest_esr) == (False, 0, guest_esr)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, 0, 0, 0)


LEAST = {
    GuestErrorKind.UER: UER,
    GuestErrorKind.UEU: UEU,
    GuestErrorKind.UNCONTAINED: UC,
    GuestErrorKind.IMPLEMENTATION_DEFINED: IDS,
    GuestErrorKind.UNCATEGORISED: IDS,
}
hits = st.builds(GuestError, st.sampled_from(GuestErrorKind), st.booleans(), st.sampled_from(["guest", "elsewhere", "unknown"]))


@given(hits, st.builds(InjectionCapabilities, *[st.booleans()] * 5))
def test_no_syndrome_is_milder_than_the_error(error: GuestError, capabilities: InjectionCapabilities) -> None:
    told = choose_injection(error, capabilities)
    if told.method is InjectionMethod.SERROR:
        least = LEAST.get(error.kind, UER if error.consumed else UEO)
        assert serror_severity(told.iss) >= serror_severity(least)
    if error.kind in LEAST:
        assert told.method in (InjectionMethod.SERROR, InjectionMethod.HOST_PANIC)
    if error.kind is GuestErrorKind.RECOVERABLE and error.consumed:
        assert told.method in (InjectionMethod.ABORT, InjectionMethod.SERROR), (
            "the guest must not go on from its access as if nothing had happened"
        )


@given(hits, st.builds(InjectionCapabilities, *[st.booleans()] * 5))
def test_a_guest_is_never_shown_a_syndrome_that_it_does_not_know(error: GuestError, capabilities: InjectionCapabilities) -> None:
    told = choose_injection(error, capabilities)
    if told.method is InjectionMethod.SERROR and not (capabilities.host_ras and capabilities.guest_ras):
        assert told.iss == (IDS if capabilities.host_ras else 0)
        assert not told.survives


def test_an_uncontained_error_is_the_worst_and_no_syndrome_worse_than_any() -> None:
    order = [CE, UEO, UER, UEU, UC, IDS]
    for one, other in product(range(6), repeat=2):
        assert combine_serrors([order[one], order[other]]) == order[max(one, other)]


@pytest.mark.parametrize(("iss", "survives"), [(CE, True), (UEO, True), (UER, False), (UEU, False), (UC, False), (IDS, False), (0, False)])
def test_a_linux_guest_survives_only_what_it_can_go_on_from(iss: int, survives: bool) -> None:
    assert (linux_guest_reaction(serror_syndrome(iss), guest_ras=True) == "survives") is survives
