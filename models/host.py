"""Host facts: kernel, configuration, threads, pages and virtual machines.

All are optional: a missing fact has a documented default, and the decision lists it as an assumption.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ras_triage.models.memslots import SMALLEST_PAGE, InvalidMemslot, Memslots, require_aligned
from ras_triage.models.notification import resolve_name
from ras_triage.models.records.block_fields import EncodedBlock
from ras_triage.models.scalars import U32, FailFastTuple, Hex64, StrictBool, WireModel

MceKill = Literal["default", "early", "late"]
"""Memory corruption kill policy of a thread (prctl(2), PR_MCE_KILL)."""


class PageState(StrEnum):
    """Use of a physical page by the kernel at the time of error handling."""

    FREE = "free"
    FREE_PCP = "free_pcp"
    ANONYMOUS = "anonymous"
    SWAP_CACHE = "swap_cache"
    PAGE_CACHE = "page_cache"
    SHMEM = "shmem"
    HUGETLB = "hugetlb"
    HUGETLB_FREE = "hugetlb_free"
    THP = "thp"
    FILE_THP = "file_thp"
    KSM = "ksm"
    SLAB = "slab"
    PAGE_TABLE = "page_table"
    KERNEL = "kernel"
    RESERVED = "reserved"
    ZERO = "zero"
    HUGE_ZERO = "huge_zero"
    DAX = "dax"
    NO_STRUCT_PAGE = "no_struct_page"
    OFFLINE = "offline"
    GUEST_MEMFD = "guest_memfd"
    UNKNOWN = "unknown"


MAPPED_STATES: Final = (
    PageState.ANONYMOUS,
    PageState.SWAP_CACHE,
    PageState.PAGE_CACHE,
    PageState.SHMEM,
    PageState.HUGETLB,
    PageState.THP,
    PageState.FILE_THP,
    PageState.KSM,
    PageState.DAX,
)
"""States of pages that processes may have mapped: dirty or clean."""


class Config(WireModel):
    """Kernel build options that affect decisions."""

    apei_sea: StrictBool = True
    """CONFIG_ACPI_APEI_SEA"""
    memory_failure: StrictBool = True
    """CONFIG_ACPI_APEI_MEMORY_FAILURE and CONFIG_MEMORY_FAILURE"""
    apei_pcie_aer: StrictBool = True
    """CONFIG_ACPI_APEI_PCIEAER"""
    sdei: StrictBool = True
    """CONFIG_ARM_SDE_INTERFACE, and firmware support for it"""


class Sysctl(WireModel):
    """Kernel settings (sysctl), by their kernel names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    early_kill: Literal[0, 1] = Field(0, alias="vm.memory_failure_early_kill")
    """1: send SIGBUS to all processes that map the page at once, instead of at their next access."""
    recovery: Literal[0, 1] = Field(1, alias="vm.memory_failure_recovery")
    """0: panic instead of recovering."""
    enable_soft_offline: Literal[0, 1] = Field(1, alias="vm.enable_soft_offline")
    """0: never take a page out of use because of corrected errors."""
    panic_on_unrecoverable: Literal[0, 1] = Field(0, alias="vm.panic_on_unrecoverable_memory_failure")
    """1: panic if a page cannot be recovered."""
    panic_on_oops: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(0, alias="kernel.panic_on_oops")
    """Not 0: panic on an oops."""
    panic_timeout: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = Field(0, alias="kernel.panic")
    """Seconds until the kernel reboots after a panic; 0: never, negative: immediately."""


class ThreadRef(WireModel):
    """The thread that was running."""

    pid: U32
    """Process id."""
    tid: U32
    """Thread id."""


class Thread(WireModel):
    """A thread of a process."""

    tid: U32
    """Thread id."""
    mce_kill: MceKill = "default"
    """Memory corruption kill policy of the thread."""


class Task(WireModel):
    """A process. Without `threads` it has one thread, whose tid is its pid."""

    pid: U32
    """Process id."""
    name: str | None = None
    """Name of the process."""
    mce_kill: MceKill = "default"
    """Memory corruption kill policy of the process."""
    threads: FailFastTuple[Thread] = ()
    """Its threads; absent: one, whose tid is the pid."""


class Mapping(WireModel):
    """One mapping of a page."""

    pid: U32
    """Process that maps the page."""
    address: Hex64
    """User virtual address at which the page fact's `physical_address` is mapped."""


class Page(WireModel):
    """Facts about a page: the 2^shift bytes around `physical_address`, which have the same mappings."""

    physical_address: Hex64
    """Physical address within the page, bytes."""
    state: PageState = PageState.UNKNOWN
    """Use of the page by the kernel."""
    dirty: StrictBool | None = None
    """Whether the page is dirty; absent: unknown."""
    mlocked: StrictBool = False
    """Whether the page is locked in memory (PG_mlocked)."""
    pinned: StrictBool = False
    """Whether the page has references besides its mappings, so that it cannot be migrated."""
    poisoned: StrictBool = False
    """PG_hwpoison is already set; of a hugetlb page, the base page at `physical_address` failed."""
    shift: Annotated[int, Field(ge=12, le=48)] | None = None
    """log2 of the size in bytes; absent: one base page."""
    file_backed: StrictBool = False
    """Of a hugetlb page: whether it belongs to a file of hugetlbfs."""
    backing: Literal["tmpfs", "disk"] | None = None
    """Where the file of a `file_thp` page keeps its content; absent: `tmpfs`. The other states imply it."""
    unmap_fails: StrictBool = False
    """Whether the kernel fails to unmap the page."""
    split_fails: StrictBool = False
    """Whether the kernel fails to split the huge page."""
    mappings: FailFastTuple[Mapping] = ()
    """In the order of the kernel's reverse mapping."""


class Range(WireModel):
    """Physical memory that has a struct page."""

    start: Hex64
    """Physical address, bytes."""
    size: Hex64
    """Bytes."""


class RecentRecord(WireModel):
    """A status block that was handled recently, for the duplicate cache."""

    status_block: EncodedBlock
    """The status block as firmware wrote it."""
    age_ms: U32
    """Milliseconds before this event."""
    printed: StrictBool = True
    """Only a printed record is added to the cache. A record that is not printed counts as a duplicate of the one in the cache."""


class Vcpu(WireModel):
    """A vCPU and the thread that runs it."""

    index: U32
    """Number of the vCPU."""
    tid: U32
    """Thread that runs it."""


GuestSource = Annotated[Literal["sea", "gpio", "gsiv", "polled", "sci"], BeforeValidator(resolve_name)]
"""Notification type of a guest's error source, in any letter case."""

_MAX_SOURCES = 64


class Guest(WireModel):
    """Configuration of a guest."""

    ras_extension: StrictBool = True
    """FEAT_RAS as the guest sees it."""
    page_size: Literal[4096, 16384, 65536] = 4096
    """Bytes."""
    ghes: Annotated[FailFastTuple[GuestSource], Field(max_length=_MAX_SOURCES)] = ()
    """Error sources in the guest's HEST that the guest supports."""
    ack_pending: Annotated[FailFastTuple[GuestSource], Field(max_length=_MAX_SOURCES)] = ()
    """Error sources whose last record the guest has not acknowledged."""
    serror_masked: StrictBool | None = None
    """PSTATE.A of the vCPU that an SError is injected into; absent: false, as in a Linux guest that is running."""


MAX_VMM_NAME: Final = 64
"""Characters."""


class Vm(WireModel):
    """A virtual machine and the process that runs it."""

    id: str
    """Name of the virtual machine, as used in the plan."""
    pid: U32
    """Process that runs it."""
    vmm: Annotated[str, Field(min_length=1, max_length=MAX_VMM_NAME)] = "standard"
    """Name of a built-in or custom VMM; whether it is known, the decision tells."""
    vcpus: FailFastTuple[Vcpu] = ()
    """Its vCPUs."""
    memslots: Memslots = Memslots()
    """Its memory slots, as set with KVM_SET_USER_MEMORY_REGION."""
    guest: Guest = Guest.model_construct()
    """Configuration of the guest."""
    sea_to_user: StrictBool = False
    """KVM_CAP_ARM_SEA_TO_USER is enabled."""


class Host(WireModel):
    """Facts about the machine that the sender knows; defaults for absent ones are listed as assumptions in the decision."""

    kernel: Annotated[str, Field(max_length=128)] | None = None
    """Kernel release, as `uname -r` prints it."""
    page_size: Literal[4096, 16384, 65536] | None = None
    """Size of a base page, bytes."""
    ras_extension: StrictBool | None = None
    """FEAT_RAS on this CPU."""
    config: Config | None = None
    """Kernel build options."""
    sysctl: Sysctl | None = None
    """Kernel settings."""
    arm_error_types: Literal["legacy", "uefi-2.10", "uefi-2.11"] | None = None
    """Numbering of ARM processor error types in this firmware."""
    current: ThreadRef | None = None
    """The thread that was running; null for a kernel thread or the idle task."""
    tasks: FailFastTuple[Task] | None = None
    """Processes and their threads."""
    pages: FailFastTuple[Page] | None = None
    """Facts about pages that may be affected."""
    valid_ranges: FailFastTuple[Range] | None = None
    """Absent: every address has a struct page."""
    pci_devices: FailFastTuple[str] | None = None
    """Present PCI functions, `segment:bus:device.function`; absent: every device is present."""
    aer_devices: FailFastTuple[str] | None = None
    """PCI functions with an AER capability, as in `pci_devices`; absent: root ports and switch ports have one, other devices have none."""
    recent: FailFastTuple[RecentRecord] | None = None
    """Status blocks handled recently, for the kernel's duplicate cache."""
    vms: FailFastTuple[Vm] | None = None
    """Virtual machines."""

    @model_validator(mode="after")
    def _tasks_are_distinct(self) -> Host:
        if self.tasks is not None and len({task.pid for task in self.tasks}) != len(self.tasks):
            raise ValueError("two tasks have the same pid")
        return self

    @model_validator(mode="after")
    def _slots_are_whole_pages(self) -> Host:
        if self.vms and self.page_size is not None and self.page_size > SMALLEST_PAGE:
            for index, vm in enumerate(self.vms):
                try:
                    require_aligned(vm.memslots, self.page_size)
                except InvalidMemslot as error:
                    raise error.to_validation_error(vm.memslots, "vms", index, "memslots") from None
        return self
