"""Host facts: kernel, configuration, threads, pages and virtual machines.

All are optional: a missing fact has a documented default, and the decision lists it as an assumption.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from ras_triage.models.memslots import SMALLEST_PAGE, InvalidMemslot, Memslots, require_aligned
from ras_triage.models.notification import resolve_name
from ras_triage.models.scalars import U32, Base64, FailFastTuple, Hex64, StrictBool, WireModel

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
    recovery: Literal[0, 1] = Field(1, alias="vm.memory_failure_recovery")
    enable_soft_offline: Literal[0, 1] = Field(1, alias="vm.enable_soft_offline")
    panic_on_unrecoverable: Literal[0, 1] = Field(0, alias="vm.panic_on_unrecoverable_memory_failure")
    panic_on_oops: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(0, alias="kernel.panic_on_oops")
    panic_timeout: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = Field(0, alias="kernel.panic")
    """Seconds until the kernel reboots after a panic; 0: never, negative: immediately."""


class ThreadRef(WireModel):
    """The thread that was running."""

    pid: U32
    tid: U32


class Thread(WireModel):
    tid: U32
    mce_kill: MceKill = "default"


class Task(WireModel):
    """A process. Without `threads` it has one thread, whose tid is its pid."""

    pid: U32
    name: str | None = None
    mce_kill: MceKill = "default"
    threads: FailFastTuple[Thread] = ()


class Mapping(WireModel):
    """One mapping of a page."""

    pid: U32
    address: Hex64
    """User virtual address at which the page fact's `physical_address` is mapped."""


class Page(WireModel):
    """Facts about a page: the 2^shift bytes around `physical_address`, which have the same mappings."""

    physical_address: Hex64
    state: PageState = PageState.UNKNOWN
    dirty: StrictBool | None = None
    mlocked: StrictBool = False
    pinned: StrictBool = False
    poisoned: StrictBool = False
    """PG_hwpoison is already set; of a hugetlb page, the base page at `physical_address` failed."""
    shift: Annotated[int, Field(ge=12, le=48)] | None = None
    """log2 of the size in bytes; absent: one base page."""
    file_backed: StrictBool = False
    backing: Literal["tmpfs", "disk"] | None = None
    """Where the file of a `file_thp` page keeps its content; absent: `tmpfs`. The other states imply it."""
    unmap_fails: StrictBool = False
    split_fails: StrictBool = False
    mappings: FailFastTuple[Mapping] = ()
    """In the order of the kernel's reverse mapping."""


class Range(WireModel):
    """Physical memory that has a struct page."""

    start: Hex64
    size: Hex64


class RecentRecord(WireModel):
    """A status block that was handled recently, for the duplicate cache."""

    status_block: Base64
    age_ms: U32
    printed: StrictBool = True
    """Only a printed record is added to the cache. A record that is not printed counts as a duplicate of the one in the cache."""


class Vcpu(WireModel):
    index: U32
    tid: U32


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
    pid: U32
    vmm: Annotated[str, Field(min_length=1, max_length=MAX_VMM_NAME)] = "standard"
    """Name of a built-in or custom VMM; whether it is known, the decision tells."""
    vcpus: FailFastTuple[Vcpu] = ()
    memslots: Memslots = Memslots()
    guest: Guest = Guest()
    sea_to_user: StrictBool = False
    """KVM_CAP_ARM_SEA_TO_USER is enabled."""


class Host(WireModel):
    """Facts about the machine that the sender knows; defaults for absent ones are listed as assumptions in the decision."""

    kernel: Annotated[str, Field(max_length=128)] | None = None
    page_size: Literal[4096, 16384, 65536] | None = None
    ras_extension: StrictBool | None = None
    """FEAT_RAS on this CPU."""
    config: Config | None = None
    sysctl: Sysctl | None = None
    arm_error_types: Literal["legacy", "uefi-2.10", "uefi-2.11"] | None = None
    """Numbering of ARM processor error types in this firmware."""
    current: ThreadRef | None = None
    """The thread that was running; null for a kernel thread or the idle task."""
    tasks: FailFastTuple[Task] | None = None
    pages: FailFastTuple[Page] | None = None
    valid_ranges: FailFastTuple[Range] | None = None
    """Absent: every address has a struct page."""
    pci_devices: FailFastTuple[str] | None = None
    """Present PCI functions, `segment:bus:device.function`; absent: every device is present."""
    aer_devices: FailFastTuple[str] | None = None
    """PCI functions with an AER capability, as in `pci_devices`; absent: root ports and switch ports have one, other devices have none."""
    recent: FailFastTuple[RecentRecord] | None = None
    vms: FailFastTuple[Vm] | None = None

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
