"""The decision: what happens, in order, and why.

Plan steps are small immutable values. A step that user space can see has no field that could hold a raw syndrome.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from ras_triage.models.frozen import frozen
from ras_triage.models.scalars import Base64, Hex64


class Action(StrEnum):
    """How far the error had to go, mildest first."""

    HANDLED = "handled"
    SIGNAL = "signal"
    TRANSLATE = "translate"
    INJECT = "inject"
    PANIC = "panic"


Result = Literal["recovered", "delayed", "failed", "ignored"]


@frozen
class Log:
    """The kernel writes or traces something, and that is all."""

    what: str
    kind: Literal["log"] = "log"


@frozen
class Reject:
    """The record is not acted on: its source is never read, it is malformed, or there is none."""

    why: str
    kind: Literal["reject"] = "reject"


@frozen
class QueueMemoryFailure:
    """A page frame is handed to memory failure handling."""

    pfn: Hex64
    flags: tuple[Literal["action_required", "soft_offline"], ...]
    context: Literal["kworker", "task_work"]
    kind: Literal["queue_memory_failure"] = "queue_memory_failure"


@frozen
class MemoryFailure:
    """What memory_failure() makes of the page, in the kernel's own words."""

    pfn: Hex64
    page_type: str | None
    result: Result | None
    returns: int | None
    """0 or a negative errno; None where the call does not return."""
    kind: Literal["memory_failure"] = "memory_failure"


@frozen
class SoftOffline:
    """What soft_offline_page() makes of the page."""

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
    """Delivered even where the thread blocks or ignores it."""
    kind: Literal["signal"] = "signal"


@frozen
class Oops:
    """The kernel dies in the context of a thread."""

    pid: int | None
    cause: str
    kind: Literal["oops"] = "oops"


@frozen
class RecoverPcie:
    """A PCIe function is handed to AER recovery."""

    device: str
    """`segment:bus:device.function`"""
    severity: Literal["correctable", "nonfatal", "fatal"]
    recovers: bool
    """False where the kernel only prints."""
    kind: Literal["recover_pcie"] = "recover_pcie"


@frozen
class ReportCxl:
    """A CXL event goes to the CXL tracepoints."""

    event: str
    kind: Literal["report_cxl"] = "report_cxl"


@frozen
class Acknowledge:
    """The operating system releases the record to firmware (GHESv2 read acknowledge)."""

    when: Literal["before_processing", "after_processing"]
    kind: Literal["acknowledge"] = "acknowledge"


@frozen
class GuestRange:
    """Guest physical memory that a poisoned host range holds."""

    ipa: Hex64
    """Guest physical address, bytes."""
    length: int
    """Bytes."""
    slot: int
    as_id: int


@frozen
class Hole:
    """A part of a poisoned host range that is in no slot: the VMM's own memory."""

    hva: Hex64
    length: int
    """Bytes."""


@frozen
class Translate:
    """The VMM finds out which guest memory a signal speaks of."""

    vm: str
    hva: Hex64
    """The signal's address without its tag byte, bytes."""
    ranges: tuple[GuestRange, ...]
    """By address space, then by address; an alias adds one more."""
    holes: tuple[Hole, ...]
    primary: Hex64 | None
    """The guest physical address of `hva` in the first slot given that holds it, as QEMU finds it."""
    kind: Literal["translate"] = "translate"


@frozen
class RecordGuestError:
    """The VMM writes a record for one guest page into the guest's own error source."""

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
    """The VMM dies of the signal, and its guest with it."""

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
    """KVM_RUN returns to the VMM instead of deciding."""

    vm: str | None
    vcpu: int | None
    exit: Literal["KVM_EXIT_ARM_SEA"]
    fields: dict[str, Hex64]
    kind: Literal["exit_to_vmm"] = "exit_to_vmm"


@frozen
class Panic:
    """The machine goes down."""

    cause: Literal["ghes", "serror", "oops", "memory_failure"]
    message: str
    reboots_after_s: int | None
    """None: it stays down."""
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
    """One rule that fired: what it read, what it concluded, which kernel function it mirrors."""

    rule: str
    stage: str
    given: dict[str, Any]
    outcome: str
    mirrors: str | None
    """Kernel function."""
    since: str | None = None
    """Release from which the decided kernel's series behaves so; None where it always did."""


@frozen
class Assumption:
    """A fact nobody sent, and what was taken instead."""

    fact: str
    assumed: str


@frozen
class DecisionWarning:
    """Something in the event that deserves a look; it changes nothing."""

    code: str
    detail: str


@frozen
class PolicyRef:
    """The policy that decided."""

    name: str
    digest: str


@frozen
class Alternative:
    """What another reading of the event would have meant."""

    when: dict[str, Any]
    action: Action
    plan: tuple[Step, ...]


@frozen
class Decision:
    """The complete decision. Equal events under equal policies give equal decisions, to the byte."""

    event_key: str
    source: str | None
    policy: PolicyRef
    action: Action
    certainty: Literal["certain", "depends"]
    reasons: tuple[str, ...]
    """Why the outcome depends; empty where it is certain."""
    plan: tuple[Step, ...]
    next_access: tuple[Step, ...]
    """What a later read of the page does to the processes that map it."""
    rationale: tuple[Rationale, ...]
    assumptions: tuple[Assumption, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    warnings: tuple[DecisionWarning, ...] = ()
