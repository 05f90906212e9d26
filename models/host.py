"""Facts about the machine. All are optional: a missing one takes a documented default that the decision names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from ras_triage.models.memslots import SMALLEST_PAGE, InvalidMemslot, Memslots, refuse_unaligned
from ras_triage.models.scalars import U32, Base64, Flag, Hex64, Many, WireModel

MceKill = Literal["default", "early", "late"]
"""A thread's memory-corruption kill policy (prctl(2), PR_MCE_KILL)."""


class PageState(StrEnum):
    """What the kernel uses a physical page for when the error is handled."""

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
    """Kernel build options that decide something."""

    apei_sea: Flag = True
    """CONFIG_ACPI_APEI_SEA"""
    memory_failure: Flag = True
    """CONFIG_ACPI_APEI_MEMORY_FAILURE and CONFIG_MEMORY_FAILURE"""
    apei_pcie_aer: Flag = True
    """CONFIG_ACPI_APEI_PCIEAER"""
    sdei: Flag = True
    """CONFIG_ARM_SDE_INTERFACE, and firmware that offers it"""


class Sysctl(WireModel):
    """Kernel settings, under their own names."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)

    early_kill: Literal[0, 1] = Field(0, alias="vm.memory_failure_early_kill")
    recovery: Literal[0, 1] = Field(1, alias="vm.memory_failure_recovery")
    enable_soft_offline: Literal[0, 1] = Field(1, alias="vm.enable_soft_offline")
    panic_on_unrecoverable: Literal[0, 1] = Field(0, alias="vm.panic_on_unrecoverable_memory_failure")
    panic_on_oops: Annotated[int, Field(ge=0, lt=1 << 31)] = Field(0, alias="kernel.panic_on_oops")
    panic_timeout: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)] = Field(0, alias="kernel.panic")
    """Seconds until a panicked kernel reboots; 0 never, negative at once."""


class ThreadRef(WireModel):
    """The thread that was running."""

    pid: U32
    tid: U32


class Thread(WireModel):
    tid: U32
    mce_kill: MceKill = "default"


class Task(WireModel):
    """A process. Without `threads` it has one, whose tid is its pid."""

    pid: U32
    name: str | None = None
    mce_kill: MceKill = "default"
    threads: Many[Thread] = ()


class Mapping(WireModel):
    """One place where a page is mapped."""

    pid: U32
    address: Hex64
    """User virtual address at which the page fact's `physical_address` is mapped."""


class Page(WireModel):
    """One page fact: it covers the 2^shift bytes around `physical_address`, mapped alike."""

    physical_address: Hex64
    state: PageState = PageState.UNKNOWN
    dirty: Flag | None = None
    mlocked: Flag = False
    pinned: Flag = False
    poisoned: Flag = False
    """PG_hwpoison is already set."""
    shift: Annotated[int, Field(ge=12, le=48)] | None = None
    """log2 of the size in bytes; absent: one base page."""
    file_backed: Flag = False
    unmap_fails: Flag = False
    split_fails: Flag = False
    mappings: Many[Mapping] = ()
    """In the order of the kernel's reverse map."""


class Range(WireModel):
    """Physical memory that has a struct page."""

    start: Hex64
    size: Hex64


class RecentRecord(WireModel):
    """A status block that was handled shortly before, for the duplicate cache."""

    status_block: Base64
    age_ms: U32
    printed: Flag = True
    """Only a printed record enters the cache."""


class Vcpu(WireModel):
    index: U32
    tid: U32


GuestSource = Literal["sea", "gpio", "gsiv", "polled", "sci"]
"""How one of a guest's own error sources is notified."""

_MAX_SOURCES = 64


class Guest(WireModel):
    """What the guest was given."""

    ras_extension: Flag = True
    """FEAT_RAS as the guest sees it."""
    page_size: Literal[4096, 16384, 65536] = 4096
    """Bytes."""
    ghes: Annotated[Many[GuestSource], Field(max_length=_MAX_SOURCES)] = ()
    """The error sources in the guest's HEST that the guest listens to."""
    ack_pending: Annotated[Many[GuestSource], Field(max_length=_MAX_SOURCES)] = ()
    """Those whose last record the guest has not acknowledged."""


class Vm(WireModel):
    """A virtual machine and the process that runs it."""

    id: str
    pid: U32
    vmm: Literal["standard", "qemu", "kvmtool", "cloud_hypervisor", "firecracker", "crosvm"] = "standard"
    vcpus: Many[Vcpu] = ()
    memslots: Memslots = Memslots()
    guest: Guest = Guest()
    sea_to_user: Flag = False
    """KVM_CAP_ARM_SEA_TO_USER is enabled."""


class Host(WireModel):
    """The machine as far as the sender knows it; whatever is absent is assumed, and the decision says so."""

    kernel: Annotated[str, Field(max_length=128)] | None = None
    page_size: Literal[4096, 16384, 65536] | None = None
    ras_extension: Flag | None = None
    """FEAT_RAS on this CPU."""
    config: Config | None = None
    sysctl: Sysctl | None = None
    arm_error_types: Literal["legacy", "uefi-2.10", "uefi-2.11"] | None = None
    """How this firmware numbers ARM processor error types."""
    current: ThreadRef | None = None
    """The thread that was running; null for a kernel thread or idle."""
    tasks: Many[Task] | None = None
    pages: Many[Page] | None = None
    valid_ranges: Many[Range] | None = None
    """Absent: every address has a struct page."""
    pci_devices: Many[str] | None = None
    """Present PCI functions, `segment:bus:device.function`; absent: every device is present."""
    recent: Many[RecentRecord] | None = None
    vms: Many[Vm] | None = None

    @model_validator(mode="after")
    def _tasks_are_distinct(self) -> Host:
        pids = [task.pid for task in self.tasks or ()]
        if len(pids) != len(set(pids)):
            raise ValueError("two tasks have the same pid")
        return self

    @model_validator(mode="after")
    def _slots_are_whole_pages(self) -> Host:
        if self.vms and self.page_size is not None and self.page_size > SMALLEST_PAGE:
            for index, vm in enumerate(self.vms):
                try:
                    refuse_unaligned(vm.memslots, self.page_size)
                except InvalidMemslot as refused:
                    raise refused.at(vm.memslots, "vms", index, "memslots") from None
        return self
