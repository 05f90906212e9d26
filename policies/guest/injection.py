"""Choice of a guest's notification: abort, record, or virtual SError.

The choice may be more severe than the error, never milder: what cannot be reported exactly is reported as something worse.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import InjectSerror
from ras_triage.models.host import Vm
from ras_triage.models.kvm import VcpuEvents, encode_vcpu_events
from ras_triage.models.syndrome import IDS, AsynchronousErrorType, serror_iss, serror_syndrome
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.kvm import injected_serror, linux_guest_reaction

ABORT_FROM_USER: Final = 0x92000410
"""ESR_EL1 of an injected data abort that interrupts the guest's EL0: DFSC 0x10, FAR not valid."""


class GuestErrorKind(StrEnum):
    """An error's effect on the guest, by a record's severity or an SError's error type."""

    CORRECTED = "corrected"
    RECOVERABLE = "recoverable"
    """A memory error that the kernel signals: contained, and recoverable by the owner of the page."""
    UER = "uer"
    """Contained and precise, but without a known address to repair."""
    UEU = "ueu"
    UNCONTAINED = "uncontained"
    IMPLEMENTATION_DEFINED = "implementation_defined"
    UNCATEGORISED = "uncategorised"
    FATAL = "fatal"


class GuestError(NamedTuple):
    """An error as the VMM or the host knows it."""

    kind: GuestErrorKind
    consumed: bool = False
    """Whether the guest's own access consumed it."""
    address: Literal["guest", "elsewhere", "unknown"] = "unknown"
    """Whether the lost memory is the guest's."""


class InjectionCapabilities(NamedTuple):
    """What host and guest offer for the notification of an error."""

    sea_source: bool = False
    """The guest has an error source that it reads when it takes an abort."""
    other_source: bool = False
    """The guest has an error source that it reads at an interrupt or polls."""
    host_ras: bool = True
    guest_ras: bool = True
    ends_vm: bool = False
    """The policy ends the VM, not the host, for an uncontained error."""


class InjectionMethod(StrEnum):
    """How the guest is notified."""

    NOTHING = "nothing"
    ABORT = "abort"
    """A record, and a synchronous external abort."""
    RECORD = "record"
    """A record in an asynchronous source."""
    SERROR = "serror"
    HOST_PANIC = "host_panic"


class InjectionChoice(NamedTuple):
    """A method, and the syndrome that goes with it."""

    method: InjectionMethod
    iss: int = 0
    """VSESR_EL2, bits 24:0, where it is a virtual SError whose syndrome can be chosen."""
    survives: bool = True
    """Whether a Linux guest survives, rather than panics."""


_NOTHING: Final = InjectionChoice(InjectionMethod.NOTHING)
_HOST_PANIC: Final = InjectionChoice(InjectionMethod.HOST_PANIC, survives=False)
_SERROR_TYPES: Final = {
    GuestErrorKind.UER: AsynchronousErrorType.UER,
    GuestErrorKind.UEU: AsynchronousErrorType.UEU,
    GuestErrorKind.UNCONTAINED: AsynchronousErrorType.UC,
}


def choose_injection(error: GuestError, capabilities: InjectionCapabilities) -> InjectionChoice:
    """Return the least severe method that is not milder than the error."""
    if error.kind is GuestErrorKind.CORRECTED:
        return _NOTHING
    if error.kind is GuestErrorKind.FATAL or (error.kind is GuestErrorKind.UNCONTAINED and not capabilities.ends_vm):
        return _HOST_PANIC
    if error.kind is GuestErrorKind.RECOVERABLE:
        return _choose_for_consumed(error, capabilities) if error.consumed else _choose_for_unconsumed(error, capabilities)
    return serror_choice(_SERROR_TYPES.get(error.kind), capabilities)


def _choose_for_consumed(error: GuestError, capabilities: InjectionCapabilities) -> InjectionChoice:
    """Choose for a guest that cannot complete its access: it is given the lost page, or it ends."""
    if error.address == "guest" and (capabilities.sea_source or capabilities.other_source):
        return InjectionChoice(InjectionMethod.ABORT)
    return serror_choice(AsynchronousErrorType.UEU, capabilities)


def _choose_for_unconsumed(error: GuestError, capabilities: InjectionCapabilities) -> InjectionChoice:
    """Choose for an error that nothing has consumed: the guest continues, whether it can be notified or not."""
    if error.address != "guest":
        return _NOTHING
    if capabilities.other_source:
        return InjectionChoice(InjectionMethod.RECORD)
    return serror_choice(AsynchronousErrorType.UEO, capabilities) if capabilities.host_ras and capabilities.guest_ras else _NOTHING


def serror_choice(error_type: AsynchronousErrorType | None, capabilities: InjectionCapabilities) -> InjectionChoice:
    """Return a virtual SError of that type; None: without an architected type.

    A guest that does not see the RAS extension must not see its syndromes, and a host without it cannot choose one.
    """
    if not capabilities.host_ras:
        return InjectionChoice(InjectionMethod.SERROR, survives=False)
    iss = serror_iss(error_type) if error_type is not None and capabilities.guest_ras else IDS
    reaction = linux_guest_reaction(serror_syndrome(iss), guest_ras=capabilities.guest_ras)
    return InjectionChoice(InjectionMethod.SERROR, iss, survives=reaction == "survives")


_MILDEST_FIRST: Final = (
    AsynchronousErrorType.CE,
    AsynchronousErrorType.UEO,
    AsynchronousErrorType.UER,
    AsynchronousErrorType.UEU,
    AsynchronousErrorType.UC,
)


def serror_severity(iss: int) -> int:
    """Return a rank to compare syndromes by: one without an architected type is worse than any other."""
    error_type = serror_syndrome(iss).error_type
    return len(_MILDEST_FIRST) if error_type is None else _MILDEST_FIRST.index(error_type)


def combine_serrors(syndromes: Iterable[int]) -> int:
    """Return the most severe of the syndromes that are pending together (RAS extension, multiple SErrors)."""
    return max(syndromes, key=serror_severity)


def injection_step(vm: Vm | None, vcpu: int | None, iss: int, policy: Policy, *, host_ras: bool) -> InjectSerror:
    """Return the step that makes a virtual SError pending in a guest. Without the RAS extension no syndrome can be chosen."""
    chosen = iss if host_ras else 0
    events = VcpuEvents(serror_pending=1, serror_has_esr=int(host_ras), serror_esr=chosen)
    seen = injected_serror(iss, policy, host_ras=host_ras, masked=None if vm is None else vm.guest.serror_masked)
    return InjectSerror(None if vm is None else vm.id, vcpu, host_ras, chosen, seen.esr, encode_vcpu_events(events))
