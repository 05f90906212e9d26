"""Stage 5: memory failure handling of each queued page frame."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from ras_triage.models.decision import Assumption, MemoryFailure, Panic, Rationale, SoftOffline
from ras_triage.models.frozen import frozen
from ras_triage.models.host import Page, PageState
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.syndrome import abort_syndrome
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.pipeline import page_states
from ras_triage.policies.pipeline.facts import ASSUMED_BACKING, ASSUMED_CURRENT, ASSUMED_SYSCTL, Facts
from ras_triage.policies.pipeline.page_states import EFAULT, EHWPOISON, PageOutcome, PageTraits
from ras_triage.policies.pipeline.sections import MemoryFailureRequest, QueuedFrame
from ras_triage.policies.pipeline.severity import reboot_delay
from ras_triage.policies.pipeline.stage_result import StageResult, rule

ASSUMED_PAGE: Final = Assumption(
    "host.pages",
    "a dirty anonymous base page, mapped only by the thread that consumed the error, or by no known process where none did",
)
ASSUMED_DIRTY: Final = Assumption(
    "host.pages.dirty", "true where the page holds the only copy of its content, or its kernel maps it as dirty; false where a disk has one"
)

_ASSUMED_SPLIT: Final = Assumption(
    "host.pages.split_fails",
    "false, and the split reads no poisoned bytes: on this kernel it looks for zeroes in every base page, and an abort there "
    "ends the thread that handles the error while it holds the lock of memory_failure()",
)
_RACE_ON_POISON: Final = (
    "race between a kernel worker and the interrupted thread: the thread is signalled only if it handles the queued page itself"
)
_U64: Final = (1 << 64) - 1


class MappedAddress(NamedTuple):
    """One mapping of the failing base page."""

    pid: int | None
    """None: the process that consumed the error, where the event does not say which."""
    address: int | None
    """User virtual address of the base page, bytes; None: not known."""


@frozen
class Frame:
    """A page frame in memory failure handling, and what is known of it."""

    item: QueuedFrame
    pfn: int
    page: Page
    shift: int
    """log2 of the bytes that the page fact covers."""
    mappings: tuple[MappedAddress, ...]
    """In reverse-map order."""
    assumptions: tuple[Assumption, ...]

    def is_mapped_by(self, pid: int) -> bool:
        return any(mapping.pid == pid for mapping in self.mappings)


class EarlierPoison(NamedTuple):
    """A page that was already poisoned."""

    pfn: int
    """The poisoned base page."""
    is_reachable: bool
    """Whether page tables lead to the poison. Those of a file's huge page are empty after its split, until the next access."""


@frozen
class HandledFrame:
    """One page frame after memory failure handling."""

    frame: Frame
    outcome: PageOutcome | None
    """None for soft offline, and where memory failure handling panics at once."""
    stage_result: StageResult
    was_poisoned: bool = False
    """Whether the page was already poisoned."""
    becomes_poisoned: bool = False
    """Whether the page counts as poisoned from now on."""
    poisons_base_page: bool = False
    """Whether only the base page is poisoned, although the fact is about a hugetlb page, which has been or is dissolved."""
    panics: bool = False


def handle_memory(items: list[QueuedFrame], notification: Notification, policy: Policy, facts: Facts) -> list[HandledFrame]:
    """Handle queued page frames in order, up to a panic.

    Those of the interrupted thread come first, the last queued first; then the kernel worker's, in order.
    """
    handled: list[HandledFrame] = []
    poisoned: dict[tuple[int, int], EarlierPoison] = {}
    """By base page, and by what is poisoned together."""
    for item in items if len(items) == 1 else _in_order(items, policy):
        frame = _frame(item, notification, facts)
        before = poisoned.get((frame.pfn, 0)) or poisoned.get(_poison_key(frame)) or _poisoned_before(frame, facts)
        done = _handle(frame, policy, facts, before)
        handled.append(done)
        if done.panics:
            break
        if done.becomes_poisoned and len(items) > 1:
            reachable = done.outcome is not None and (done.outcome.has_poison_entry or done.outcome.stays_mapped)
            earlier = EarlierPoison(frame.pfn, is_reachable=reachable)
            poisoned.setdefault((frame.pfn, 0), earlier)
            poisoned.setdefault(_poison_key(frame), earlier)
    return handled


def _poisoned_before(frame: Frame, facts: Facts) -> EarlierPoison | None:
    """Return the poison that the page's fact reports: of this base page, if it is one of several that failed."""
    if not frame.page.poisoned:
        return None
    pfn = frame.pfn if frame.pfn in facts.poisoned_frames else frame.page.physical_address >> facts.page_shift
    return EarlierPoison(pfn, is_reachable=frame.page.state is not PageState.FILE_THP)


def _poison_key(frame: Frame) -> tuple[int, int]:
    """Return a key for what is poisoned together: a whole hugetlb page, or one base page."""
    return (frame.item.address >> frame.shift, frame.shift) if frame.page.state is PageState.HUGETLB else (frame.pfn, 0)


def _in_order(items: list[QueuedFrame], policy: Policy) -> list[QueuedFrame]:
    """Return page frames in the order in which they are handled: task work runs last in, first out (`task_work_run`)."""
    if not policy.behaviours.action_required_in_task_work:
        return items
    own = [item for item in items if item.request is MemoryFailureRequest.ACTION_REQUIRED]
    return [*reversed(own), *(item for item in items if item.request is not MemoryFailureRequest.ACTION_REQUIRED)]


def _frame(item: QueuedFrame, notification: Notification, facts: Facts) -> Frame:
    """Return the frame of a physical address, with its page fact or the assumed one."""
    page, assumptions = item.page, () if facts.host.sysctl is not None else (ASSUMED_SYSCTL,)
    pfn = item.address >> facts.page_shift
    if page is None and not facts.has_struct_page(item.address, None):
        nowhere = Page(physical_address=item.address, state=PageState.NO_STRUCT_PAGE)
        return Frame(item, pfn, nowhere, facts.page_shift, (), assumptions)
    if page is None or (page.state is PageState.UNKNOWN and not page.mappings):
        mappings = _mapping_of_consumer(item, notification, facts)
        assumed = (ASSUMED_PAGE, ASSUMED_CURRENT) if mappings and facts.host.current is None else (ASSUMED_PAGE,)
        assumed_page = facts.default_page
        if page is not None and page.poisoned:
            assumed_page = assumed_page.model_copy(update={"physical_address": page.physical_address, "poisoned": True})
        return Frame(item, pfn, assumed_page, facts.page_shift, mappings, (*assumptions, *assumed))
    if page.dirty is None and page.mappings:
        assumptions = (*assumptions, ASSUMED_DIRTY)
    if page.backing is None and page.state is PageState.FILE_THP:
        assumptions = (*assumptions, ASSUMED_BACKING)
    return frame_of(item, page, facts, assumptions)


def frame_of(item: QueuedFrame, page: Page, facts: Facts, assumptions: tuple[Assumption, ...] = ()) -> Frame:
    """Return the frame of a page that has a fact."""
    pfn, mappings = item.address >> facts.page_shift, _mappings(page, item.address, facts.page_size)
    return Frame(item, pfn, page, page.shift or facts.page_shift, mappings, assumptions)


def poison_stays(frame: Frame, policy: Policy, facts: Facts) -> bool:
    """Return whether the next access through a mapping finds the poison, rather than a good page."""
    return page_states.page_outcome(policy, traits_of(frame, policy, facts))[0].leaves_poison_entry


def _mappings(page: Page, address: int, page_size: int) -> tuple[MappedAddress, ...]:
    """Return the mappings of the base page at `address`."""
    distance = (address & -page_size) - (page.physical_address & -page_size)
    return tuple([MappedAddress(mapping.pid, (mapping.address & -page_size) + distance & _U64) for mapping in page.mappings])


def _mapping_of_consumer(item: QueuedFrame, notification: Notification, facts: Facts) -> tuple[MappedAddress, ...]:
    """Return the interrupted thread's mapping: at the fault address, except for a guest, whose FAR holds a guest address."""
    has_consumer = notification.type is NotificationType.SEA and notification.taken_from != "kernel"
    if not has_consumer or item.request is MemoryFailureRequest.SOFT_OFFLINE:
        return ()
    far = notification.fault_address if notification.taken_from == "user" else None
    if notification.syndrome is not None and abort_syndrome(notification.syndrome).fnv:
        far = None
    return (MappedAddress(facts.consumer.pid, None if far is None else far & -facts.page_size),)


def _handle(frame: Frame, policy: Policy, facts: Facts, before: EarlierPoison | None) -> HandledFrame:
    dissolved = before is not None and _is_dissolved(frame, policy, facts)
    freed = dissolved and before is not None and before.pfn != frame.pfn
    if frame.item.request is MemoryFailureRequest.SOFT_OFFLINE:
        return _soft_offline(frame, policy, facts, was_poisoned=before is not None and not freed, dissolved=dissolved)
    if not facts.sysctl.recovery:
        return _recovery_is_off(frame, policy, facts)
    if freed:
        return _freed_base_page(frame, policy)
    if before is not None:
        return _handle_repeat(frame, policy, facts, before, dissolved=dissolved)
    return _first_time(frame, policy, facts)


def _is_dissolved(frame: Frame, policy: Policy, facts: Facts) -> bool:
    """Return whether the first error of a hugetlb page dissolved it."""
    return frame.page.state is PageState.HUGETLB and page_states.page_outcome(policy, traits_of(frame, policy, facts))[0].dissolved


def _freed_base_page(frame: Frame, policy: Policy) -> HandledFrame:
    """Handle a base page that an earlier error in its hugetlb page has freed."""
    outcome, fired = page_states.dissolved_page_outcome(policy, mapped=bool(frame.mappings))
    step = MemoryFailure(frame.pfn, outcome.page_type, outcome.result, outcome.returns)
    return HandledFrame(
        frame, outcome, StageResult((step,), (fired,), (), frame.assumptions), becomes_poisoned=True, poisons_base_page=True
    )


def _first_time(frame: Frame, policy: Policy, facts: Facts) -> HandledFrame:
    outcome, fired = page_states.page_outcome(policy, traits_of(frame, policy, facts))
    panics = outcome.kernel_owned and policy.behaviours.panic_on_unrecoverable_sysctl and bool(facts.sysctl.panic_on_unrecoverable)
    step = MemoryFailure(frame.pfn, outcome.page_type, outcome.result, None if panics else outcome.returns)
    stage_result = StageResult(
        (step, *outcome.notes), (fired,), outcome.reasons, (*frame.assumptions, *_assumed_of_split(frame, policy)), ()
    )
    if panics:
        message = f"Memory failure: {frame.pfn:#x}: unrecoverable page"
        panic = rule(policy, "memory.panic", "panic", "panic_on_unrecoverable_mf", "panic_on_unrecoverable_sysctl")
        steps = (*stage_result.steps, Panic("memory_failure", message, reboot_delay(facts)))
        stage_result = stage_result._replace(steps=steps, rationale=(fired, panic))
    return HandledFrame(frame, outcome, stage_result, becomes_poisoned=outcome.becomes_poisoned, panics=panics)


def _assumed_of_split(frame: Frame, policy: Policy) -> tuple[Assumption, ...]:
    """Return the assumption behind the split of an anonymous huge page. Mirrors `try_to_map_unused_to_zeropage`."""
    splits = frame.page.state is PageState.THP and not frame.page.split_fails
    return (_ASSUMED_SPLIT,) if splits and policy.behaviours.thp_split_reads_subpages else ()


def traits_of(frame: Frame, policy: Policy, facts: Facts) -> PageTraits:
    """Return the traits that decide the outcome of poisoning a page."""
    page, order = frame.page, frame.shift - facts.page_shift
    # In the order of the fields: keywords here and in the two other hot tuples take 5% of the time of a decision.
    return PageTraits(
        page.state,
        facts.is_dirty(page, swapped_in=policy.behaviours.swapped_in_page_is_dirty),
        bool(frame.mappings),
        order > 0,
        order > 0 and _is_tail(frame, facts),
        order > 0 and frame.shift > facts.pmd_shift,
        page.mlocked,
        page.pinned,
        page.file_backed,
        page.unmap_fails,
        page.split_fails,
        page.backing == "disk",
    )


def _recovery_is_off(frame: Frame, policy: Policy, facts: Facts) -> HandledFrame:
    panic = Panic("memory_failure", f"Memory failure on page {frame.pfn:x}", reboot_delay(facts))
    fired = rule(policy, "memory.recovery", "panic: vm.memory_failure_recovery is 0", "memory_failure")
    return HandledFrame(frame, None, StageResult((panic,), (fired,), (), frame.assumptions), panics=True)


def _soft_offline(frame: Frame, policy: Policy, facts: Facts, *, was_poisoned: bool, dissolved: bool) -> HandledFrame:
    page = frame.page
    state = PageState.FREE if dissolved else page.state
    poisoned_tail = was_poisoned and state is PageState.HUGETLB and _is_tail(frame, facts)
    stuck = page.pinned or (page.split_fails and frame.shift > facts.page_shift)
    enabled = bool(facts.sysctl.enable_soft_offline)
    done = page_states.soft_offline(
        policy, state, stuck=stuck and not dissolved, poisoned=was_poisoned, poisoned_tail=poisoned_tail, enabled=enabled
    )
    step = SoftOffline(frame.pfn, done.result, done.returns)
    stage_result = StageResult((step,), (done.rationale,), (), frame.assumptions)
    return HandledFrame(
        frame, None, stage_result, was_poisoned=was_poisoned, becomes_poisoned=done.returns == 0, poisons_base_page=not was_poisoned
    )


def _is_tail(frame: Frame, facts: Facts) -> bool:
    """Return whether the frame is not the first base page of its huge page."""
    return frame.pfn % (1 << frame.shift - facts.page_shift) != 0


def _handle_repeat(frame: Frame, policy: Policy, facts: Facts, before: EarlierPoison, *, dissolved: bool) -> HandledFrame:
    """Handle a page that was already poisoned: the same base page, or another one of a hugetlb page.

    The poison entry of a dissolved hugetlb page has the frame of its first base page. Until `kill_accessing_names_base_page`,
    `check_hwpoisoned_entry` compared it with the failing one, and so never found another base page.
    """
    current = facts.host.current
    hidden = dissolved and _is_tail(frame, facts) and not policy.behaviours.kill_accessing_names_base_page
    maps = not hidden and before.is_reachable and current is not None and frame.is_mapped_by(current.pid)
    huge = frame.page.state is PageState.HUGETLB
    same = not huge or before.pfn == frame.pfn
    outcome, fired = _repeat_outcome(policy, frame.item.request, maps=maps, huge=huge, same=same)
    step = MemoryFailure(frame.pfn, outcome.page_type, outcome.result, outcome.returns)
    return HandledFrame(frame, outcome, StageResult((step,), (fired,), outcome.reasons, frame.assumptions), was_poisoned=True)


@lru_cache(maxsize=1024)
def _repeat_outcome(policy: Policy, request: MemoryFailureRequest, *, maps: bool, huge: bool, same: bool) -> tuple[PageOutcome, Rationale]:
    """Return the outcome for a page that was already poisoned.

    `maps`: the interrupted thread maps it; `same`: the same base page failed before. Mirrors `kill_accessing_process`.
    """
    does = policy.behaviours
    kills = False
    reasons: tuple[str, ...] = ()
    if not does.kill_accessing_process:
        returns, words = 0, "no action: the page is already poisoned"
    elif request is not MemoryFailureRequest.ACTION_REQUIRED:
        returns, words = EHWPOISON, "no action: the page is already poisoned and no thread consumed it"
    elif not does.action_required_in_task_work:
        returns, words = EFAULT, "no action: a kernel worker has no page tables to search"
        reasons = (_RACE_ON_POISON,) if maps else ()
    elif maps:
        returns, words, kills = EHWPOISON, "SIGBUS for the thread that consumed the page", True
    else:
        returns = 0 if does.kill_accessing_absent_is_fine else EFAULT
        words = "no signal: the thread that consumed the page no longer maps it"
    page_type = _repeat_page_type(policy, same=same)
    outcome = PageOutcome(
        page_type,
        None if page_type is None else "failed",
        returns,
        "sigbus" if kills else "none",
        whole_folio=huge,
        reasons=reasons,
    )
    fired = rule(
        policy,
        "memory.already_poisoned",
        words,
        "kill_accessing_process" if does.kill_accessing_process else "memory_failure",
        "kill_accessing_process",
        request=request.value,
        mapped_by_consumer=maps,
    )
    return outcome, fired


def _repeat_page_type(policy: Policy, *, same: bool) -> str | None:
    """Return the reported page type of a page that was already poisoned, or None where nothing is reported."""
    does = policy.behaviours
    if not does.already_poisoned_reported:
        return None
    if not same and does.second_hugetlb_error_is_huge_page:
        return "huge page"
    return "already poisoned page" if does.already_poisoned_page_type else "already poisoned"
