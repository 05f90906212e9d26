"""Table of memory failure outcomes by page state (stage 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from ras_triage.models.decision import Log, Rationale, Result
from ras_triage.models.host import PageState
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline.stage_result import rule

EBUSY: Final = -16
ENXIO: Final = -6
EIO: Final = -5
EFAULT: Final = -14
EOPNOTSUPP: Final = -95
ENOTRECOVERABLE: Final = -131
EHWPOISON: Final = -133

Kill = Literal["none", "sigbus", "sigkill"]


class PageTraits(NamedTuple):
    """Inputs of the outcome."""

    state: PageState
    dirty: bool
    mapped: bool
    huge: bool
    """Larger than a base page."""
    tail: bool
    """Not the first base page of a huge page."""
    gigantic: bool
    """Larger than what one PMD maps."""
    mlocked: bool
    pinned: bool
    file_backed: bool
    unmap_fails: bool
    split_fails: bool
    on_disk: bool
    """Whether a disk keeps the content of the file."""


@dataclass(frozen=True, slots=True, eq=False)
class PageOutcome:
    """The outcome of memory_failure() for one page. Pages with equal traits share it, and it is compared by identity."""

    page_type: str | None
    """As the kernel prints it; None where it prints nothing."""
    result: Result | None
    returns: int
    """0 or a negative errno."""
    kill: Kill = "none"
    """The signal to the collected threads."""
    leaves_poison_entry: bool = False
    """Whether the next access through a mapping finds the poison: a poison entry, or a poisoned page in its file."""
    whole_folio: bool = False
    """Whether signals and later faults report the size of the folio or huge page rather than of a base page."""
    stays_mapped: bool = False
    """Whether the page is still mapped although it is poisoned."""
    needs_consumer: bool = False
    """Whether older kernels send no signal unless a thread that maps the page is running."""
    kernel_owned: bool = False
    """Whether vm.panic_on_unrecoverable_memory_failure applies."""
    becomes_poisoned: bool = True
    """Whether the page counts as poisoned from now on."""
    dissolved: bool = False
    """Whether the hugetlb page becomes base pages, of which only the failing one is poisoned."""
    unmapped_by_split: bool = False
    """Whether splitting a file's huge page unmapped it, so that nobody is found who maps it."""
    notes: tuple[Log, ...] = ()
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """The behaviour flags that decided it."""

    @property
    def has_poison_entry(self) -> bool:
        """Return whether page tables have a poison entry; else the next access finds the page in its file."""
        return self.leaves_poison_entry and not self.unmapped_by_split


@lru_cache(maxsize=2048)
def page_outcome(policy: Policy, traits: PageTraits) -> tuple[PageOutcome, Rationale]:
    """Return the outcome of a first poisoning. Mirrors `memory_failure` and `identify_page_state`."""
    outcome = _STATES[traits.state](policy, traits)
    given = {name: value for name, value in traits._asdict().items() if value is not False}
    given["state"] = traits.state.value
    fired = rule(policy, "memory.page_state", _words(outcome), "memory_failure", *outcome.flags, **given)
    return outcome, fired


def _words(outcome: PageOutcome) -> str:
    return f"{outcome.page_type}: {outcome.result}" if outcome.page_type else "memory outside kernel control"


def _free(policy: Policy, _: PageTraits) -> PageOutcome:
    return _buddy(policy)


def _buddy(policy: Policy) -> PageOutcome:
    at_once = policy.behaviours.free_page_taken_at_once
    return PageOutcome("free buddy page", "recovered" if at_once else "delayed", 0, flags=("free_page_taken_at_once",))


def _free_pcp(policy: Policy, _: PageTraits) -> PageOutcome:
    if policy.behaviours.pcp_drained:
        return replace(_buddy(policy), flags=("pcp_drained",))
    return PageOutcome("high-order kernel page", "ignored", EBUSY, flags=("pcp_drained",))


def _unhandlable(policy: Policy, traits: PageTraits) -> PageOutcome:
    """Return the outcome for a page without a handler; the reported page type differs between kernels."""
    does = policy.behaviours
    if does.kernel_owned_type and traits.state in _KERNEL_OWNED:
        return PageOutcome("reserved kernel page", "ignored", EBUSY, kernel_owned=True, stays_mapped=True, flags=("kernel_owned_type",))
    if does.get_hwpoison_page_type:
        return PageOutcome("get hwpoison page", "ignored", EBUSY, stays_mapped=True, flags=("get_hwpoison_page_type",))
    if does.unhandlable_refused_early:
        return PageOutcome("unknown page", "ignored", EBUSY, stays_mapped=True, flags=("unhandlable_refused_early",))
    if does.unhandlable_not_pinned:
        return PageOutcome("high-order kernel page", "ignored", EBUSY, stays_mapped=True, flags=("unhandlable_not_pinned",))
    if traits.state is PageState.HUGE_ZERO or traits.huge:
        return PageOutcome("high-order kernel page", "ignored", EBUSY, stays_mapped=True)
    return PageOutcome(_WITHOUT_HANDLER[traits.state], "failed", EBUSY, stays_mapped=True)


_KERNEL_OWNED: Final = frozenset({PageState.RESERVED, PageState.ZERO, PageState.SLAB, PageState.PAGE_TABLE})

_WITHOUT_HANDLER: Final = {
    PageState.RESERVED: "reserved kernel page",
    PageState.ZERO: "reserved kernel page",
    PageState.SLAB: "kernel slab page",
    PageState.PAGE_TABLE: "unknown page",
    PageState.KERNEL: "unknown page",
}


def _lru_type(traits: PageTraits) -> str:
    """Return the reported type of an LRU page.

    Unmapping clears the mlocked flag before the page is classified, so only an unmapped page is reported as mlocked.
    """
    cleanness = "dirty" if traits.dirty else "clean"
    return f"{cleanness} mlocked LRU page" if traits.mlocked and not traits.mapped else f"{cleanness} LRU page"


def _user_page(traits: PageTraits, *, leaves_poison_entry: bool, kills: bool) -> PageOutcome:
    mapped = traits.mapped
    return PageOutcome(
        _lru_type(traits), "recovered", 0, "sigbus" if kills and mapped else "none", leaves_poison_entry=leaves_poison_entry and mapped
    )


def _unmap_failure(policy: Policy, traits: PageTraits) -> PageOutcome | None:
    """Return the outcome for a page that could not be unmapped, else None. Mirrors `hwpoison_user_mappings`."""
    if not (traits.unmap_fails and traits.mapped):
        return None
    does = policy.behaviours
    if does.unmap_failure_sends_sigbus:
        kill: Kill = "sigbus"
    else:
        kill = "sigkill" if traits.dirty or does.unmap_failure_kills_clean else "none"
    result: Result = "failed" if does.unmap_failure_sends_sigbus else "ignored"
    flags = ("unmap_failure_sends_sigbus", "unmap_failure_kills_clean")
    return PageOutcome("unmapping failed page", result, EBUSY, kill, stays_mapped=True, flags=flags)


def _anonymous(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    done = _user_page(traits, leaves_poison_entry=True, kills=traits.dirty)
    if traits.pinned and not policy.behaviours.extra_references_tolerated:
        return replace(done, result="failed", returns=EBUSY)
    return replace(done, flags=("extra_references_tolerated",)) if traits.pinned else done


def _swap_cache(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    if not traits.dirty:
        return PageOutcome("clean swapcache page", "recovered", 0)
    return PageOutcome("dirty swapcache page", "delayed", 0, "sigbus" if traits.mapped else "none", leaves_poison_entry=traits.mapped)


def _page_cache(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    done = _user_page(traits, leaves_poison_entry=traits.dirty, kills=traits.dirty)
    return replace(done, notes=(_DATA_LOST,)) if traits.dirty else done


_DATA_LOST: Final = Log("file data lost: fsync() and write() return EIO")


def _shmem(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    note = _IN_PAGE_CACHE if policy.behaviours.shmem_page_kept else _TRUNCATED
    return replace(_user_page(traits, leaves_poison_entry=True, kills=traits.dirty), notes=(note,), flags=("shmem_page_kept",))


_IN_PAGE_CACHE: Final = Log("the poisoned page stays in the page cache: later reads of the file fail")
_TRUNCATED: Final = Log("the page is removed from the page cache: later reads of the file return zeroes")


def _hugetlb(policy: Policy, traits: PageTraits) -> PageOutcome:
    does = policy.behaviours
    if traits.gigantic and not does.gigantic_hugetlb_handled:
        return PageOutcome("non-pmd-sized huge page", "ignored", EBUSY, stays_mapped=True)
    if failed := _unmap_failure(policy, traits):
        return replace(failed, whole_folio=True)
    collected = not (does.hugetlb_tail_not_collected and traits.tail and not traits.file_backed)
    note = _IN_PAGE_CACHE if does.hugetlbfs_page_kept else _TRUNCATED
    return PageOutcome(
        "huge page",
        "recovered",
        0,
        "sigbus" if traits.dirty and traits.mapped and collected else "none",
        leaves_poison_entry=traits.mapped,
        whole_folio=True,
        dissolved=not traits.file_backed,
        notes=(note,) if traits.file_backed else (),
        flags=("gigantic_hugetlb_handled",) if traits.gigantic else ("hugetlbfs_page_kept",) if traits.file_backed else _TAIL,
    )


@lru_cache(maxsize=256)
def dissolved_page_outcome(policy: Policy, *, mapped: bool) -> tuple[PageOutcome, Rationale]:
    """Return the outcome for another base page of a dissolved hugetlb page: it is free, and the mappings still lead to the poison.

    Mirrors `me_huge_page` and `free_raw_hwp_pages`.
    """
    outcome = replace(_buddy(policy), leaves_poison_entry=mapped)
    fired = rule(policy, "memory.page_state", _words(outcome), "memory_failure", *outcome.flags, state=PageState.FREE.value, dissolved=True)
    return outcome, fired


_TAIL: Final = ("hugetlb_tail_not_collected",)


def _hugetlb_free(policy: Policy, _: PageTraits) -> PageOutcome:
    at_once = policy.behaviours.free_huge_page_recovered
    return PageOutcome("free huge page", "recovered" if at_once else "delayed", 0, flags=("free_huge_page_recovered",))


def _split(policy: Policy, traits: PageTraits, then: Callable[[Policy, PageTraits], PageOutcome]) -> PageOutcome:
    """Split a huge page, then handle the base page. A page with further references cannot be split."""
    if not (traits.split_fails or traits.pinned):
        return then(policy, traits)
    if policy.behaviours.thp_split_failure_kills:
        kill: Kill = "sigbus" if traits.mapped else "none"
        flags = ("thp_split_failure_kills",)
        return PageOutcome("unsplit thp", "failed", EHWPOISON, kill, whole_folio=True, stays_mapped=True, flags=flags)
    return PageOutcome("unsplit thp", "ignored", EBUSY, stays_mapped=True)


def _thp(policy: Policy, traits: PageTraits) -> PageOutcome:
    return _split(policy, traits, _anonymous)


def _file_thp(policy: Policy, traits: PageTraits) -> PageOutcome:
    if not policy.behaviours.file_thp_handled:
        return PageOutcome("high-order kernel page", "ignored", EBUSY, stays_mapped=True)
    return replace(_split(policy, traits, _split_file_page), flags=("file_thp_handled",))


def _split_file_page(policy: Policy, traits: PageTraits) -> PageOutcome:
    """Return the outcome for a base page of a file's huge page.

    Unlike an anonymous one, it is unmapped by the split, and not mapped again: nobody is collected (`unmap_folio`, `remap_page`). A page
    that stays in its file is found there by the next access.
    """
    done = replace(_user_page(traits, leaves_poison_entry=False, kills=False), unmapped_by_split=traits.mapped)
    if traits.on_disk:
        return replace(done, notes=(_DATA_LOST,)) if traits.dirty else done
    kept = policy.behaviours.shmem_page_kept
    return replace(done, leaves_poison_entry=kept and traits.mapped, notes=(_IN_PAGE_CACHE if kept else _TRUNCATED,))


def _ksm(policy: Policy, traits: PageTraits) -> PageOutcome:
    if not policy.behaviours.ksm_handled:
        return PageOutcome("unmapping failed page", "ignored", EBUSY, stays_mapped=True)
    failed = _unmap_failure(policy, traits)
    return failed or replace(_user_page(traits, leaves_poison_entry=True, kills=traits.dirty), flags=("ksm_handled",))


def _dax(_policy: Policy, traits: PageTraits) -> PageOutcome:
    return PageOutcome("dax page", "recovered", 0, "sigbus" if traits.mapped else "none", whole_folio=True, needs_consumer=True)


def _no_struct_page(_policy: Policy, traits: PageTraits) -> PageOutcome:
    """Return the outcome for a pfn without a struct page: only a driver that registered the range knows its mappings.

    Mirrors `memory_failure_pfn`.
    """
    if not traits.mapped:
        return PageOutcome("non struct page pfn", "ignored", EBUSY, becomes_poisoned=False, flags=("pfn_left_to_memory_failure",))
    flags = ("pfn_left_to_memory_failure",)
    return PageOutcome("non struct page pfn", "recovered", 0, "sigbus", leaves_poison_entry=True, becomes_poisoned=False, flags=flags)


def _offline(_policy: Policy, _traits: PageTraits) -> PageOutcome:
    return PageOutcome(None, None, ENXIO, becomes_poisoned=False)


def _guest_memfd(_policy: Policy, _traits: PageTraits) -> PageOutcome:
    reason = "guest_memfd and memory_failure() disagree about a return value: the page may be reported as recovered"
    return PageOutcome("clean unevictable LRU page", "failed", EBUSY, reasons=(reason,))


_STATES: Final[dict[PageState, Callable[[Policy, PageTraits], PageOutcome]]] = {
    PageState.FREE: _free,
    PageState.FREE_PCP: _free_pcp,
    PageState.ANONYMOUS: _anonymous,
    PageState.SWAP_CACHE: _swap_cache,
    PageState.PAGE_CACHE: _page_cache,
    PageState.SHMEM: _shmem,
    PageState.HUGETLB: _hugetlb,
    PageState.HUGETLB_FREE: _hugetlb_free,
    PageState.THP: _thp,
    PageState.FILE_THP: _file_thp,
    PageState.KSM: _ksm,
    PageState.SLAB: _unhandlable,
    PageState.PAGE_TABLE: _unhandlable,
    PageState.KERNEL: _unhandlable,
    PageState.RESERVED: _unhandlable,
    PageState.ZERO: _unhandlable,
    PageState.HUGE_ZERO: _unhandlable,
    PageState.DAX: _dax,
    PageState.NO_STRUCT_PAGE: _no_struct_page,
    PageState.OFFLINE: _offline,
    PageState.GUEST_MEMFD: _guest_memfd,
    PageState.UNKNOWN: _anonymous,
}


class SoftOfflineOutcome(NamedTuple):
    """The outcome of soft_offline_page()."""

    result: Literal["recovered", "failed", "ignored"]
    returns: int
    """0 or a negative errno."""
    rationale: Rationale


@lru_cache(maxsize=1024)
def soft_offline(
    policy: Policy, state: PageState, *, stuck: bool, poisoned: bool, poisoned_tail: bool, enabled: bool
) -> SoftOfflineOutcome:
    """Return the outcome of soft offline. Mirrors `soft_offline_page`.

    `stuck`: the page can be neither split nor migrated; `poisoned_tail`: it is not the first base page of a poisoned hugetlb page, which
    alone has PG_hwpoison.
    """
    result: Literal["recovered", "failed", "ignored"] = "failed"
    if state is PageState.NO_STRUCT_PAGE:
        returns, outcome = ENXIO, "failed: no struct page"
    elif state in (PageState.OFFLINE, PageState.DAX):
        returns, outcome = EIO, "failed: not online memory"
    elif policy.behaviours.soft_offline_sysctl and not enabled:
        result, returns, outcome = "ignored", EOPNOTSUPP, "ignored: vm.enable_soft_offline is 0"
    elif poisoned_tail and policy.behaviours.poisoned_hugetlb_not_migratable:
        returns, outcome = EIO, "failed: a poisoned hugetlb page cannot be migrated"
    elif poisoned:
        result, returns, outcome = "recovered", 0, "recovered: already poisoned"
    elif state in _KERNEL_OWNED and policy.behaviours.soft_offline_kernel_page_errno:
        returns, outcome = ENOTRECOVERABLE, "failed: the kernel owns the page"
    elif state in _CANNOT_MIGRATE:
        returns, outcome = EIO, "failed: pages of this state cannot be migrated"
    elif stuck:
        returns, outcome = EBUSY, "failed: the page could not be split or migrated"
    else:
        result, returns, outcome = "recovered", 0, "recovered: content migrated, page frame taken offline"
    fired = rule(
        policy,
        "memory.soft_offline",
        outcome,
        "soft_offline_page",
        "soft_offline_sysctl",
        "soft_offline_kernel_page_errno",
        "poisoned_hugetlb_not_migratable" if poisoned_tail else "",
        state=state.value,
        poisoned=poisoned,
        enabled=enabled,
    )
    return SoftOfflineOutcome(result, returns, fired)


_CANNOT_MIGRATE: Final = _KERNEL_OWNED | {PageState.KERNEL, PageState.HUGE_ZERO, PageState.GUEST_MEMFD}
