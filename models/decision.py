"""The decision model: plan steps in order, and their rationale.

Plan steps are immutable values. A step that is visible to user space has no field for a raw syndrome.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import Base64, Hex64


class Action(StrEnum):
    """The most severe consequence of the error, mildest first."""

    HANDLED = "handled"
    SIGNAL = "signal"
    TRANSLATE = "translate"
    INJECT = "inject"
    PANIC = "panic"


Result = Literal["recovered", "delayed", "failed", "ignored"]


@frozen
class Log:
    """The kernel only logs or traces something."""

    what: str
    """What the kernel prints or traces."""
    kind: Literal["log"] = "log"


@frozen
class Reject:
    """The record is not processed: its source is never read, it is malformed, or there is none."""

    why: str
    """Reason for which the record is not processed."""
    kind: Literal["reject"] = "reject"


@frozen
class QueueMemoryFailure:
    """A page frame is queued for `memory_failure()`."""

    pfn: Hex64
    """Page frame number."""
    flags: tuple[Literal["action_required", "soft_offline"], ...]
    """`MF_ACTION_REQUIRED` and `MF_SOFT_OFFLINE` of the call."""
    context: Literal["kworker", "task_work"]
    """Where the kernel runs the queued work: in a kernel worker, or as task work of the interrupted thread before it returns to user
    space."""
    kind: Literal["queue_memory_failure"] = "queue_memory_failure"


@frozen
class MemoryFailure:
    """The result of `memory_failure()` for a page, in the kernel's terms."""

    pfn: Hex64
    """Page frame number."""
    page_type: str | None
    """Type of the page in the kernel's words, such as `dirty LRU page`; null: the kernel prints none."""
    result: Result | None
    """Result that the kernel prints (`action_result()`); null: it prints none."""
    returns: int | None
    """0 or a negative errno; null: the call does not return."""
    kind: Literal["memory_failure"] = "memory_failure"


@frozen
class SoftOffline:
    """The result of `soft_offline_page()` for a page."""

    pfn: Hex64
    """Page frame number."""
    result: Literal["recovered", "failed", "ignored"]
    """Whether the page was taken out of use."""
    returns: int
    """0 or a negative errno."""
    kind: Literal["soft_offline"] = "soft_offline"


@frozen
class Signal:
    """A signal to one thread."""

    pid: int | None
    """Process id; null: the event does not name the process."""
    tid: int | None
    """Thread id; null: the event does not name the thread."""
    signal: Literal["SIGBUS", "SIGKILL"]
    """Name of the signal."""
    code: Literal["BUS_MCEERR_AR", "BUS_MCEERR_AO", "BUS_OBJERR", "SI_KERNEL"]
    """`si_code` of the signal."""
    address: Hex64 | None
    """`si_addr`, a user virtual address in bytes; null: the signal has none."""
    lsb: int | None
    """log2 of the bytes lost (si_addr_lsb)."""
    forced: bool
    """Delivered even if the thread blocks or ignores it."""
    kind: Literal["signal"] = "signal"


@frozen
class Oops:
    """A kernel oops in the context of a thread."""

    pid: int | None
    """Process id of the thread; null: a kernel thread, or unknown."""
    cause: str
    """Message of the oops."""
    context: Literal["interrupted_thread", "kworker"] = "interrupted_thread"
    """Where the kernel fails: in the interrupted thread, or in a worker."""
    kind: Literal["oops"] = "oops"


@frozen
class RecoverPcie:
    """A PCIe function is queued for AER recovery."""

    device: str
    """`segment:bus:device.function`"""
    severity: Literal["correctable", "nonfatal", "fatal"]
    """AER severity of the error."""
    recovers: bool
    """Whether the kernel recovers the device; otherwise it only logs the error."""
    kind: Literal["recover_pcie"] = "recover_pcie"


@frozen
class ReportCxl:
    """A CXL event is reported to the CXL tracepoints."""

    event: str
    """Type of the event."""
    kind: Literal["report_cxl"] = "report_cxl"


@frozen
class Acknowledge:
    """The operating system acknowledges the record, so that firmware may reuse it (GHESv2 read acknowledge)."""

    when: Literal["before_processing", "after_processing"]
    """Whether the record is acknowledged before or after its sections are processed."""
    kind: Literal["acknowledge"] = "acknowledge"


@frozen
class GuestRange:
    """Guest physical memory within a poisoned host range."""

    ipa: Hex64
    """Guest physical address, bytes."""
    length: int
    """Bytes."""
    slot: int
    """Number of the memory slot."""
    as_id: int
    """Address space of the slot (KVM_CAP_MULTI_ADDRESS_SPACE)."""


@frozen
class Hole:
    """A part of a poisoned host range that is in no memory slot: the VMM's own memory."""

    hva: Hex64
    """Host virtual address, bytes."""
    length: int
    """Bytes."""


@frozen
class Translate:
    """The VMM translates the address of a signal to guest physical addresses."""

    vm: str
    """`id` of the virtual machine."""
    hva: Hex64
    """The signal's address without its tag byte, bytes."""
    ranges: tuple[GuestRange, ...]
    """Ordered by address space, then by address; each alias has its own range."""
    holes: tuple[Hole, ...]
    """Parts of the poisoned range that are in no memory slot."""
    primary: Hex64 | None
    """The guest physical address of `hva` in the first slot that contains it, as QEMU looks it up."""
    kind: Literal["translate"] = "translate"


@frozen
class RecordGuestError:
    """The VMM writes a record for one guest page into the guest's error source."""

    vm: str
    """`id` of the virtual machine."""
    notification: Literal["sea", "gpio", "gsiv", "polled", "sci"]
    """Notification type of the guest's error source."""
    status_block: Base64
    """ACPI Generic Error Status Block, 172 bytes."""
    ipa: Hex64
    """Guest physical address in the record, bytes."""
    kind: Literal["record_guest_error"] = "record_guest_error"


@frozen
class InjectAbort:
    """A vCPU takes a synchronous external abort."""

    vm: str
    """`id` of the virtual machine."""
    vcpu: int | None
    """`index` of the vCPU; null: the event does not name it."""
    guest_esr: Hex64
    """ESR_EL1."""
    kind: Literal["inject_abort"] = "inject_abort"


@frozen
class VmmExits:
    """The signal terminates the VMM and its guest."""

    vm: str
    """`id` of the virtual machine."""
    why: str
    """Reason for which the VMM ends."""
    kind: Literal["vmm_exits"] = "vmm_exits"


@frozen
class InjectSerror:
    """A virtual SError is made pending for a guest's vCPU."""

    vm: str | None
    """`id` of the virtual machine; null: the event does not name it."""
    vcpu: int | None
    """`index` of the vCPU; null: the event does not name it."""
    has_esr: bool
    """Whether the SError has a syndrome (`serror_has_esr`)."""
    vsesr_el2: Hex64
    """VSESR_EL2, the syndrome of the virtual SError."""
    guest_esr: Hex64
    """ESR_EL1 as the guest reads it."""
    vcpu_events: Base64
    """struct kvm_vcpu_events, 64 bytes."""
    kind: Literal["inject_serror"] = "inject_serror"


@frozen
class ExitToVmm:
    """KVM_RUN returns to the VMM instead of handling the error in KVM."""

    vm: str | None
    """`id` of the virtual machine; null: the event does not name it."""
    vcpu: int | None
    """`index` of the vCPU; null: the event does not name it."""
    exit: Literal["KVM_EXIT_ARM_SEA"]
    """`exit_reason` of `struct kvm_run`."""
    fields: dict[str, Hex64]
    """Fields of the exit in `struct kvm_run`, by name."""
    kind: Literal["exit_to_vmm"] = "exit_to_vmm"


@frozen
class Panic:
    """A kernel panic of the host."""

    cause: Literal["ghes", "serror", "oops", "memory_failure"]
    """What panics."""
    message: str
    """Message of the panic."""
    reboots_after_s: int | None
    """Seconds; null: the machine does not reboot."""
    kind: Literal["panic"] = "panic"


Step = Annotated[
    Log
    | Reject
    | QueueMemoryFailure
    | MemoryFailure
    | SoftOffline
    | Signal
    | Oops
    | RecoverPcie
    | ReportCxl
    | Acknowledge
    | Translate
    | RecordGuestError
    | InjectAbort
    | InjectSerror
    | ExitToVmm
    | VmmExits
    | Panic,
    Field(discriminator="kind"),
]


@frozen
class Rationale:
    """One rule that applied: its inputs, its outcome, and the kernel function that it mirrors."""

    rule: str
    """Id of the rule, as `ghes.severity.block`."""
    stage: str
    """Stage of the decision that the rule belongs to."""
    given: dict[str, Any]
    """Inputs of the rule, by name."""
    outcome: str
    """What the rule concluded."""
    mirrors: str | None
    """Kernel function."""
    since: str | None = None
    """First release of the kernel's series with this behaviour; null: all releases have it."""


@frozen
class Assumption:
    """A fact missing from the event, and the default used instead."""

    fact: str
    """The missing fact, as a path in the event such as `host.pages`."""
    assumed: str
    """The value used instead."""


@frozen
class DecisionWarning:
    """A remark about the event; it does not change the decision."""

    code: str
    """Stable name of the warning."""
    detail: str
    """The remark, for a person."""


class Evidence(StrEnum):
    """How the value of a policy's behaviour flag is known for its kernel release."""

    RECORDED = "recorded"
    """The release was booted and shows it, or releases of the series before and after it do."""
    READ = "read"
    """A changelog, a stable review, a CVE record or a source says so."""
    INFERRED = "inferred"
    """By the dates of neighbouring series, or because nothing read says otherwise."""


@frozen
class PolicyRef:
    """The policy that made the decision."""

    name: str
    """Name of the policy, as `linux-6.12.107`."""
    digest: str
    """Content hash of the policy; equal digests decide alike."""


@frozen
class Alternative:
    """The decision for another interpretation of the event."""

    when: dict[str, Any]
    """The facts of this interpretation, by name."""
    action: Action
    """The action under it."""
    plan: tuple[Step, ...]
    """The plan under it."""


@frozen
class Decision:
    """The complete decision. Equal events under equal policies give identical decisions, byte for byte."""

    event_key: str
    """Content hash of the event; equal events have equal keys."""
    source: str | None
    """The event's `source`."""
    policy: PolicyRef
    """The policy that made the decision."""
    action: Action
    """How far the error has to go: the most severe consequence in the plan."""
    certainty: Literal["certain", "depends"]
    """`depends` if unknown facts decide between outcomes; see `reasons`."""
    reasons: tuple[str, ...]
    """Reasons why the outcome depends on unknown facts; empty if it is certain."""
    plan: tuple[Step, ...]
    """What happens, in order."""
    next_access: tuple[Step, ...]
    """Steps for the processes that map the page when they read it later."""
    rationale: tuple[Rationale, ...]
    """The rules that applied, in order."""
    assumptions: tuple[Assumption, ...] = ()
    """Facts that the event lacks, and the defaults used instead."""
    alternatives: tuple[Alternative, ...] = ()
    """Decisions for other interpretations of an ambiguous event."""
    warnings: tuple[DecisionWarning, ...] = ()
    """Remarks about the event."""


@frozen
class UnknownFact:
    """A fact that the event leaves open."""

    fact: str
    """Name of the fact, as in `when`."""
    readings: tuple[str, ...]
    """Every value that it can have."""


@frozen
class Condition:
    """Readings of the unknown facts that lead to the same action."""

    when: dict[str, tuple[str, ...]]
    """For each fact that matters: the values; facts that do not matter are left out."""
    action: Action
    """The action in all these readings."""
    readings: int
    """Number of points of the grid that the condition covers."""
    plan: tuple[Step, ...]
    """The plan for the first of these readings."""


@frozen
class InputChange:
    """A change of one input."""

    input: str
    """Name of an unknown fact, as in `when`, or JSON pointer into the event."""
    value: str
    """The other value."""


@frozen
class SmallestChange:
    """The fewest changes of inputs that lead to another action."""

    changes: tuple[InputChange, ...]
    """One change, or two where no single one is enough."""
    action: Action
    """The action after them."""
    plan: tuple[Step, ...]
    """The plan after them."""


@frozen
class WhatIf:
    """What an unknown fact or another input would change about a decision."""

    action: Action
    """The action that is decided with the assumed facts."""
    unknown: tuple[UnknownFact, ...]
    """Facts that the event leaves open; none: the event says everything."""
    readings: int
    """Size of the grid: the product of the readings."""
    conditions: tuple[Condition, ...]
    """Every point of the grid is in exactly one of them."""
    smallest_change: SmallestChange | None
    """Null: no single change leads to another action, and none of the pairs of changes that were tried."""
