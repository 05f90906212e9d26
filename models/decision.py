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
    kind: Literal["log"] = "log"


@frozen
class Reject:
    """The record is not processed: its source is never read, it is malformed, or there is none."""

    why: str
    kind: Literal["reject"] = "reject"


@frozen
class QueueMemoryFailure:
    """A page frame is queued for `memory_failure()`."""

    pfn: Hex64
    flags: tuple[Literal["action_required", "soft_offline"], ...]
    context: Literal["kworker", "task_work"]
    kind: Literal["queue_memory_failure"] = "queue_memory_failure"


@frozen
class MemoryFailure:
    """The result of `memory_failure()` for a page, in the kernel's terms."""

    pfn: Hex64
    page_type: str | None
    result: Result | None
    returns: int | None
    """0 or a negative errno; None if the call does not return."""
    kind: Literal["memory_failure"] = "memory_failure"


@frozen
class SoftOffline:
    """The result of `soft_offline_page()` for a page."""

    pfn: Hex64
    result: Literal["recovered", "failed", "ignored"]
    returns: int
    """0 or a negative errno."""
    kind: Literal["soft_offline"] = "soft_offline"


@frozen
class Signal:
    """A signal to one thread."""

    pid: int | None
    tid: int | None
    signal: Literal["SIGBUS", "SIGKILL"]
    code: Literal["BUS_MCEERR_AR", "BUS_MCEERR_AO", "BUS_OBJERR", "SI_KERNEL"]
    address: Hex64 | None
    lsb: int | None
    """log2 of the bytes lost (si_addr_lsb)."""
    forced: bool
    """Delivered even if the thread blocks or ignores it."""
    kind: Literal["signal"] = "signal"


@frozen
class Oops:
    """A kernel oops in the context of a thread."""

    pid: int | None
    cause: str
    context: Literal["interrupted_thread", "kworker"] = "interrupted_thread"
    kind: Literal["oops"] = "oops"


@frozen
class RecoverPcie:
    """A PCIe function is queued for AER recovery."""

    device: str
    """`segment:bus:device.function`"""
    severity: Literal["correctable", "nonfatal", "fatal"]
    recovers: bool
    """False if the kernel only logs the error."""
    kind: Literal["recover_pcie"] = "recover_pcie"


@frozen
class ReportCxl:
    """A CXL event is reported to the CXL tracepoints."""

    event: str
    kind: Literal["report_cxl"] = "report_cxl"


@frozen
class Acknowledge:
    """The operating system acknowledges the record, so that firmware may reuse it (GHESv2 read acknowledge)."""

    when: Literal["before_processing", "after_processing"]
    kind: Literal["acknowledge"] = "acknowledge"


@frozen
class GuestRange:
    """Guest physical memory within a poisoned host range."""

    ipa: Hex64
    """Guest physical address, bytes."""
    length: int
    """Bytes."""
    slot: int
    as_id: int


@frozen
class Hole:
    """A part of a poisoned host range that is in no memory slot: the VMM's own memory."""

    hva: Hex64
    length: int
    """Bytes."""


@frozen
class Translate:
    """The VMM translates the address of a signal to guest physical addresses."""

    vm: str
    hva: Hex64
    """The signal's address without its tag byte, bytes."""
    ranges: tuple[GuestRange, ...]
    """Ordered by address space, then by address; each alias has its own range."""
    holes: tuple[Hole, ...]
    primary: Hex64 | None
    """The guest physical address of `hva` in the first slot that contains it, as QEMU looks it up."""
    kind: Literal["translate"] = "translate"


@frozen
class RecordGuestError:
    """The VMM writes a record for one guest page into the guest's error source."""

    vm: str
    notification: Literal["sea", "gpio", "gsiv", "polled", "sci"]
    status_block: Base64
    """ACPI Generic Error Status Block, 172 bytes."""
    ipa: Hex64
    kind: Literal["record_guest_error"] = "record_guest_error"


@frozen
class InjectAbort:
    """A vCPU takes a synchronous external abort."""

    vm: str
    vcpu: int | None
    guest_esr: Hex64
    """ESR_EL1."""
    kind: Literal["inject_abort"] = "inject_abort"


@frozen
class VmmExits:
    """The signal terminates the VMM and its guest."""

    vm: str
    why: str
    kind: Literal["vmm_exits"] = "vmm_exits"


@frozen
class InjectSerror:
    """A virtual SError is made pending for a guest's vCPU."""

    vm: str | None
    vcpu: int | None
    has_esr: bool
    vsesr_el2: Hex64
    guest_esr: Hex64
    vcpu_events: Base64
    """struct kvm_vcpu_events, 64 bytes."""
    kind: Literal["inject_serror"] = "inject_serror"


@frozen
class ExitToVmm:
    """KVM_RUN returns to the VMM instead of handling the error in KVM."""

    vm: str | None
    vcpu: int | None
    exit: Literal["KVM_EXIT_ARM_SEA"]
    fields: dict[str, Hex64]
    kind: Literal["exit_to_vmm"] = "exit_to_vmm"


@frozen
class Panic:
    """A kernel panic of the host."""

    cause: Literal["ghes", "serror", "oops", "memory_failure"]
    message: str
    reboots_after_s: int | None
    """None: the machine does not reboot."""
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
    stage: str
    given: dict[str, Any]
    outcome: str
    mirrors: str | None
    """Kernel function."""
    since: str | None = None
    """First release of the kernel's series with this behaviour; None if all releases have it."""


@frozen
class Assumption:
    """A fact missing from the event, and the default used instead."""

    fact: str
    assumed: str


@frozen
class DecisionWarning:
    """A remark about the event; it does not change the decision."""

    code: str
    detail: str


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
    digest: str


@frozen
class Alternative:
    """The decision for another interpretation of the event."""

    when: dict[str, Any]
    action: Action
    plan: tuple[Step, ...]


@frozen
class Decision:
    """The complete decision. Equal events under equal policies give identical decisions, byte for byte."""

    event_key: str
    source: str | None
    policy: PolicyRef
    action: Action
    certainty: Literal["certain", "depends"]
    reasons: tuple[str, ...]
    """Reasons why the outcome depends on unknown facts; empty if it is certain."""
    plan: tuple[Step, ...]
    next_access: tuple[Step, ...]
    """Steps for the processes that map the page when they read it later."""
    rationale: tuple[Rationale, ...]
    assumptions: tuple[Assumption, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[DecisionWarning, ...] = ()
