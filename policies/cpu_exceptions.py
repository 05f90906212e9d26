"""CPU exceptions without a record: unclaimed aborts, kernel aborts, SErrors."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

from ras_triage.models.decision import Assumption, ExitToVmm, InjectSerror, Log, Oops, Panic, Rationale, Signal, Step
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import Notification
from ras_triage.models.records.status_block import StatusBlock
from ras_triage.models.severity import GhesSeverity, ghes_severity
from ras_triage.models.syndrome import (
    DFSC_ASYNCHRONOUS,
    FNV,
    FSC_PARITY,
    FSC_SEA,
    FSC_WALK,
    FSC_WALK_LEVEL_MINUS_1,
    IDS,
    S1PTW,
    SERROR_ESR_BASE,
    SET,
    VNCR,
    AsynchronousErrorType,
    ExceptionClass,
    SErrorSyndrome,
    abort_syndrome,
    serror_iss,
    serror_syndrome,
)
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.injection import injection_step
from ras_triage.policies.guest.kvm import assumed_of_serror
from ras_triage.policies.pipeline.admission import Admission, stays_in_guest
from ras_triage.policies.pipeline.facts import ASSUMED_CURRENT, ASSUMED_RAS, ASSUMED_SYSCTL, ASSUMED_VMS, Facts
from ras_triage.policies.pipeline.sections import SectionWalk
from ras_triage.policies.pipeline.severity import TAINT, reboot_delay
from ras_triage.policies.pipeline.signals import assumed_current, kill_current
from ras_triage.policies.pipeline.stage_result import EMPTY_RESULT, StageResult, rule

SERROR_PANIC: Final = "Asynchronous SError Interrupt"
_IDLE: Final = "an abort in the idle task panics, an abort in a kernel thread ends only that thread"
_ESR_EXPORTED_TO_VMM: Final = 0xFC000000 | 1 << 25 | 1 << 10 | 1 << 9 | 1 << 8 | 1 << 6 | 0x3F
"""EC, IL, FnV, EA, CM, WnR and FSC: the syndrome fields in KVM_EXIT_ARM_SEA."""
_ASSUMED_UNCATEGORISED: Final = Assumption("notification.syndrome", "an uncategorised SError")
_STAYS_IN_GUEST: Final = "the CPU takes the abort to the guest, not to KVM: it has no RAS extension (HCR_EL2.TEA)"
_KVM_RUN_FAILS: Final = "KVM_RUN returns EFAULT: KVM does not know fault status code {:#x}"
_ASSUMED_UNTRANSLATED: Final = Assumption("guest.page_tables", "KVM cannot translate the guest's fault address: `gpa` is 0 in the exit")
_DATA_ABORTS: Final = (ExceptionClass.DATA_ABORT_LOWER, ExceptionClass.DATA_ABORT_SAME)


def _taint(policy: Policy) -> tuple[Step, ...]:
    return (TAINT,) if policy.behaviours.exception_taints else ()


# Aborts without a usable record


def handle_unclaimed_abort(notification: Notification, admission: Admission, policy: Policy, facts: Facts) -> StageResult:
    """Handle an abort that no record accounts for. Mirrors `do_sea` and `kvm_handle_guest_sea`."""
    if notification.taken_from == "kernel":
        return handle_abort_in_kernel(policy, facts)
    if notification.taken_from == "guest":
        return _unclaimed_in_guest(notification, admission, policy, facts)
    name, code, outcome = _arm64_fault(policy, admission.fsc)
    current = facts.host.current
    pid, tid = (current.pid, current.tid) if current else (None, None)
    if code == "BUS_OBJERR":
        address = _signalled_address(notification, policy)
        step = Signal(pid, tid, "SIGBUS", "BUS_OBJERR", address, lsb=None, forced=True)
    else:
        step = Signal(pid, tid, "SIGKILL", "SI_KERNEL", address=None, lsb=None, forced=True)
    flags = ("walk_level_minus_1_is_sea", "walk_abort_is_bus_error")
    fired = rule(policy, "exceptions.unclaimed", outcome, name, *flags, fsc=hex(admission.fsc))
    return StageResult((*_taint(policy), step), (fired,), (), assumed_current(facts))


def _arm64_fault(policy: Policy, fsc: int) -> tuple[str, Literal["BUS_OBJERR", "SIGKILL"], str]:
    """Return the kernel's handler for a fault status code, and the signal of an unclaimed abort."""
    handled = fsc in (FSC_SEA, FSC_PARITY) or fsc in FSC_WALK or policy.behaviours.walk_level_minus_1_is_sea
    handler = "do_sea" if handled else "do_bad"
    if fsc in (FSC_SEA, FSC_PARITY) or policy.behaviours.walk_abort_is_bus_error:
        return handler, "BUS_OBJERR", "unclaimed: SIGBUS with the fault address"
    return handler, "SIGKILL", "unclaimed, on a table walk: SIGKILL"


def _signalled_address(notification: Notification, policy: Policy) -> int:
    """Return FAR_ELx without its tag byte, or 0 where it is not valid."""
    far, esr = notification.fault_address, notification.syndrome
    if far is None or (esr is not None and abort_syndrome(esr).fnv):
        return 0
    instruction = esr is not None and esr >> 26 == 0x20
    if instruction and not policy.behaviours.abort_address_untagged:
        return far
    return _untagged(far)


def _untagged(address: int) -> int:
    """Return an address sign-extended from bit 55, as `untagged_addr` does."""
    low = address & (1 << 56) - 1
    return low | 0xFF << 56 if low >> 55 else low


def handle_abort_in_kernel(policy: Policy, facts: Facts) -> StageResult:
    """Handle an abort in kernel mode, for which exception table fixups do not apply. Mirrors `die`."""
    current = facts.host.current
    pid = current.pid if current else None
    oops = Oops(pid, "synchronous external abort")
    assumptions = () if facts.host.sysctl else (ASSUMED_SYSCTL,)
    fatal = bool(facts.sysctl.panic_on_oops) or pid in (0, 1) or policy.behaviours.abort_in_kernel_reads_record
    fired = rule(
        policy,
        "exceptions.kernel_mode",
        "oops, then panic" if fatal else "oops: the interrupted task is killed",
        "die",
        panic_on_oops=facts.sysctl.panic_on_oops,
        pid=pid,
    )
    steps: tuple[Step, ...] = (*_taint(policy), oops)
    if fatal:
        steps = (*steps, Panic("oops", "synchronous external abort: Fatal exception", reboot_delay(facts)))
    reasons = (_IDLE,) if current is None and not fatal else ()
    return StageResult(steps, (fired,), reasons, assumptions)


def _unclaimed_in_guest(notification: Notification, admission: Admission, policy: Policy, facts: Facts) -> StageResult:
    """Handle an unclaimed abort from a guest. Mirrors `kvm_handle_guest_abort` and `kvm_handle_guest_sea`."""
    if stays_in_guest(notification, admission.fsc, facts):
        return StageResult((Log(_STAYS_IN_GUEST),), (rule(policy, "exceptions.guest", _STAYS_IN_GUEST, "vcpu_reset_hcr"),))
    if admission.fsc in FSC_WALK_LEVEL_MINUS_1 and not policy.behaviours.kvm_walk_level_minus_1_is_sea:
        words = _KVM_RUN_FAILS.format(admission.fsc)
        return StageResult((Log(words),), (rule(policy, "exceptions.guest", words, "kvm_handle_guest_abort", fsc=hex(admission.fsc)),))
    vm, owner = facts.vm_of_current(), _host_owns(notification, admission.fsc, facts)
    exits = policy.behaviours.kvm_sea_to_user and vm is not None and vm.sea_to_user and owner is None
    fired = rule(
        policy,
        "exceptions.guest",
        "unclaimed: KVM exits to the VMM (KVM_EXIT_ARM_SEA)" if exits else _injects(policy),
        "kvm_handle_guest_sea",
        "kvm_sea_to_user",
        "kvm_serror_emulated",
        sea_to_user=bool(vm and vm.sea_to_user),
        host_owned=owner or "no",
    )
    if exits:
        return _exit_to_vmm(notification, admission.fsc, fired, facts)
    iss = serror_iss(AsynchronousErrorType.UEU) if policy.behaviours.serror_ends_context else IDS
    step, assumptions = inject_serror(iss, policy, facts)
    return StageResult((step,), (fired,), (), assumptions)


def _injects(policy: Policy) -> str:
    at_once = ", taken at once if the guest has SErrors unmasked" if policy.behaviours.kvm_serror_emulated else ""
    return f"unclaimed: KVM injects a virtual SError{at_once}"


def _host_owns(notification: Notification, fsc: int, facts: Facts) -> str | None:
    """Return why the host keeps an abort from the VMM, or None. Parity errors on a walk are not checked. Mirrors `host_owns_sea`."""
    esr = notification.syndrome or 0
    if not facts.ras_extension:
        return "no RAS extension"
    if esr & VNCR and esr >> 26 & 0x3F in _DATA_ABORTS:
        return "a nested hypervisor's access through VNCR_EL2"
    return "on a stage 2 walk" if fsc in range(0x13, 0x18) and esr & S1PTW else None


def _exit_to_vmm(notification: Notification, fsc: int, fired: Rationale, facts: Facts) -> StageResult:
    """Return KVM_EXIT_ARM_SEA. KVM walks the guest's page tables for `gpa` only where FAR_EL2 is that of the access itself."""
    vm, (name, vcpu) = facts.vm_of_current(), _vcpu(facts)
    esr = notification.syndrome if notification.syndrome is not None else 0x92000010
    shown = esr & (_ESR_EXPORTED_TO_VMM | (SET if vm is not None and vm.guest.ras_extension else 0))
    gva = 0 if esr & FNV else notification.fault_address or 0
    step = ExitToVmm(name, vcpu, "KVM_EXIT_ARM_SEA", {"flags": 0, "esr": shown, "gva": gva, "gpa": 0})
    return StageResult((step,), (fired,), assumptions=(_ASSUMED_UNTRANSLATED,) if fsc == FSC_SEA and gva else ())


def _vcpu(facts: Facts) -> tuple[str | None, int | None]:
    vm, current = facts.vm_of_current(), facts.host.current
    if vm is None or current is None:
        return None, None
    return vm.id, next((vcpu.index for vcpu in vm.vcpus if vcpu.tid == current.tid), None)


def inject_serror(iss: int, policy: Policy, facts: Facts) -> tuple[InjectSerror, tuple[Assumption, ...]]:
    """Return the step that makes a virtual SError pending for the vCPU that was running, and its assumptions.

    A guest that does not see the RAS extension gets an IMPLEMENTATION DEFINED syndrome.
    """
    vm, (_, vcpu) = facts.vm_of_current(), _vcpu(facts)
    if vm is not None and not vm.guest.ras_extension:
        iss = IDS
    assumptions = assumed_of_serror(policy, facts, vm)
    step = injection_step(vm, vcpu, iss, policy, host_ras=facts.ras_extension)
    return step, assumptions if vm is not None else (*assumptions, ASSUMED_VMS)


# Aborts whose record was handled


@frozen
class AbortFallback:
    """The outcome of an abort after its record's sections."""

    kills: bool
    """Whether a forced SIGBUS is pending for the interrupted thread."""
    stage_result: StageResult


def abort_fallback(
    block: StatusBlock, rank: GhesSeverity, walk: SectionWalk, taken_from: str, policy: Policy, facts: Facts
) -> AbortFallback:
    """Run the synchronous fallback for a record that queued nothing. Mirrors the end of `ghes_do_proc`."""
    does = policy.behaviours
    if taken_from == "kernel":
        corrected = does.corrected_never_signals and not _is_uncorrected(block, rank)
        return AbortFallback(kills=False, stage_result=EMPTY_RESULT if corrected else handle_abort_in_kernel(policy, facts))
    if walk.queued or not does.sea_kills_when_nothing_queued:
        return AbortFallback(kills=False, stage_result=_resumes(policy) if not walk.queued else EMPTY_RESULT)
    if does.corrected_never_signals:
        if not _is_uncorrected(block, rank) or walk.queued_frames:
            return AbortFallback(kills=False, stage_result=_resumes(policy))
        if taken_from == "guest":
            step, assumptions = inject_serror(serror_iss(AsynchronousErrorType.UEU), policy, facts)
            fired = rule(
                policy,
                "exceptions.nothing_queued",
                "nothing queued: virtual SError (UEU) for the guest, whose context cannot continue",
                None,
            )
            return AbortFallback(kills=False, stage_result=StageResult((step,), (fired,), (), assumptions))
    return AbortFallback(kills=True, stage_result=_kills(policy, facts))


def _is_uncorrected(block: StatusBlock, rank: GhesSeverity) -> bool:
    """Return whether the record reports an uncorrected error; a corrected section is none, whatever the block severity."""
    if rank is not GhesSeverity.RECOVERABLE:
        return False
    return not block.entries or any(ghes_severity(entry.error_severity) is GhesSeverity.RECOVERABLE for entry in block.entries)


@lru_cache(maxsize=256)
def _resumes(policy: Policy) -> StageResult:
    fired = rule(
        policy, "exceptions.nothing_queued", "no signal: the interrupted access is retried", "ghes_do_proc", "corrected_never_signals"
    )
    return StageResult((), (fired,))


def _kills(policy: Policy, facts: Facts) -> StageResult:
    outcome = "nothing queued: SIGBUS for the interrupted thread"
    fired = rule(policy, "exceptions.nothing_queued", outcome, "ghes_do_proc", "sea_kills_when_nothing_queued", queued=False)
    return StageResult((Log("synchronous unrecoverable error (SIGBUS)"), kill_current(facts)), (fired,), (), assumed_current(facts))


# SErrors

_Verdict = Literal["nothing", "ends_context", "panic", "forward"]


def handle_serror(notification: Notification, policy: Policy, facts: Facts) -> StageResult:
    """Handle an SError by its syndrome alone. Mirrors `do_serror` and `kvm_handle_guest_serror`."""
    syndrome = serror_syndrome(SERROR_ESR_BASE if notification.syndrome is None else notification.syndrome)
    guest = notification.taken_from == "guest"
    verdict, words = _judge_serror(policy, syndrome, ras_extension=facts.ras_extension, guest=guest)
    fired = rule(
        policy,
        "exceptions.serror",
        words,
        "kvm_handle_guest_serror" if guest else "do_serror",
        "serror_ends_context",
        ids=syndrome.ids,
        dfsc=hex(syndrome.dfsc),
        aet=syndrome.aet,
        ras_extension=facts.ras_extension,
        taken_from=notification.taken_from,
    )
    assumptions = (ASSUMED_RAS,) if facts.host.ras_extension is None else ()
    if notification.syndrome is None:
        assumptions = (_ASSUMED_UNCATEGORISED, *assumptions)
    stage_result = _serror_steps(verdict, notification, policy, facts)
    return StageResult(stage_result.steps, (fired,), (), (*assumptions, *stage_result.assumptions))


def _serror_steps(verdict: _Verdict, notification: Notification, policy: Policy, facts: Facts) -> StageResult:
    if verdict == "nothing":
        return EMPTY_RESULT
    if verdict == "forward" or (verdict == "ends_context" and notification.taken_from == "guest"):
        step, assumptions = inject_serror(IDS if verdict == "forward" else serror_iss(AsynchronousErrorType.UEU), policy, facts)
        return StageResult((step,), assumptions=assumptions)
    if verdict == "ends_context" and notification.taken_from == "user":
        return StageResult((kill_current(facts),), assumptions=() if facts.host.current else (ASSUMED_CURRENT,))
    assumed = () if facts.host.sysctl else (ASSUMED_SYSCTL,)
    return StageResult((*_taint(policy), Panic("serror", SERROR_PANIC, reboot_delay(facts))), assumptions=assumed)


@lru_cache(maxsize=1024)
def _judge_serror(policy: Policy, syndrome: SErrorSyndrome, *, ras_extension: bool, guest: bool) -> tuple[_Verdict, str]:
    """Return the verdict on an SError, and why. Mirrors `arm64_is_ras_serror` and `arm64_ras_serror_get_severity`."""
    by_principle = policy.behaviours.serror_ends_context
    if syndrome.ids or not ras_extension:
        forwards = guest and not by_principle
        return ("forward" if forwards else "panic"), "no architected syndrome: " + ("virtual SError for the guest" if forwards else "panic")
    if syndrome.dfsc != DFSC_ASYNCHRONOUS:
        return "panic", "uncategorised: panic"
    kind = syndrome.error_type
    if kind in (AsynchronousErrorType.CE, AsynchronousErrorType.UEO):
        return "nothing", f"{kind.name}: no action"
    if kind in (AsynchronousErrorType.UEU, AsynchronousErrorType.UER):
        if by_principle:
            return "ends_context", f"{kind.name}: the interrupted context ends (process or guest, else panic)"
        return ("forward", f"{kind.name}: virtual SError for the guest") if guest else ("panic", f"{kind.name}: panic")
    return "panic", "uncontainable or reserved error type: panic"
