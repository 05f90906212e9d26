"""Stage 5: what memory failure handling makes of each page frame that was queued."""

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
    "a dirty anonymous base page, mapped by the thread that consumed the error and by no other; with no such thread, by none that is known",
)
ASSUMED_DIRTY: Final = Assumption("host.pages.dirty", "true where nothing else holds the content, false where a disk does")

_RACE_ON_POISON: Final = "a kernel worker and the interrupted thread race for the queued page: only the thread itself could be signalled"
_U64: Final = (1 << 64) - 1


class MappedAddress(NamedTuple):
    """Where a process maps the failing base page."""

    pid: int | None
    """None: the process that consumed the error, where nobody told which it was."""
    address: int | None
    """User virtual address of the base page, bytes; None: not known."""


@frozen
class Frame:
    """A page frame that was handed to memory failure handling, with what is known about it."""

    item: QueuedFrame
    pfn: int
    page: Page
    shift: int
    """log2 of the bytes that the page fact covers."""
    places: tuple[MappedAddress, ...]
    """One for each process that maps the page, in reverse-map order."""
    assumptions: tuple[Assumption, ...]

    def is_mapped_by(self, pid: int) -> bool:
        return any(place.pid == pid for place in self.places)


class PoisonedBefore(NamedTuple):
    """A page that was poisoned before."""

    pfn: int
    """The base page that was."""
    is_met: bool
    """Whether the poison can still be met through a mapping."""


@frozen
class HandledFrame:
    """One page frame after memory failure handling."""

    frame: Frame
    outcome: PageOutcome | None
    """None for soft offline, and where handling it was the panic."""
    stage_result: StageResult
    again: bool = False
    """Whether the page was poisoned before."""
    poisons: bool = False
    """Whether the page counts as poisoned from now on."""
    panics: bool = False


def handle_memory(items: list[QueuedFrame], notification: Notification, policy: Policy, facts: Facts) -> list[HandledFrame]:
    """Handle page frames up to a panic: what the interrupted thread does itself, last queued first, then what a worker does in order."""
    handled: list[HandledFrame] = []
    poisoned: dict[tuple[int, int], PoisonedBefore] = {}
    for item in items if len(items) == 1 else _in_order(items, policy):
        frame = _frame(item, notification, facts)
        before = poisoned.get(_poison_key(frame)) or _poisoned_before(frame, facts)
        done = _handle(frame, policy, facts, before)
        handled.append(done)
        if done.panics:
            break
        if done.poisons and len(items) > 1:
            met = done.outcome is not None and (done.outcome.late or done.outcome.stays_mapped)
            poisoned.setdefault(_poison_key(frame), PoisonedBefore(frame.pfn, met))
    return handled


def _poisoned_before(frame: Frame, facts: Facts) -> PoisonedBefore | None:
    """What the page's fact says of its poison."""
    return PoisonedBefore(frame.page.physical_address >> facts.page_shift, True) if frame.page.poisoned else None


def _poison_key(frame: Frame) -> tuple[int, int]:
    """What is marked as poisoned together: a hugetlb page as a whole, any other base page by itself."""
    return (frame.item.address >> frame.shift, frame.shift) if frame.page.state is PageState.HUGETLB else (frame.pfn, 0)


def _in_order(items: list[QueuedFrame], policy: Policy) -> list[QueuedFrame]:
    """Task work runs last in, first out (`task_work_run`)."""
    if not policy.behaviours.action_required_in_task_work:
        return items
    own = [item for item in items if item.request is MemoryFailureRequest.ACTION_REQUIRED]
    return [*reversed(own), *(item for item in items if item.request is not MemoryFailureRequest.ACTION_REQUIRED)]


def _frame(item: QueuedFrame, notification: Notification, facts: Facts) -> Frame:
    """The page fact for a physical address, and where processes map the base page."""
    page, assumptions = item.page, () if facts.host.sysctl is not None else (ASSUMED_SYSCTL,)
    pfn = item.address >> facts.page_shift
    if page is None and not facts.has_struct_page(item.address, None):
        nowhere = Page(physical_address=item.address, state=PageState.NO_STRUCT_PAGE)
        return Frame(item, pfn, nowhere, facts.page_shift, (), assumptions)
    if page is None or (page.state is PageState.UNKNOWN and not page.mappings):
        places = _place_of_consumer(item, notification, facts)
        assumed = (ASSUMED_PAGE, ASSUMED_CURRENT) if places and facts.host.current is None else (ASSUMED_PAGE,)
        assumed_page = facts.default_page
        if page is not None and page.poisoned:
            assumed_page = assumed_page.model_copy(update={"physical_address": page.physical_address, "poisoned": True})
        return Frame(item, pfn, assumed_page, facts.page_shift, places, (*assumptions, *assumed))
    if page.dirty is None and page.mappings:
        assumptions = (*assumptions, ASSUMED_DIRTY)
    return frame_of(item, page, facts, assumptions)


def frame_of(item: QueuedFrame, page: Page, facts: Facts, assumptions: tuple[Assumption, ...] = ()) -> Frame:
    """The frame of a page that a fact describes."""
    pfn, places = item.address >> facts.page_shift, _places(page, item.address, facts.page_size)
    return Frame(item, pfn, page, page.shift or facts.page_shift, places, assumptions)


def poison_stays(frame: Frame, policy: Policy, facts: Facts) -> bool:
    """Whether a page that was poisoned is met again by those who map it, rather than replaced by a good one."""
    return page_states.page_outcome(policy, traits_of(frame, facts))[0].late


def _places(page: Page, address: int, page_size: int) -> tuple[MappedAddress, ...]:
    """A process that maps the page twice counts with the first place: its second signal would find the first still pending."""
    distance = (address & -page_size) - (page.physical_address & -page_size)
    if len(page.mappings) == 1:
        only = page.mappings[0]
        return (MappedAddress(only.pid, (only.address & -page_size) + distance & _U64),)
    first: dict[int, MappedAddress] = {}
    for mapping in page.mappings:
        if mapping.pid not in first:
            first[mapping.pid] = MappedAddress(mapping.pid, (mapping.address & -page_size) + distance & _U64)
    return tuple(first.values())


def _place_of_consumer(item: QueuedFrame, notification: Notification, facts: Facts) -> tuple[MappedAddress, ...]:
    """Where the interrupted thread maps the page: at the fault address, but for a guest, whose addresses are its own."""
    consumes = notification.type is NotificationType.SEA and notification.taken_from != "kernel"
    if not consumes or item.request is MemoryFailureRequest.SOFT_OFFLINE:
        return ()
    far = notification.fault_address if notification.taken_from == "user" else None
    if notification.syndrome is not None and abort_syndrome(notification.syndrome).fnv:
        far = None
    return (MappedAddress(facts.consumer.pid, None if far is None else far & -facts.page_size),)


def _handle(frame: Frame, policy: Policy, facts: Facts, before: PoisonedBefore | None) -> HandledFrame:
    if frame.item.request is MemoryFailureRequest.SOFT_OFFLINE:
        return _soft_offline(frame, policy, facts, before is not None)
    if not facts.sysctl.recovery:
        return _recovery_is_off(frame, policy, facts)
    if before is not None:
        return _again(frame, policy, facts, before)
    return _first_time(frame, policy, facts)


def _first_time(frame: Frame, policy: Policy, facts: Facts) -> HandledFrame:
    outcome, fired = page_states.page_outcome(policy, traits_of(frame, facts))
    panics = outcome.kernel_owned and policy.behaviours.panic_on_unrecoverable_sysctl and bool(facts.sysctl.panic_on_unrecoverable)
    step = MemoryFailure(frame.pfn, outcome.page_type, outcome.result, None if panics else outcome.returns)
    stage_result = StageResult((step, *outcome.notes), (fired,), outcome.reasons, frame.assumptions, ())
    if panics:
        message = f"Memory failure: {frame.pfn:#x}: unrecoverable page"
        panic = rule(policy, "memory.panic", "panic", "panic_on_unrecoverable_mf", "panic_on_unrecoverable_sysctl")
        steps = (*stage_result.steps, Panic("memory_failure", message, reboot_delay(facts)))
        stage_result = stage_result._replace(steps=steps, rationale=(fired, panic))
    return HandledFrame(frame, outcome, stage_result, poisons=outcome.poisons, panics=panics)


def traits_of(frame: Frame, facts: Facts) -> PageTraits:
    """What the outcome of poisoning a page depends on."""
    page, order = frame.page, frame.shift - facts.page_shift
    return PageTraits(
        page.state,
        facts.is_dirty(page),
        bool(frame.places),
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


def _soft_offline(frame: Frame, policy: Policy, facts: Facts, was_poisoned: bool) -> HandledFrame:
    page = frame.page
    stuck = page.pinned or (page.split_fails and frame.shift > facts.page_shift)
    done = page_states.soft_offline(policy, page.state, stuck, was_poisoned, bool(facts.sysctl.enable_soft_offline))
    step = SoftOffline(frame.pfn, done.result, done.returns)
    stage_result = StageResult((step,), (done.rationale,), (), frame.assumptions)
    return HandledFrame(frame, None, stage_result, again=was_poisoned, poisons=done.returns == 0)


def _again(frame: Frame, policy: Policy, facts: Facts, before: PoisonedBefore) -> HandledFrame:
    """A page that was poisoned before, itself or, for a hugetlb page, another of its base pages."""
    current = facts.host.current
    maps = before.is_met and current is not None and frame.is_mapped_by(current.pid)
    outcome, fired = _repeated(policy, frame.item.request, maps, frame.page.state is PageState.HUGETLB, before.pfn == frame.pfn)
    step = MemoryFailure(frame.pfn, outcome.page_type, outcome.result, outcome.returns)
    return HandledFrame(frame, outcome, StageResult((step,), (fired,), outcome.reasons, frame.assumptions), again=True)


@lru_cache(maxsize=1024)
def _repeated(policy: Policy, request: MemoryFailureRequest, maps: bool, huge: bool, same: bool) -> tuple[PageOutcome, Rationale]:
    does = policy.behaviours
    kills = False
    reasons: tuple[str, ...] = ()
    if not does.kill_accessing_process:
        returns, words = 0, "nothing: the page is poisoned already"
    elif request is not MemoryFailureRequest.ACTION_REQUIRED:
        returns, words = EHWPOISON, "nothing: the page is poisoned already and nobody consumed it"
    elif not does.action_required_in_task_work:
        returns, words = EFAULT, "nothing: a kernel worker has no page tables to search"
        reasons = (_RACE_ON_POISON,) if maps else ()
    elif maps:
        returns, words, kills = EHWPOISON, "the thread that consumed the page is signalled", True
    else:
        returns = 0 if does.kill_accessing_absent_is_fine else EFAULT
        words = "the thread that consumed the page does not map it any more"
    reported = does.already_poisoned_reported
    page_type = "already poisoned page" if same or not does.kill_accessing_names_base_page else "huge page"
    outcome = PageOutcome(
        page_type if reported else None,
        "failed" if reported else None,
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
