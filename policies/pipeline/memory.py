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
from ras_triage.policies.pipeline.facts import ASSUMED_CURRENT, ASSUMED_SYSCTL, Facts
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
    """One process's mapping of the failing base page."""

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
    """One for each process that maps the page, in reverse-map order."""
    assumptions: tuple[Assumption, ...]

    def is_mapped_by(self, pid: int) -> bool:
        return any(mapping.pid == pid for mapping in self.mappings)


class EarlierPoison(NamedTuple):
    """A page that was already poisoned."""

    pfn: int
    """The poisoned base page."""
    is_reachable: bool
    """Whether a mapping still leads to the poison."""


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
    panics: bool = False


def handle_memory(items: list[QueuedFrame], notification: Notification, policy: Policy, facts: Facts) -> list[HandledFrame]:
    """Handle queued page frames in order, up to a panic.

    Those of the interrupted thread come first, the last queued first; then the kernel worker's, in order.
    """
    handled: list[HandledFrame] = []
    poisoned: dict[tuple[int, int], EarlierPoison] = {}
    for item in items if len(items) == 1 else _in_order(items, policy):
        frame = _frame(item, notification, facts)
        before = poisoned.get(_poison_key(frame)) or _poisoned_before(frame, facts)
        done = _handle(frame, policy, facts, before)
        handled.append(done)
        if done.panics:
            break
        if done.becomes_poisoned and len(items) > 1:
            reachable = done.outcome is not None and (done.outcome.leaves_poison_entry or done.outcome.stays_mapped)
            poisoned.setdefault(_poison_key(frame), EarlierPoison(frame.pfn, is_reachable=reachable))
    return handled


def _poisoned_before(frame: Frame, facts: Facts) -> EarlierPoison | None:
    """Return the poison that the page's fact reports."""
    return EarlierPoison(frame.page.physical_address >> facts.page_shift, is_reachable=True) if frame.page.poisoned else None


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
    return frame_of(item, page, facts, assumptions)


def frame_of(item: QueuedFrame, page: Page, facts: Facts, assumptions: tuple[Assumption, ...] = ()) -> Frame:
    """Return the frame of a page that has a fact."""
    pfn, mappings = item.address >> facts.page_shift, _mappings(page, item.address, facts.page_size)
    return Frame(item, pfn, page, page.shift or facts.page_shift, mappings, assumptions)


def poison_stays(frame: Frame, policy: Policy, facts: Facts) -> bool:
    """Return whether the next access through a mapping finds the poison, rather than a good page."""
    return page_states.page_outcome(policy, traits_of(frame, policy, facts))[0].leaves_poison_entry


def _mappings(page: Page, address: int, page_size: int) -> tuple[MappedAddress, ...]:
    """Return one mapping for each process. A second SIGBUS to the same process would find the first still pending."""
    distance = (address & -page_size) - (page.physical_address & -page_size)
    if len(page.mappings) == 1:
        only = page.mappings[0]
        return (MappedAddress(only.pid, (only.address & -page_size) + distance & _U64),)
    first: dict[int, MappedAddress] = {}
    for mapping in page.mappings:
        if mapping.pid not in first:
            first[mapping.pid] = MappedAddress(mapping.pid, (mapping.address & -page_size) + distance & _U64)
    return tuple(first.values())


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
    if frame.item.request is MemoryFailureRequest.SOFT_OFFLINE:
        return _soft_offline(frame, policy, facts, was_poisoned=before is not None)
    if not facts.sysctl.recovery:
        return _recovery_is_off(frame, policy, facts)
    if before is not None:
        return _handle_repeat(frame, policy, facts, before)
    return _first_time(frame, policy, facts)


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
        order > 0 and frame.pfn % (1 << order) != 0,
        order > 0 and frame.shift > facts.pmd_shift,
        page.mlocked,
        page.pinned,
        page.file_backed,
        page.unmap_fails,
        page.split_fails,
    )


def _recovery_is_off(frame: Frame, policy: Policy, facts: Facts) -> HandledFrame:
    panic = Panic("memory_failure", f"Memory failure on page {frame.pfn:x}", reboot_delay(facts))
    fired = rule(policy, "memory.recovery", "panic: vm.memory_failure_recovery is 0", "memory_failure")
    return HandledFrame(frame, None, StageResult((panic,), (fired,), (), frame.assumptions), panics=True)


def _soft_offline(frame: Frame, policy: Policy, facts: Facts, *, was_poisoned: bool) -> HandledFrame:
    page = frame.page
    stuck = page.pinned or (page.split_fails and frame.shift > facts.page_shift)
    enabled = bool(facts.sysctl.enable_soft_offline)
    done = page_states.soft_offline(policy, page.state, stuck=stuck, poisoned=was_poisoned, enabled=enabled)
    step = SoftOffline(frame.pfn, done.result, done.returns)
    stage_result = StageResult((step,), (done.rationale,), (), frame.assumptions)
    return HandledFrame(frame, None, stage_result, was_poisoned=was_poisoned, becomes_poisoned=done.returns == 0)


def _handle_repeat(frame: Frame, policy: Policy, facts: Facts, before: EarlierPoison) -> HandledFrame:
    """Handle a page that was already poisoned: the same base page, or another one of a hugetlb page."""
    current = facts.host.current
    maps = before.is_reachable and current is not None and frame.is_mapped_by(current.pid)
    huge, same = frame.page.state is PageState.HUGETLB, before.pfn == frame.pfn
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
