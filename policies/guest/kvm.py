"""Outcome of KVM_SET_VCPU_EVENTS on arm64 (Documentation/virt/kvm/api.rst 4.32)."""

from __future__ import annotations

from typing import Final

from ras_triage.models.decision import Assumption, Rationale
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Vm
from ras_triage.models.kvm import EXT_DABT_ESR, SIGN_EXTENSION, GuestException, LinuxGuest, VcpuEvents, guest_serror_esr
from ras_triage.models.syndrome import (
    DFSC_ASYNCHRONOUS,
    IDS,
    IL,
    ISS_MASK,
    SERROR_ESR_BASE,
    AsynchronousErrorType,
    SErrorSyndrome,
    serror_syndrome,
)
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import ASSUMED_RAS, Facts
from ras_triage.policies.pipeline.stage_result import rule

EINVAL: Final = 22


_FROM_EL1: Final = Assumption("vcpu.exception_level", "EL1; from EL0 the data abort would have exception class 0x24")
_LAST_TRAP: Final = Assumption("vcpu.last_exit", "ESR_EL2.IL was set at the vCPU's last exit: ESR_EL1.IL of the data abort is a copy of it")
ASSUMED_UNMASKED: Final = Assumption(
    "guest.serror_masked", "the guest has SErrors unmasked, so that KVM enters its SError vector and supplies the syndrome"
)

_SURVIVED: Final = (AsynchronousErrorType.CE, AsynchronousErrorType.UEO)


@frozen
class InjectionOutcome:
    """The outcome of one KVM_SET_VCPU_EVENTS call."""

    accepted: bool
    errno: int
    """0, or the positive error number of the ioctl."""
    arrivals: tuple[GuestException, ...]
    """In the order in which the guest takes them: a call that fails may have injected something before it does."""
    linux_guest: LinuxGuest | None
    """What a Linux guest does with the SError; None where none arrives."""
    rationale: tuple[Rationale, ...]
    reasons: tuple[str, ...]
    """Why the outcome depends on something unknown."""
    assumptions: tuple[Assumption, ...]

    @property
    def guest_esr(self) -> int | None:
        """Return ESR_EL1 of the first exception that the guest takes, or None."""
        return self.arrivals[0].esr if self.arrivals else None


@frozen
class VcpuState:
    """The vCPU's state before the call. It has run before and is not nested."""

    host_ras: bool
    """The host's CPUs have FEAT_RAS."""
    guest_ras: bool
    """The guest sees FEAT_RAS."""
    serror_masked: bool | None
    """PSTATE.A; None: not known, unmasked assumed."""


def set_vcpu_events(events: VcpuEvents, vcpu: VcpuState, policy: Policy) -> InjectionOutcome:
    """Return the outcome of the call. Mirrors `__kvm_arm_vcpu_set_events`."""
    malformed = _is_malformed(events)
    rejection = "a reserved byte is not zero" if malformed else _rejection(events, vcpu)
    aborts = bool(events.ext_dabt_pending) and not malformed and (rejection is None or policy.behaviours.kvm_ext_dabt_first)
    arrivals: tuple[GuestException, ...] = ()
    rationale = [_taken(events, vcpu, rejection, policy)]
    assumptions: list[Assumption] = []
    linux_guest: LinuxGuest | None = None
    if aborts:
        arrivals = (_abort(policy),)
        rationale.append(_aborted(rejection, policy))
        assumptions += (_FROM_EL1,) if policy.behaviours.kvm_abort_il_always_set else (_FROM_EL1, _LAST_TRAP)
    if rejection is None and events.serror_pending:
        arrival = _serror(events, vcpu, policy, aborts=aborts)
        arrivals = (*arrivals, arrival)
        linux_guest = linux_guest_reaction(serror_syndrome(arrival.esr), guest_ras=vcpu.guest_ras)
        rationale += (_delivered(arrival, policy), _survived(arrival, vcpu, linux_guest, policy))
        if vcpu.serror_masked is None and not aborts and policy.behaviours.kvm_serror_emulated:
            assumptions.append(ASSUMED_UNMASKED)
    errno = 0 if rejection is None else EINVAL
    return InjectionOutcome(
        accepted=not errno,
        errno=errno,
        arrivals=arrivals,
        linux_guest=linux_guest,
        rationale=tuple(rationale),
        reasons=policy.unknowns,
        assumptions=tuple(assumptions),
    )


def assumed_of_serror(policy: Policy, facts: Facts, vm: Vm | None) -> tuple[Assumption, ...]:
    """Return the assumptions behind the syndrome of a virtual SError."""
    does = policy.behaviours
    assumed = (ASSUMED_RAS,) if facts.host.ras_extension is None else ()
    differs = does.kvm_serror_emulated and (does.kvm_serror_entry_without_il or not facts.ras_extension)
    return (*assumed, ASSUMED_UNMASKED) if differs and (vm is None or vm.guest.serror_masked is None) else assumed


def injected_serror(iss: int, policy: Policy, *, host_ras: bool, masked: bool | None) -> GuestException:
    """Return an injected SError as the guest takes it: from KVM itself, or from the CPU. Mirrors `kvm_inject_serror_esr`.

    `masked`: PSTATE.A of the guest. Without a syndrome from the VMM, KVM's own is IDS.
    """
    does = policy.behaviours
    if masked or not does.kvm_serror_emulated:
        return GuestException("serror", guest_serror_esr(iss, ras_extension=host_ras), "when_unmasked")
    base = SERROR_ESR_BASE & ~IL if does.kvm_serror_entry_without_il else SERROR_ESR_BASE
    return GuestException("serror", base | (iss if host_ras else IDS), "at_once")


def linux_guest_reaction(syndrome: SErrorSyndrome, *, guest_ras: bool) -> LinuxGuest:
    """Return the reaction of a Linux guest of any release to an SError with that syndrome. Mirrors `do_serror`."""
    return "survives" if guest_ras and syndrome.error_type in _SURVIVED else "panics"


def _is_malformed(events: VcpuEvents) -> bool:
    """Return whether a reserved byte is set. Mirrors `kvm_arm_vcpu_set_events`."""
    return any(events.pad) or any(events.reserved)


def _rejection(events: VcpuEvents, vcpu: VcpuState) -> str | None:
    """Return why KVM rejects the SError, or None."""
    if not events.serror_pending or not events.serror_has_esr:
        return None
    if not vcpu.host_ras:
        return "`serror_has_esr` must be 0 on a host without the RAS extension"
    if events.serror_esr & ~ISS_MASK:
        return "`serror_esr` has bits above 24:0, where the CPU puts the exception class"
    return None


def _taken(events: VcpuEvents, vcpu: VcpuState, rejection: str | None, policy: Policy) -> Rationale:
    return rule(
        policy,
        "kvm.set_vcpu_events",
        f"EINVAL: {rejection}" if rejection else "accepted",
        "kvm_arm_vcpu_set_events" if _is_malformed(events) else "__kvm_arm_vcpu_set_events",
        serror_pending=bool(events.serror_pending),
        serror_has_esr=bool(events.serror_has_esr),
        serror_esr=hex(events.serror_esr),
        ext_dabt_pending=bool(events.ext_dabt_pending),
        host_ras=vcpu.host_ras,
    )


def _abort(policy: Policy) -> GuestException:
    """Return the injected data abort. Mirrors `inject_abt64`."""
    upper = SIGN_EXTENSION if policy.behaviours.kvm_abort_syndrome_sign_extended else 0
    return GuestException("data_abort", upper | EXT_DABT_ESR, "at_once")


def _aborted(rejection: str | None, policy: Policy) -> Rationale:
    before = " before the SError is rejected" if rejection else ""
    injects = "kvm_inject_sea_dabt" if policy.behaviours.kvm_ext_dabt_first else "kvm_inject_dabt"
    wide = ", ESR_EL1 sign-extended to 64 bits" if policy.behaviours.kvm_abort_syndrome_sign_extended else ""
    flags = ("kvm_ext_dabt_first", "kvm_abort_syndrome_sign_extended")
    return rule(policy, "kvm.data_abort", f"a data abort is injected{before}{wide}", injects, *flags)


def _serror(events: VcpuEvents, vcpu: VcpuState, policy: Policy, *, aborts: bool) -> GuestException:
    """Return the SError that the guest takes. The entry to the data abort's handler masks SErrors, so one after an abort waits."""
    iss = events.serror_esr if events.serror_has_esr else IDS
    return injected_serror(iss, policy, host_ras=vcpu.host_ras, masked=aborts or vcpu.serror_masked)


def _delivered(arrival: GuestException, policy: Policy) -> Rationale:
    if arrival.when == "at_once":
        without_il = ", ESR_EL1 without IL" if policy.behaviours.kvm_serror_entry_without_il else ""
        enters = f"KVM enters the guest's SError vector{without_il}"
        return rule(policy, "kvm.serror", enters, "kvm_inject_serror_esr", "kvm_serror_entry_without_il", "kvm_serror_emulated")
    pends = "kvm_inject_serror_esr" if policy.behaviours.kvm_serror_emulated else "__kvm_arm_vcpu_set_events"
    return rule(policy, "kvm.serror", "virtual SError pending: the CPU delivers it (HCR_EL2.VSE)", pends)


def _survived(arrival: GuestException, vcpu: VcpuState, linux_guest: LinuxGuest, policy: Policy) -> Rationale:
    syndrome = serror_syndrome(arrival.esr)
    kind = syndrome.error_type
    if not vcpu.guest_ras or syndrome.ids:
        why = "the guest sees no architected syndrome"
    elif syndrome.dfsc != DFSC_ASYNCHRONOUS:
        why = "uncategorised"
    else:
        why = "a reserved error type" if kind is None else kind.name
    return rule(policy, "kvm.linux_guest", f"{why}: {linux_guest}", "do_serror", guest_ras=vcpu.guest_ras)
