"""Host facts with their defaults, and the assumption that goes with each default."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping
from operator import itemgetter
from typing import Final, NamedTuple

from ras_triage.models.decision import Assumption
from ras_triage.models.host import Config, Host, Page, PageState, Sysctl, Task, Vm
from ras_triage.policies.catalog.vmms import NO_CUSTOM_VMMS, Vmm

PAGE_SIZE: Final = 4096

LINEAR_SEARCH_LIMIT: Final = 8
"""Up to this many facts of a kind, a linear search is faster than building an index."""

ASSUMED_PAGE_SIZE = Assumption("host.page_size", "4096 bytes")
ASSUMED_CONFIG = Assumption("host.config", "every option that error handling needs is built in")
ASSUMED_SYSCTL = Assumption("host.sysctl", "every sysctl has the kernel's default")
ASSUMED_RAS = Assumption("host.ras_extension", "the CPU has the RAS extension")
ASSUMED_VALID = Assumption("host.valid_ranges", "every physical address has a struct page")
ASSUMED_DEVICES = Assumption("host.pci_devices", "every PCI device named in a record is present")
ASSUMED_AER = Assumption("host.aer_devices", "root ports and switch ports have an AER capability, other devices have none")
ASSUMED_TASKS = Assumption("host.tasks", "tasks not listed have one thread and the default kill policy")
ASSUMED_CURRENT = Assumption("host.current", "a user thread with an unknown pid was running")
ASSUMED_BACKING = Assumption("host.pages.backing", "a file on tmpfs (shmem)")
ASSUMED_VMS = Assumption("host.vms", "a guest with an unknown name was running")

DEFAULT_PAGE: Final = Page(physical_address=0, state=PageState.ANONYMOUS, dirty=True)
"""Default for a page without a fact."""

_DEFAULT_CONFIG = Config.model_construct()
_DEFAULT_SYSCTL = Sysctl.model_construct()

_HAS_NO_OTHER_COPY = frozenset({PageState.ANONYMOUS, PageState.SHMEM, PageState.HUGETLB, PageState.THP, PageState.KSM, PageState.DAX})


class Consumer(NamedTuple):
    """The thread that an abort interrupted; None where the event does not say which."""

    pid: int | None
    tid: int | None


class Ranges:
    """Merged and sorted address ranges for binary search."""

    __slots__ = ("_ends", "_starts")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Merge `ranges`, each a first address and an exclusive end."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in sorted(ranges):
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, address: int) -> bool:
        index = bisect_right(self._starts, address) - 1
        return index >= 0 and address < self._ends[index]


def _lookup(names: tuple[str, ...]) -> Container[str]:
    """Return a container of the names: a set where a linear search would be slow."""
    return names if len(names) <= LINEAR_SEARCH_LIMIT else frozenset(names)


def find_early_kill_thread(task: Task | None, pid: int, early_kill: bool) -> int | None:
    """Return the first thread, leader first, that asked for action-optional signals. Mirrors `find_early_kill_thread`."""
    if task is None:
        return pid if early_kill else None
    if not task.threads:
        return pid if task.mce_kill == "early" or (early_kill and task.mce_kill == "default") else None
    threads = [(task.pid, task.mce_kill)] if not any(thread.tid == task.pid for thread in task.threads) else []
    threads += [(thread.tid, thread.mce_kill) for thread in task.threads]
    return next((tid for tid, mce_kill in threads if mce_kill == "early" or (mce_kill == "default" and early_kill)), None)


class Facts:
    """Look-ups in one host's facts. Indexes are built on first use, because most events need few of them."""

    __slots__ = (
        "_aer_devices",
        "_by_shift",
        "_devices",
        "_early_kill_threads",
        "_poisoned_frames",
        "_tasks",
        "_valid",
        "_vcpu_threads",
        "_vms",
        "arm_numbering",
        "config",
        "custom_vmms",
        "default_page",
        "early_kill",
        "host",
        "page_shift",
        "page_size",
        "sysctl",
    )

    _tasks: dict[int, Task] | None
    _vms: dict[int, Vm] | None
    _vcpu_threads: dict[int, int] | None
    _by_shift: dict[int, dict[int, tuple[int, Page]]] | None
    _valid: Ranges | None
    _devices: Container[str] | None
    _aer_devices: Container[str] | None
    _early_kill_threads: dict[int, int | None] | None
    _poisoned_frames: frozenset[int] | None

    def __init__(
        self,
        host: Host,
        default_page: Page = DEFAULT_PAGE,
        arm_numbering: str | None = None,
        custom_vmms: Mapping[str, Vmm] = NO_CUSTOM_VMMS,
    ) -> None:
        self.host = host
        self.custom_vmms = custom_vmms
        """VMMs that are not built in, by the name in host facts."""
        self.default_page = default_page
        """Stands in for a page without a fact; address and mappings come from the event."""
        self.arm_numbering = arm_numbering
        """Numbering of ARM error types that overrides the policy; None: the policy's."""
        self.config: Config = host.config or _DEFAULT_CONFIG
        self.sysctl: Sysctl = host.sysctl or _DEFAULT_SYSCTL
        self.page_size: int = host.page_size or PAGE_SIZE
        self.page_shift: int = self.page_size.bit_length() - 1
        self.early_kill = bool(self.sysctl.early_kill)
        self._tasks = self._vms = self._vcpu_threads = self._by_shift = self._valid = self._early_kill_threads = None
        self._devices = self._aer_devices = self._poisoned_frames = None

    @property
    def consumer(self) -> Consumer:
        """Return the interrupted thread of an abort from user space or a guest; its pid may be unknown."""
        current = self.host.current
        return Consumer(None, None) if current is None else Consumer(current.pid, current.tid)

    @property
    def ras_extension(self) -> bool:
        return self.host.ras_extension is not False

    @property
    def pmd_shift(self) -> int:
        """Return log2 of the bytes that one PMD maps: a table of 8-byte entries fills one page."""
        return 2 * self.page_shift - 3

    @property
    def pud_shift(self) -> int:
        """Return log2 of the bytes that one PUD maps."""
        return 3 * self.page_shift - 6

    @property
    def tasks(self) -> dict[int, Task]:
        if self._tasks is None:
            self._tasks = {task.pid: task for task in self.host.tasks or ()}
        return self._tasks

    def shift_of(self, page: Page) -> int:
        """Return log2 of the bytes that a page fact covers."""
        return page.shift or self.page_shift

    def page_at(self, address: int) -> Page | None:
        """Return the page fact that covers a physical address; the first in the event where several do."""
        pages = self.host.pages
        if not pages:
            return None
        if len(pages) > LINEAR_SEARCH_LIMIT:
            return self._look_up(pages, address)
        for page in pages:
            shift = page.shift or self.page_shift
            if page.physical_address >> shift == address >> shift:
                return page
        return None

    def _look_up(self, pages: tuple[Page, ...], address: int) -> Page | None:
        if self._by_shift is None:
            self._by_shift = {}
            for position, page in enumerate(pages):
                shift = self.shift_of(page)
                self._by_shift.setdefault(shift, {}).setdefault(page.physical_address >> shift, (position, page))
        found = [facts[address >> shift] for shift, facts in self._by_shift.items() if address >> shift in facts]
        return min(found, key=itemgetter(0))[1] if found else None

    @property
    def poisoned_frames(self) -> frozenset[int]:
        """Return the page frames of the base pages that were poisoned before."""
        if self._poisoned_frames is None:
            self._poisoned_frames = frozenset(page.physical_address >> self.page_shift for page in self.host.pages or () if page.poisoned)
        return self._poisoned_frames

    def has_struct_page(self, address: int, page: Page | None) -> bool:
        """Return whether a physical address has a struct page (`pfn_valid`); `page` is the fact that covers it."""
        if page is not None and page.state is PageState.NO_STRUCT_PAGE:
            return False
        ranges = self.host.valid_ranges
        if ranges is None:
            return True
        if len(ranges) <= LINEAR_SEARCH_LIMIT:
            return any([0 <= address - known.start < known.size for known in ranges])  # noqa: C419 - a list is quicker
        if self._valid is None:
            self._valid = Ranges((known.start, known.start + known.size) for known in ranges)
        return address in self._valid

    def has_device(self, device: str) -> bool:
        """Return whether a PCI function, `segment:bus:device.function`, is present."""
        if self.host.pci_devices is None:
            return True
        if self._devices is None:
            self._devices = _lookup(self.host.pci_devices)
        return device in self._devices

    def has_aer(self, device: str, *, is_port: bool) -> bool:
        """Return whether a PCI function has an AER capability, and with it the kernel's AER state (`pci_aer_init`)."""
        if self.host.aer_devices is None:
            return is_port
        if self._aer_devices is None:
            self._aer_devices = _lookup(self.host.aer_devices)
        return device in self._aer_devices

    def early_kill_thread(self, pid: int) -> int | None:
        """Return the thread of a process that asked for action-optional signals, leader first. Mirrors `find_early_kill_thread`."""
        task = self.tasks.get(pid)
        if task is None or len(task.threads) <= LINEAR_SEARCH_LIMIT:
            return find_early_kill_thread(task, pid, self.early_kill)
        if self._early_kill_threads is None:
            self._early_kill_threads = {}
        if pid not in self._early_kill_threads:
            self._early_kill_threads[pid] = find_early_kill_thread(task, pid, self.early_kill)
        return self._early_kill_threads[pid]

    def is_dirty(self, page: Page, *, swapped_in: bool) -> bool:
        """Return whether the page counts as dirty. Unknown: clean only where the state implies a copy on disk.

        `swapped_in`: the kernel maps a page that it reads back from swap as dirty.
        """
        if page.dirty is not None:
            return page.dirty
        if page.state is PageState.SWAP_CACHE:
            return swapped_in and bool(page.mappings)
        return page.state in _HAS_NO_OTHER_COPY or (page.state is PageState.FILE_THP and page.backing != "disk")

    def vm_of_current(self) -> Vm | None:
        """Return the virtual machine whose vCPU was running."""
        return None if self.host.current is None else self.vm_of(self.host.current.pid)

    def vm_of(self, pid: int | None) -> Vm | None:
        """Return the virtual machine of a process; the first in the event where several have the same pid."""
        if self._vms is None:
            self._vms = {vm.pid: vm for vm in reversed(self.host.vms or ())}
        return None if pid is None else self._vms.get(pid)

    def vcpu_thread(self, vm: Vm) -> int:
        """Return the vCPU thread of `vm` that accesses a poisoned page: the one that was running, else the first."""
        if self._vcpu_threads is None:
            self._vcpu_threads = {}
        found = self._vcpu_threads.get(vm.pid)
        if found is None:
            tids = [vcpu.tid for vcpu in vm.vcpus] or [vm.pid]
            current = self.host.current
            found = self._vcpu_threads[vm.pid] = current.tid if current is not None and current.tid in tids else tids[0]
        return found
