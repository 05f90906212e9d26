"""The table of syndromes: how a guest is told of each kind of error, and that it is never told something milder."""

from __future__ import annotations

import struct
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.syndrome import serror_syndrome
from policies.guest.tell import Hit, Kind, Means, Telling, Way, combine, inject, severity_of, tell
from policies.kvm import linux_guest_on

CE, UEO, UER, UEU, UC, IDS = 0x1811, 0x811, 0xC11, 0x411, 0x11, 0x1000000
BOTH = Means()
SEA = Means(sea_source=True)
GPIO = Means(other_source=True)
HIDDEN = Means(guest_ras=False)
NO_HOST_RAS = Means(host_ras=False)
NOTHING, HOST_PANIC = Telling(Way.NOTHING), Telling(Way.HOST_PANIC, survives=False)
CONSUMED = Hit(Kind.RECOVERABLE, consumed=True, address="guest")
LATENT = Hit(Kind.RECOVERABLE, consumed=False, address="guest")


def panics(iss: int) -> Telling:
    return Telling(Way.SERROR, iss, survives=False)


class Line(NamedTuple):
    """One line of the table."""

    name: str
    hit: Hit
    means: Means
    told: Telling


LINES = [
    Line("corrected", Hit(Kind.CORRECTED), BOTH, NOTHING),
    Line("corrected, in the guest's memory", Hit(Kind.CORRECTED, consumed=True, address="guest"), Means(True, True), NOTHING),
    Line("consumed, with a source", CONSUMED, SEA, Telling(Way.ABORT)),
    Line("consumed, whatever the RAS extension", CONSUMED, Means(sea_source=True, host_ras=False, guest_ras=False), Telling(Way.ABORT)),
    Line("consumed, with a source that is not for aborts", CONSUMED, GPIO, Telling(Way.ABORT)),
    Line("consumed, without a source", CONSUMED, BOTH, panics(UEU)),
    Line("latent, with an asynchronous source", LATENT, GPIO, Telling(Way.RECORD)),
    Line("latent, without", LATENT, SEA, Telling(Way.SERROR, UEO, survives=True)),
    Line("latent, without, and the guest has no RAS", LATENT, HIDDEN, NOTHING),
    Line("latent, without, and the host has no RAS", LATENT, NO_HOST_RAS, NOTHING),
    Line("latent, in the VMM's own memory", Hit(Kind.RECOVERABLE, address="elsewhere"), Means(True, True), NOTHING),
    Line("recoverable at an unknown address", Hit(Kind.UER), BOTH, panics(UER)),
    Line("unrecoverable", Hit(Kind.UEU, address="guest"), Means(True, True), panics(UEU)),
    Line("consumed on the guest's behalf", Hit(Kind.RECOVERABLE, consumed=True, address="elsewhere"), Means(True, True), panics(UEU)),
    Line("uncontained", Hit(Kind.UNCONTAINED), BOTH, HOST_PANIC),
    Line("uncontained, and the policy isolates the VM", Hit(Kind.UNCONTAINED), Means(isolates=True), panics(UC)),
    Line("fatal", Hit(Kind.FATAL, address="guest"), Means(True, True, isolates=True), HOST_PANIC),
    *[Line(f"{kind}, guest RAS hidden", Hit(kind), HIDDEN, panics(IDS)) for kind in (Kind.UER, Kind.UEU, Kind.UNCATEGORISED)],
    Line("consumed, guest RAS hidden", CONSUMED, HIDDEN, panics(IDS)),
    *[Line(f"{kind}, no host RAS", Hit(kind), NO_HOST_RAS, panics(0)) for kind in (Kind.UER, Kind.UEU, Kind.IMPLEMENTATION_DEFINED)],
    Line("consumed, no host RAS", CONSUMED, NO_HOST_RAS, panics(0)),
    Line("implementation defined", Hit(Kind.IMPLEMENTATION_DEFINED), BOTH, panics(IDS)),
    Line("uncategorised", Hit(Kind.UNCATEGORISED), BOTH, panics(IDS)),
]


@pytest.mark.parametrize("line", [pytest.param(line, id=line.name) for line in LINES])
def test_a_line_of_the_syndrome_table(line: Line) -> None:
    assert tell(line.hit, line.means) == line.told


@pytest.mark.parametrize(
    ("iss", "guest_esr"),
    [(UC, 0xBE000011), (UEU, 0xBE000411), (UEO, 0xBE000811), (UER, 0xBE000C11), (CE, 0xBE001811), (IDS, 0xBF000000), (0, 0xBE000000)],
)
def test_a_guest_sees_the_syndrome_in_esr_el1(iss: int, guest_esr: int) -> None:
    step = inject("vm-1", 2, panics(iss), BOTH)
    assert (step.vm, step.vcpu, step.has_esr, step.vsesr_el2, step.guest_esr) == ("vm-1", 2, True, iss, guest_esr)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, 1, 0, iss)


def test_a_host_without_ras_must_not_choose_a_syndrome() -> None:
    step = inject("vm-1", None, tell(CONSUMED, NO_HOST_RAS), NO_HOST_RAS)
    assert (step.has_esr, step.vsesr_el2, step.guest_esr) == (False, 0, 0xBE000000)
    assert struct.unpack("<BBB5xQ48x", step.vcpu_events) == (1, 0, 0, 0)


LEAST = {Kind.UER: UER, Kind.UEU: UEU, Kind.UNCONTAINED: UC, Kind.IMPLEMENTATION_DEFINED: IDS, Kind.UNCATEGORISED: IDS}
hits = st.builds(Hit, st.sampled_from(Kind), st.booleans(), st.sampled_from(["guest", "elsewhere", "unknown"]))


@given(hits, st.builds(Means, *[st.booleans()] * 5))
def test_no_syndrome_is_milder_than_the_error(hit: Hit, means: Means) -> None:
    told = tell(hit, means)
    if told.way is Way.SERROR:
        least = LEAST.get(hit.kind, UER if hit.consumed else UEO)
        assert severity_of(told.iss) >= severity_of(least)
    if hit.kind in LEAST:
        assert told.way in (Way.SERROR, Way.HOST_PANIC)
    if hit.kind is Kind.RECOVERABLE and hit.consumed:
        assert told.way in (Way.ABORT, Way.SERROR), "the guest must not go on from its access as if nothing had happened"


@given(hits, st.builds(Means, *[st.booleans()] * 5))
def test_a_guest_is_never_shown_a_syndrome_that_it_does_not_know(hit: Hit, means: Means) -> None:
    told = tell(hit, means)
    if told.way is Way.SERROR and not (means.host_ras and means.guest_ras):
        assert told.iss == (IDS if means.host_ras else 0)
        assert not told.survives


def test_an_uncontained_error_is_the_worst_and_no_syndrome_worse_than_any() -> None:
    order = [CE, UEO, UER, UEU, UC, IDS]
    for one, other in product(range(6), repeat=2):
        assert combine([order[one], order[other]]) == order[max(one, other)]


@pytest.mark.parametrize(("iss", "survives"), [(CE, True), (UEO, True), (UER, False), (UEU, False), (UC, False), (IDS, False), (0, False)])
def test_a_linux_guest_survives_only_what_it_can_go_on_from(iss: int, survives: bool) -> None:
    assert (linux_guest_on(serror_syndrome(iss), guest_ras=True) == "survives") is survives
