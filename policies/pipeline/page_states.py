"""What memory failure handling does to a page in a given state: the table behind stage 5."""

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
    """What the outcome depends on."""

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


@dataclass(frozen=True, slots=True, eq=False)
class PageOutcome:
    """What memory_failure() came to for one page. Shared by all pages of the same traits, and compared by identity."""

    page_type: str | None
    """The kernel's own words; None where it reports nothing."""
    result: Result | None
    returns: int
    """0 or a negative errno."""
    kill: Kill = "none"
    """What the collected threads are sent."""
    late: bool = False
    """Whether the processes that map the page find a poison entry at their next access."""
    whole_folio: bool = False
    """Whether signals and later faults give the size of the folio or huge page rather than of a base page."""
    stays_mapped: bool = False
    """Whether the page is still mapped although it is poisoned."""
    needs_consumer: bool = False
    """Whether older kernels signal nobody unless a thread that maps the page is running."""
    kernel_owned: bool = False
    """Whether vm.panic_on_unrecoverable_memory_failure is about it."""
    poisons: bool = True
    """Whether the page counts as poisoned from now on."""
    notes: tuple[Log, ...] = ()
    reasons: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    """The behaviour flags that it took."""


@lru_cache(maxsize=2048)
def page_outcome(policy: Policy, traits: PageTraits) -> tuple[PageOutcome, Rationale]:
    """What a first poisoning does. Mirrors `memory_failure` and `identify_page_state`."""
    came_to = _STATES[traits.state](policy, traits)
    given = {name: value for name, value in traits._asdict().items() if value is not False}
    given["state"] = traits.state.value
    fired = rule(policy, "memory.page_state", _words(came_to), "memory_failure", *came_to.flags, **given)
    return came_to, fired


def _words(came_to: PageOutcome) -> str:
    return f"{came_to.page_type}: {came_to.result}" if came_to.page_type else "outside kernel control"


def _free(policy: Policy, _: PageTraits) -> PageOutcome:
    at_once = policy.behaviours.free_page_taken_at_once
    return PageOutcome("free buddy page", "recovered" if at_once else "delayed", 0, flags=("free_page_taken_at_once",))


def _free_pcp(policy: Policy, traits: PageTraits) -> PageOutcome:
    if policy.behaviours.pcp_drained:
        return replace(_free(policy, traits), flags=("pcp_drained",))
    return PageOutcome("high-order kernel page", "ignored", EBUSY, flags=("pcp_drained",))


def _unhandlable(policy: Policy, traits: PageTraits) -> PageOutcome:
    """Pages that no handler exists for: every kernel has other words for them."""
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
    return PageOutcome(_TRIED_IN_VAIN[traits.state], "failed", EBUSY, stays_mapped=True)


_KERNEL_OWNED: Final = frozenset({PageState.RESERVED, PageState.ZERO, PageState.SLAB, PageState.PAGE_TABLE})

_TRIED_IN_VAIN: Final = {
    PageState.RESERVED: "reserved kernel page",
    PageState.ZERO: "reserved kernel page",
    PageState.SLAB: "kernel slab page",
    PageState.PAGE_TABLE: "unknown page",
    PageState.KERNEL: "unknown page",
}


def _lru_type(traits: PageTraits) -> str:
    """Unmapping clears the mlocked flag before the page is classified, so that only an unmapped page can show it."""
    cleanness = "dirty" if traits.dirty else "clean"
    return f"{cleanness} mlocked LRU page" if traits.mlocked and not traits.mapped else f"{cleanness} LRU page"


def _user_page(traits: PageTraits, *, late: bool, kills: bool) -> PageOutcome:
    mapped = traits.mapped
    return PageOutcome(_lru_type(traits), "recovered", 0, "sigbus" if kills and mapped else "none", late and mapped)


def _unmap_failure(policy: Policy, traits: PageTraits) -> PageOutcome | None:
    """A page that could not be unmapped (`hwpoison_user_mappings`)."""
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
    done = _user_page(traits, late=True, kills=traits.dirty)
    if traits.pinned and not policy.behaviours.extra_references_tolerated:
        return replace(done, result="failed", returns=EBUSY)
    return replace(done, flags=("extra_references_tolerated",)) if traits.pinned else done


def _swap_cache(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    if not traits.dirty:
        return PageOutcome("clean swapcache page", "recovered", 0)
    return PageOutcome("dirty swapcache page", "delayed", 0, "sigbus" if traits.mapped else "none", traits.mapped)


def _page_cache(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    done = _user_page(traits, late=traits.dirty, kills=traits.dirty)
    return replace(done, notes=(_DATA_LOST,)) if traits.dirty else done


_DATA_LOST: Final = Log("the file's data is lost: fsync and write report EIO")


def _shmem(policy: Policy, traits: PageTraits) -> PageOutcome:
    if failed := _unmap_failure(policy, traits):
        return failed
    note = _KEPT if policy.behaviours.shmem_page_kept else _CUT_OUT
    return replace(_user_page(traits, late=True, kills=traits.dirty), notes=(note,), flags=("shmem_page_kept",))


_KEPT: Final = Log("the page stays in its file: later readers are told")
_CUT_OUT: Final = Log("the page is cut out of its file: later readers see zeroes")


def _hugetlb(policy: Policy, traits: PageTraits) -> PageOutcome:
    does = policy.behaviours
    if traits.gigantic and not does.gigantic_hugetlb_handled:
        return PageOutcome("non-pmd-sized huge page", "ignored", EBUSY, stays_mapped=True)
    if failed := _unmap_failure(policy, traits):
        return replace(failed, whole_folio=True)
    collected = not (does.hugetlb_tail_not_collected and traits.tail and not traits.file_backed)
    note = _KEPT if does.hugetlbfs_page_kept else _CUT_OUT
    return PageOutcome(
        "huge page",
        "recovered",
        0,
        "sigbus" if traits.dirty and traits.mapped and collected else "none",
        traits.mapped,
        whole_folio=True,
        notes=(note,) if traits.file_backed else (),
        flags=("gigantic_hugetlb_handled",) if traits.gigantic else ("hugetlbfs_page_kept",) if traits.file_backed else _TAIL,
    )


_TAIL: Final = ("hugetlb_tail_not_collected",)


def _hugetlb_free(policy: Policy, _: PageTraits) -> PageOutcome:
    at_once = policy.behaviours.free_huge_page_recovered
    return PageOutcome("free huge page", "recovered" if at_once else "delayed", 0, flags=("free_huge_page_recovered",))


def _split(policy: Policy, traits: PageTraits, then: Callable[[Policy, PageTraits], PageOutcome]) -> PageOutcome:
    """Split a huge page, then handle the base page; a reference from elsewhere keeps it from being split."""
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
    return replace(_split(policy, traits, _page_cache), flags=("file_thp_handled",))


def _ksm(policy: Policy, traits: PageTraits) -> PageOutcome:
    if not policy.behaviours.ksm_handled:
        return PageOutcome("unmapping failed page", "ignored", EBUSY, stays_mapped=True)
    failed = _unmap_failure(policy, traits)
    return failed or replace(_user_page(traits, late=True, kills=traits.dirty), flags=("ksm_handled",))


def _dax(_policy: Policy, traits: PageTraits) -> PageOutcome:
    return PageOutcome("dax page", "recovered", 0, "sigbus" if traits.mapped else "none", whole_folio=True, needs_consumer=True)


def _no_struct_page(_policy: Policy, traits: PageTraits) -> PageOutcome:
    """Only a driver that registered the range knows who maps it (`memory_failure_pfn`)."""
    if not traits.mapped:
        return PageOutcome("non struct page pfn", "ignored", EBUSY, poisons=False, flags=("pfn_left_to_memory_failure",))
    return PageOutcome("non struct page pfn", "recovered", 0, "sigbus", True, poisons=False, flags=("pfn_left_to_memory_failure",))


def _offline(_policy: Policy, _traits: PageTraits) -> PageOutcome:
    return PageOutcome(None, None, ENXIO, poisons=False)


def _guest_memfd(_policy: Policy, _traits: PageTraits) -> PageOutcome:
    reason = "guest_memfd and memory failure disagree about a return value: the page may be reported as recovered"
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
    """What soft_offline_page() came to."""

    result: Literal["recovered", "failed", "ignored"]
    returns: int
    """0 or a negative errno."""
    rationale: Rationale


@lru_cache(maxsize=1024)
def soft_offline(policy: Policy, state: PageState, stuck: bool, poisoned: bool, enabled: bool) -> SoftOfflineOutcome:
    """What soft offline does to a page; `stuck` says that it can be neither split nor migrated. Mirrors `soft_offline_page`."""
    result: Literal["recovered", "failed", "ignored"] = "failed"
    if state is PageState.NO_STRUCT_PAGE:
        returns, outcome = ENXIO, "no struct page"
    elif state in (PageState.OFFLINE, PageState.DAX):
        returns, outcome = EIO, "not online memory"
    elif policy.behaviours.soft_offline_sysctl and not enabled:
        result, returns, outcome = "ignored", EOPNOTSUPP, "disabled by vm.enable_soft_offline"
    elif poisoned:
        result, returns, outcome = "recovered", 0, "already poisoned"
    elif state in _KERNEL_OWNED and policy.behaviours.soft_offline_kernel_page_errno:
        returns, outcome = ENOTRECOVERABLE, "the kernel owns it"
    elif state in _CANNOT_MIGRATE:
        returns, outcome = EIO, "cannot be migrated"
    elif stuck:
        returns, outcome = EBUSY, "could not be split or migrated"
    else:
        result, returns, outcome = "recovered", 0, "its content was moved and the page frame taken away"
    fired = rule(
        policy,
        "memory.soft_offline",
        outcome,
        "soft_offline_page",
        "soft_offline_sysctl",
        "soft_offline_kernel_page_errno",
        state=state.value,
        poisoned=poisoned,
        enabled=enabled,
    )
    return SoftOfflineOutcome(result, returns, fired)


_CANNOT_MIGRATE: Final = _KERNEL_OWNED | {PageState.KERNEL, PageState.HUGE_ZERO, PageState.GUEST_MEMFD}
