"""Stage 1: admission of a notification, and the context that it is handled in."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ras_triage.models.decision import Assumption, DecisionWarning, Reject
from ras_triage.models.frozen import frozen
from ras_triage.models.notification import DELIVERY, Delivery, Notification, NotificationType
from ras_triage.models.records.status_block import HEADER_LENGTH
from ras_triage.models.syndrome import FSC_SEA, FSC_WALK_LEVEL_MINUS_1, S1PTW, abort_syndrome, is_table_walk_fault
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.facts import ASSUMED_CONFIG, ASSUMED_RAS, Facts
from ras_triage.policies.pipeline.stage_result import StageResult, rule

CpuException = Literal["none", "abort", "serror"]

_REJECTED_AT_PROBE = {
    NotificationType.LOCAL: "the driver rejects sources of this notification type at probe: local interrupt",
    NotificationType.NMI: "the driver rejects sources of this notification type at probe: arm64 has no APEI NMI",
    NotificationType.CMCI: "the driver rejects sources of this notification type at probe: type 5 (CMCI) is unknown to it",
    NotificationType.MCE: "the driver rejects sources of this notification type at probe: type 6 (MCE) is unknown to it",
    NotificationType.SEI: "the driver rejects sources of this notification type at probe: type 9 (SEI) is unknown to it",
}
_ADMITTED = {NotificationType.BERT: "the BERT driver reads the records of the previous boot once, while it boots"}

ASSUMED_ABORT = Assumption("notification.syndrome", "a synchronous external abort that is not on a table walk, with a valid FAR")
ASSUMED_NO_SERROR = Assumption("notification.syndrome", "no SError was taken")
_FAR_FOR_SERROR = DecisionWarning("far_meaningless_for_serror", "`notification.fault_address` ignored: FAR_ELx is not valid for an SError")
_NOT_EXTERNAL = DecisionWarning(
    "syndrome_not_external_abort", "the fault status code in `notification.syndrome` is not an external abort; code 0x10 assumed"
)
_OPTIONAL_SDEI = "CONFIG_ARM_SDE_INTERFACE is optional in this kernel: without it the driver rejects the source at probe"


@frozen
class Admission:
    """How the notification reaches the operating system."""

    reads_record: bool
    """Whether the driver reads the source's record."""
    synchronous: bool
    """Whether the interrupted thread consumed the error (`is_hest_sync_notify`)."""
    exception: CpuException
    """The CPU exception that delivered the notification."""
    fsc: int
    """Fault status code of an abort, the index into the kernel's `fault_info`."""
    released_early: bool
    """Whether the record is copied and acknowledged in an NMI-like context, before it is processed."""
    stage_result: StageResult


class NotificationContext(NamedTuple):
    """Inputs of admission."""

    kind: NotificationType
    fsc: int
    """Fault status code of an abort."""
    taken_from: str
    never_polled: bool
    reserved: int
    """Bytes that the source reserves for a status block."""
    acknowledges: bool
    """Whether the source wants its records acknowledged (GHESv2)."""
    apei_sea: bool
    sdei: bool
    config_known: bool
    syndrome_known: bool
    syndrome_fits: bool
    """Whether the syndrome, if any, is that of an external abort."""
    stays_in_guest: bool
    """Whether an abort from a guest is taken to the guest itself, not to the host."""
    ras_assumed: bool
    """Whether the RAS extension is assumed, on which the route of a guest's abort depends."""
    has_fault_address: bool


def notification_context(notification: Notification, facts: Facts) -> NotificationContext:
    """Return the inputs of admission for a notification."""
    kind, syndrome, config = notification.type, notification.syndrome, facts.config
    fsc, is_external = FSC_SEA, True
    if syndrome is not None and kind is NotificationType.SEA:
        is_external = abort_syndrome(syndrome).is_external
        fsc = syndrome & 0x3F if is_external else FSC_SEA
    # In the order of the fields: keywords here and in the two other hot tuples take 5% of the time of a decision.
    return NotificationContext(
        kind,
        fsc,
        notification.taken_from,
        notification.poll_interval_ms == 0 and kind is NotificationType.POLLED,
        notification.error_block_length,
        notification.ghes_version == 2,
        config.apei_sea,
        config.sdei,
        facts.host.config is not None,
        syndrome is not None,
        is_external,
        stays_in_guest(notification, fsc, facts),
        kind is NotificationType.SEA and notification.taken_from == "guest" and facts.host.ras_extension is None,
        notification.fault_address is not None,
    )


def stays_in_guest(notification: Notification, fsc: int, facts: Facts) -> bool:
    """Return whether an abort never reaches the host.

    Without the RAS extension (HCR_EL2.TEA) only an abort on a stage 2 walk is taken to EL2. Mirrors `vcpu_reset_hcr`.
    """
    if facts.ras_extension or notification.taken_from != "guest" or notification.type is not NotificationType.SEA:
        return False
    return not (is_table_walk_fault(fsc) and bool((notification.syndrome or 0) & S1PTW))


def admit(context: NotificationContext, policy: Policy) -> Admission:
    """Return whether and how the driver reads the record. Mirrors `ghes_probe`, `bert_init`, and `do_sea` up to `apei_claim_sea`."""
    rejection, mirrors = _rejection(policy, context)
    since = ("reads_every_notification",) if policy.behaviours.reads_every_notification else ()
    outcome = rejection or _ADMITTED.get(context.kind, "the driver reads the source's record")
    fired = rule(policy, "admit.notification", outcome, mirrors, *since, notification=context.kind.value, taken_from=context.taken_from)
    return Admission(
        reads_record=rejection is None,
        synchronous=context.kind is NotificationType.SEA,
        exception=_exception(policy, context),
        fsc=context.fsc,
        released_early=DELIVERY[context.kind] in (Delivery.SYNCHRONOUS, Delivery.NMI_LIKE),
        stage_result=StageResult(
            steps=(Reject(rejection),) if rejection else (),
            rationale=(fired,),
            reasons=_reasons(policy, context),
            assumptions=_assumptions(context),
            warnings=_warnings(context),
        ),
    )


def _rejection(policy: Policy, context: NotificationContext) -> tuple[str | None, str]:
    """Return why the driver does not read the record, or None, and the kernel function that decides it."""
    does = policy.behaviours
    if context.kind is NotificationType.BERT:
        return None, "bert_init"
    if context.reserved < HEADER_LENGTH:
        return (
            f"the driver rejects the source at probe: `error_block_length` is below {HEADER_LENGTH} bytes, the status block header",
            "ghes_probe",
        )
    if context.kind is NotificationType.SEA and (unclaimed := _rejected_abort(policy, context)):
        return unclaimed
    if does.reads_every_notification:
        return None, "ghes_probe"
    if context.kind in _REJECTED_AT_PROBE:
        return _REJECTED_AT_PROBE[context.kind], "ghes_probe"
    if context.kind is NotificationType.SEA and not context.apei_sea:
        return "the driver rejects the source at probe: CONFIG_ACPI_APEI_SEA is off", "ghes_probe"
    if context.kind is NotificationType.SDEI and not context.sdei:
        return "the driver rejects the source at probe: the SDEI driver is not built in", "ghes_probe"
    if context.never_polled:
        return "the source is never polled: its poll interval is 0", "ghes_add_timer"
    return None, "ghes_probe"


def _rejected_abort(policy: Policy, context: NotificationContext) -> tuple[str, str] | None:
    """Return why an abort's handler does not call APEI, and which handler that is; None where it does."""
    does = policy.behaviours
    if context.taken_from == "kernel" and not does.abort_in_kernel_reads_record:
        return "the abort was taken in the kernel, whose handler does not call APEI: the record stays pending", "do_sea"
    if context.stays_in_guest:
        return "the CPU takes the abort to the guest, not to the host: the record stays pending", "vcpu_reset_hcr"
    if context.fsc in FSC_WALK_LEVEL_MINUS_1 and not (does.reads_every_notification or _knows_level_minus_1(policy, context)):
        handler = "kvm_handle_guest_abort" if context.taken_from == "guest" else "do_bad"
        return "the handler of this fault status code does not call APEI: the record stays pending", handler
    return None


def _knows_level_minus_1(policy: Policy, context: NotificationContext) -> bool:
    """Return whether the handler knows level -1 codes: KVM and the host's `fault_info` got them in different releases."""
    does = policy.behaviours
    return does.kvm_walk_level_minus_1_is_sea if context.taken_from == "guest" else does.walk_level_minus_1_is_sea


def _exception(policy: Policy, context: NotificationContext) -> CpuException:
    if context.kind is NotificationType.SEA:
        return "abort"
    if context.kind is NotificationType.SEI and (context.syndrome_known or policy.behaviours.serror_ends_context):
        return "serror"
    return "none"


def _reasons(policy: Policy, context: NotificationContext) -> tuple[str, ...]:
    optional = context.kind is NotificationType.SDEI and not context.config_known and not policy.behaviours.sdei_always_built
    return (_OPTIONAL_SDEI,) if optional else ()


def _assumptions(context: NotificationContext) -> tuple[Assumption, ...]:
    found = []
    if context.kind in (NotificationType.SEA, NotificationType.SDEI) and not context.config_known:
        found.append(ASSUMED_CONFIG)
    if context.kind is NotificationType.SEA and not context.syndrome_known:
        found.append(ASSUMED_ABORT)
    if context.kind is NotificationType.SEI and not context.syndrome_known:
        found.append(ASSUMED_NO_SERROR)
    if context.ras_assumed:
        found.append(ASSUMED_RAS)
    return tuple(found)


def _warnings(context: NotificationContext) -> tuple[DecisionWarning, ...]:
    if context.kind is NotificationType.SEI and context.has_fault_address:
        return (_FAR_FOR_SERROR,)
    return () if context.syndrome_fits else (_NOT_EXTERNAL,)
