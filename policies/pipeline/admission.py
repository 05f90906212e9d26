"""Stage 1: does the operating system listen to this notification at all, and in which context?"""

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

Exception_ = Literal["none", "abort", "serror"]

_REFUSED = {
    NotificationType.LOCAL: "a source that notifies by local interrupt is refused at probe",
    NotificationType.NMI: "a source that notifies by NMI is refused at probe: arm64 has no APEI NMI",
    NotificationType.CMCI: "notification type 5 is unknown to the driver and its source is refused at probe",
    NotificationType.MCE: "notification type 6 is unknown to the driver and its source is refused at probe",
    NotificationType.SEI: "notification type 9 is unknown to the driver and its source is refused at probe",
}

ASSUMED_ABORT = Assumption("notification.syndrome", "a synchronous external abort that is not on a table walk, with a valid FAR")
ASSUMED_NO_SERROR = Assumption("notification.syndrome", "no SError was taken")
_FAR_FOR_SERROR = DecisionWarning(
    "far_meaningless_for_serror", "`notification.fault_address` is ignored: FAR_ELx says nothing about an SError"
)
_NOT_EXTERNAL = DecisionWarning(
    "syndrome_not_external_abort", "the fault status code of `notification.syndrome` is no external abort: taken as code 0x10"
)
_OPTIONAL_SDEI = "the SDEI driver is an option of its own on this kernel: without it the source is refused"


@frozen
class Admission:
    """How the notification reaches the operating system."""

    listens: bool
    """Whether the source's record is looked at."""
    synchronous: bool
    """Whether the interrupted thread is the one that consumed the error (`is_hest_sync_notify`)."""
    exception: Exception_
    """The CPU exception that stands behind the notification."""
    fsc: int
    """Fault status code of an abort, as the kernel's table is asked."""
    early: bool
    """Whether the record is copied and released in an NMI-like context, before it is processed."""
    stage_result: StageResult


class NotificationContext(NamedTuple):
    """What admission depends on."""

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
    stays_in_guest: bool
    """Whether an abort that a guest met is taken to the guest itself."""
    ras_assumed: bool
    """Whether nobody said what an abort from a guest hangs on."""
    far_given: bool


def notification_context(notification: Notification, facts: Facts) -> NotificationContext:
    """The door that a notification came through."""
    kind, syndrome, config = notification.type, notification.syndrome, facts.config
    fsc, fits = FSC_SEA, True
    if syndrome is not None and kind is NotificationType.SEA:
        fits = abort_syndrome(syndrome).is_external
        fsc = syndrome & 0x3F if fits else FSC_SEA
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
        fits,
        stays_in_guest(notification, fsc, facts),
        kind is NotificationType.SEA and notification.taken_from == "guest" and facts.host.ras_extension is None,
        notification.fault_address is not None,
    )


def stays_in_guest(notification: Notification, fsc: int, facts: Facts) -> bool:
    """Without the RAS extension (HCR_EL2.TEA) only an abort on a stage 2 walk comes to the host. Mirrors `vcpu_reset_hcr`."""
    if facts.ras_extension or notification.taken_from != "guest" or notification.type is not NotificationType.SEA:
        return False
    return not (is_table_walk_fault(fsc) and bool((notification.syndrome or 0) & S1PTW))


def admit(door: NotificationContext, policy: Policy) -> Admission:
    """Mirrors `ghes_probe`, and `do_sea` up to `apei_claim_sea`."""
    refusal, mirrors = _refusal(policy, door)
    since = ("reads_every_notification",) if policy.behaviours.reads_every_notification else ()
    outcome = refusal or "the source's record is read"
    fired = rule(policy, "admit.notification", outcome, mirrors, *since, notification=door.kind.value, taken_from=door.taken_from)
    return Admission(
        listens=refusal is None,
        synchronous=door.kind is NotificationType.SEA,
        exception=_exception(policy, door),
        fsc=door.fsc,
        early=DELIVERY[door.kind] in (Delivery.SYNCHRONOUS, Delivery.NMI_LIKE),
        stage_result=StageResult(
            steps=(Reject(refusal),) if refusal else (),
            rationale=(fired,),
            reasons=_reasons(policy, door),
            assumptions=_assumptions(door),
            warnings=_warnings(door),
        ),
    )


def _refusal(policy: Policy, door: NotificationContext) -> tuple[str | None, str]:
    """Why the record is not looked at, if so, and the kernel function that refuses."""
    does = policy.behaviours
    if door.reserved < HEADER_LENGTH:
        return f"the source reserves fewer than {HEADER_LENGTH} bytes for a status block and is refused at probe", "ghes_probe"
    if door.kind is NotificationType.SEA and (unheard := _unheard_abort(policy, door)):
        return unheard
    if does.reads_every_notification:
        return None, "ghes_probe"
    if door.kind in _REFUSED:
        return _REFUSED[door.kind], "ghes_probe"
    if door.kind is NotificationType.SEA and not door.apei_sea:
        return "CONFIG_ACPI_APEI_SEA is off", "ghes_probe"
    if door.kind is NotificationType.SDEI and not door.sdei:
        return "the SDEI driver is off", "ghes_probe"
    if door.never_polled:
        return "a poll interval of 0 means that the source is never polled", "ghes_add_timer"
    return None, "ghes_probe"


def _unheard_abort(policy: Policy, door: NotificationContext) -> tuple[str, str] | None:
    """Why an abort's handler does not ask APEI, if so, and which handler that is."""
    does = policy.behaviours
    if door.taken_from == "kernel" and not does.abort_in_kernel_reads_record:
        return "an abort taken in the kernel never consults APEI: the record stays pending", "do_sea"
    if door.stays_in_guest:
        return "the abort is the guest's own: the host does not learn of it, and the record stays pending", "vcpu_reset_hcr"
    if door.fsc in FSC_WALK_LEVEL_MINUS_1 and not (does.reads_every_notification or _knows_level_minus_1(policy, door)):
        handler = "kvm_handle_guest_abort" if door.taken_from == "guest" else "do_bad"
        return "this fault status code has no handler that would consult APEI", handler
    return None


def _knows_level_minus_1(policy: Policy, door: NotificationContext) -> bool:
    """KVM and the host's fault table learnt of the codes in different releases."""
    does = policy.behaviours
    return does.kvm_walk_level_minus_1_is_sea if door.taken_from == "guest" else does.walk_level_minus_1_is_sea


def _exception(policy: Policy, door: NotificationContext) -> Exception_:
    if door.kind is NotificationType.SEA:
        return "abort"
    if door.kind is NotificationType.SEI and (door.syndrome_known or policy.behaviours.serror_ends_context):
        return "serror"
    return "none"


def _reasons(policy: Policy, door: NotificationContext) -> tuple[str, ...]:
    optional = door.kind is NotificationType.SDEI and not door.config_known and not policy.behaviours.sdei_always_built
    return (_OPTIONAL_SDEI,) if optional else ()


def _assumptions(door: NotificationContext) -> tuple[Assumption, ...]:
    found = []
    if door.kind in (NotificationType.SEA, NotificationType.SDEI) and not door.config_known:
        found.append(ASSUMED_CONFIG)
    if door.kind is NotificationType.SEA and not door.syndrome_known:
        found.append(ASSUMED_ABORT)
    if door.kind is NotificationType.SEI and not door.syndrome_known:
        found.append(ASSUMED_NO_SERROR)
    if door.ras_assumed:
        found.append(ASSUMED_RAS)
    return tuple(found)


def _warnings(door: NotificationContext) -> tuple[DecisionWarning, ...]:
    if door.kind is NotificationType.SEI and door.far_given:
        return (_FAR_FOR_SERROR,)
    return () if door.syndrome_fits else (_NOT_EXTERNAL,)
