"""How a guest is told of an error: by an abort, by one of its own error sources, or by a virtual SError, and with which syndrome.

The choice may be more severe than the error, and never milder: what cannot be told exactly is told as something worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import InjectSerror
from ras_triage.models.kvm import VcpuEvents, encode_vcpu_events, guest_serror_esr
from ras_triage.models.syndrome import IDS, AsynchronousErrorType, serror_iss, serror_syndrome
from ras_triage.policies.guest.kvm import linux_guest_on

ABORT_FROM_USER: Final = 0x92000410
"""ESR_EL1 of an injected data abort that interrupts the guest's EL0: DFSC 0x10, FAR not valid."""
ABORT_FROM_KERNEL: Final = 0x96000410
"""The same where it interrupts the guest's EL1."""


class GuestErrorKind(StrEnum):
    """What befell the guest, by a record's severity or an SError's error type."""

    CORRECTED = "corrected"
    RECOVERABLE = "recoverable"
    """A memory error that the kernel signals: contained, and whoever owns the page can do without it."""
    UER = "uer"
    """Contained and precise, but nobody knows what to repair."""
    UEU = "ueu"
    UNCONTAINED = "uncontained"
    IMPLEMENTATION_DEFINED = "implementation_defined"
    UNCATEGORISED = "uncategorised"
    FATAL = "fatal"


class GuestError(NamedTuple):
    """An error as the VMM, or the host, sees it."""

    kind: GuestErrorKind
    consumed: bool = False
    """Whether the guest's own access met it."""
    address: Literal["guest", "elsewhere", "unknown"] = "unknown"
    """Whether the lost memory is the guest's."""


class InjectionMeans(NamedTuple):
    """What host and guest have to tell an error by."""

    sea_source: bool = False
    """The guest has an error source that it reads when it takes an abort."""
    other_source: bool = False
    """The guest has an error source that it reads at an interrupt, or now and then."""
    host_ras: bool = True
    guest_ras: bool = True
    isolates: bool = False
    """The policy is to end the VM, and not the host, for an error that is not contained."""


class InjectionMethod(StrEnum):
    """By what the guest learns of the error."""

    NOTHING = "nothing"
    ABORT = "abort"
    """A record, and a synchronous external abort."""
    RECORD = "record"
    """A record in an asynchronous source."""
    SERROR = "serror"
    HOST_PANIC = "host_panic"


class InjectionChoice(NamedTuple):
    """How the guest is told."""

    way: InjectionMethod
    iss: int = 0
    """VSESR_EL2, bits 24:0, where it is a virtual SError whose syndrome can be chosen."""
    survives: bool = True
    """What a Linux guest does: goes on, or panics."""


_NOTHING: Final = InjectionChoice(InjectionMethod.NOTHING)
_HOST_PANIC: Final = InjectionChoice(InjectionMethod.HOST_PANIC, survives=False)
_TYPES: Final = {
    GuestErrorKind.UER: AsynchronousErrorType.UER,
    GuestErrorKind.UEU: AsynchronousErrorType.UEU,
    GuestErrorKind.UNCONTAINED: AsynchronousErrorType.UC,
}


def choose_injection(hit: GuestError, means: InjectionMeans) -> InjectionChoice:
    """The least severe way to tell the guest that is not milder than the error."""
    if hit.kind is GuestErrorKind.CORRECTED:
        return _NOTHING
    if hit.kind is GuestErrorKind.FATAL or (hit.kind is GuestErrorKind.UNCONTAINED and not means.isolates):
        return _HOST_PANIC
    if hit.kind is GuestErrorKind.RECOVERABLE:
        return _tell_consumed(hit, means) if hit.consumed else _tell_latent(hit, means)
    return serror_choice(_TYPES.get(hit.kind), means)


def _tell_consumed(hit: GuestError, means: InjectionMeans) -> InjectionChoice:
    """The guest cannot go on from its access: it learns which page is lost, or it ends."""
    if hit.address == "guest" and (means.sea_source or means.other_source):
        return InjectionChoice(InjectionMethod.ABORT)
    return serror_choice(AsynchronousErrorType.UEU, means)


def _tell_latent(hit: GuestError, means: InjectionMeans) -> InjectionChoice:
    """Nobody has used what is lost: the guest goes on, whether it can be told or not."""
    if hit.address != "guest":
        return _NOTHING
    if means.other_source:
        return InjectionChoice(InjectionMethod.RECORD)
    return serror_choice(AsynchronousErrorType.UEO, means) if means.host_ras and means.guest_ras else _NOTHING


def serror_choice(error_type: AsynchronousErrorType | None, means: InjectionMeans) -> InjectionChoice:
    """A virtual SError of that type; None: of none that the architecture defines.

    A guest that does not see the RAS extension must not see its syndromes either, and a host without it cannot choose one.
    """
    if not means.host_ras:
        return InjectionChoice(InjectionMethod.SERROR, 0, survives=False)
    iss = serror_iss(error_type) if error_type is not None and means.guest_ras else IDS
    return InjectionChoice(InjectionMethod.SERROR, iss, linux_guest_on(serror_syndrome(iss), means.guest_ras) == "survives")


_MILDEST_FIRST: Final = (
    AsynchronousErrorType.CE,
    AsynchronousErrorType.UEO,
    AsynchronousErrorType.UER,
    AsynchronousErrorType.UEU,
    AsynchronousErrorType.UC,
)


def serror_severity(iss: int) -> int:
    """How severe a syndrome is, for comparison: what has no architected type is worse than all that have one."""
    error_type = serror_syndrome(iss).error_type
    return len(_MILDEST_FIRST) if error_type is None else _MILDEST_FIRST.index(error_type)


def combine_serrors(syndromes: Iterable[int]) -> int:
    """The one syndrome for virtual SErrors that are pending together: the worst of them (RAS extension, multiple SErrors)."""
    return max(syndromes, key=serror_severity)


def injection_step(vm: str, vcpu: int | None, telling: InjectionChoice, means: InjectionMeans) -> InjectSerror:
    """The step that makes the virtual SError pending."""
    events = VcpuEvents(serror_pending=1, serror_has_esr=int(means.host_ras), serror_esr=telling.iss)
    seen = guest_serror_esr(telling.iss, ras_extension=means.host_ras)
    return InjectSerror(vm, vcpu, means.host_ras, telling.iss, seen, encode_vcpu_events(events))
