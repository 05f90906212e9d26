"""Workload of an event: the estimated work of deciding it.

TooMuchWork         an event whose decision would take more steps than the limit
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ras_triage.models.event import Event
from ras_triage.models.notification import NotificationType
from ras_triage.models.records import guid
from ras_triage.models.records.status_block import DataEntry, StatusBlock
from ras_triage.models.sections import arm_processor
from ras_triage.policies.alternatives import ARM_ERROR_TYPES, NOTIFICATION_TYPE, PAGE_INTERPRETATIONS
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.guest.guest_stage import MAX_SIZE
from ras_triage.policies.guest.vmm_response import MAX_RECORDS
from ras_triage.policies.pipeline.arm_error_types import NUMBERINGS
from ras_triage.policies.pipeline.facts import PAGE_SIZE
from ras_triage.policies.pipeline.sections import QUEUE_LENGTH

NOTHING_ASSUMED: Final[frozenset[str]] = frozenset()

_SECTION_STEPS: Final = 15
"""For one section or error info: its rules, its step, and their JSON."""
_FRAME_STEPS: Final = 25
"""For one queued page frame, without its mappings."""
_SIGNAL_STEPS: Final = 8
"""For one process that maps a page frame: its signals now and at the next access, and their JSON."""
_RESPONSE_STEPS: Final = 8
"""For one signal that a VMM responds to."""
_GUEST_PART_STEPS: Final = 2
"""For one guest range or page in that response."""
_MIN_RESPONSE_SIZE: Final = 3
"""Smallest share of `MAX_SIZE` that a response takes."""
_INTERPRETATION_DIVISOR: Final = 3
"""A further interpretation takes this fraction of an event's steps: it is decided, but rarely encoded."""

_GUEST_PAGE_SHIFT: Final = 12
"""Log2 of the smallest guest page."""


class WorkloadSize(NamedTuple):
    """Counts in an event that determine the work."""

    sections: int
    """Sections and error infos that are read."""
    frames: int
    """Queued page frames."""
    mappings: int
    """Of the page with the most."""
    poisoned_mappings: int
    """Of all pages that are already poisoned."""
    known_poisoned: int
    """Stored poisoned pages that will be added to the host facts."""
    signals: int
    """Signals to processes that run VMs."""
    guest_parts: int
    """Guest ranges and pages in the response to one signal."""
    interpretations: int
    """Number of decisions: one, and one for each other interpretation (`ras_triage.policies.alternatives`)."""


class Factor(NamedTuple):
    """A count in an event that determines the work."""

    number: int
    noun: str
    """In the plural."""
    pointer: str
    """JSON pointer into the event."""

    def __str__(self) -> str:
        return f"{self.number} {self.noun}"


class TooMuchWork(ValueError):
    """An event whose decision would take more steps than the limit.

    `factors` are the two counts with the largest product.
    """

    def __init__(self, factors: tuple[Factor, Factor], steps: int, limit: int) -> None:
        super().__init__(f"{factors[0]} x {factors[1]}: deciding would take about {steps} steps; at most {limit} expected")
        self.factors = factors
        self.steps = steps
        self.limit = limit


def workload(
    event: Event,
    block: StatusBlock | None,
    policy: Policy | None = None,
    *,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    known_poisoned: int = 0,
) -> int:
    """Return an upper estimate of the steps to decide `event` and encode the decision, about one microsecond each.

    Takes time in proportion to the sections of `block` and to the pages and VMs of the host. `policy` makes the
    estimate closer; `assumed` is as for `decide`; `known_poisoned`: number of stored poisoned pages that will be added to the host
    facts.
    """
    return _steps(_measure(event, block, policy, assumed, known_poisoned))


def require_workload(
    event: Event,
    block: StatusBlock | None,
    limit: int,
    policy: Policy | None = None,
    *,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    known_poisoned: int = 0,
) -> None:
    """Raise TooMuchWork where `workload` exceeds `limit`."""
    size = _measure(event, block, policy, assumed, known_poisoned)
    if (steps := _steps(size)) > limit:
        raise TooMuchWork(_largest(size), steps, limit)


def _steps(size: WorkloadSize) -> int:
    once = (
        size.sections * _SECTION_STEPS
        + size.frames * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS)
        + size.known_poisoned * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS)
        + size.poisoned_mappings * _SIGNAL_STEPS
        + _guest_steps(size)
    )
    return once + once * (size.interpretations - 1) // _INTERPRETATION_DIVISOR


def _guest_steps(size: WorkloadSize) -> int:
    """Return the steps of the guest part, which stops after the signal that reaches `MAX_SIZE`."""
    responses = min(size.signals, MAX_SIZE // _MIN_RESPONSE_SIZE)
    return responses * _RESPONSE_STEPS + min(size.signals * size.guest_parts, MAX_SIZE + size.guest_parts) * _GUEST_PART_STEPS


def _largest(size: WorkloadSize) -> tuple[Factor, Factor]:
    """Return the two factors of the largest part of the work."""
    sections = Factor(size.sections, "sections and error infos", "/status_block")
    frames = Factor(size.frames, "page frames", "/status_block")
    mappings = Factor(size.mappings, "mappings of one page", "/host/pages")
    known_poisoned = Factor(size.known_poisoned, "stored poisoned pages", "")
    poisoned_mappings = Factor(size.poisoned_mappings, "mappings of poisoned pages", "/host/pages")
    signals, guest_parts = (
        Factor(size.signals, "signals to VMs", "/host/vms"),
        Factor(size.guest_parts, "guest ranges and pages", "/host/vms"),
    )
    interpretations = Factor(size.interpretations, "interpretations of the event", "")
    parts = (
        (size.sections * _SECTION_STEPS, (sections, interpretations)),
        (size.frames * size.mappings * _SIGNAL_STEPS, (frames, mappings)),
        (size.frames * _FRAME_STEPS, (frames, interpretations)),
        (size.known_poisoned * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS), (known_poisoned, mappings)),
        (size.poisoned_mappings * _SIGNAL_STEPS, (poisoned_mappings, interpretations)),
        (_guest_steps(size), (signals, guest_parts)),
    )
    return max(parts, key=lambda part: part[0])[1]


def _measure(event: Event, block: StatusBlock | None, policy: Policy | None, assumed: frozenset[str], known_poisoned: int) -> WorkloadSize:
    host = event.host
    pages = host.pages or ()
    if event.assumed:
        assumed = assumed.union(event.assumed)
    sections, frames = (0, 0) if block is None else _count_frames(block)
    if frames > QUEUE_LENGTH and not _may_queue_all(event, policy, assumed):
        frames = QUEUE_LENGTH
    hit = frames + known_poisoned
    mappings = poisoned_mappings = 0
    for page in pages:
        count = len(page.mappings)
        if hit and count > mappings:
            mappings = count
        if page.poisoned:
            poisoned_mappings += count
    signals = guest_parts = 0
    if hit and host.vms:
        alike = 1 + len(host.vms) - len({vm.pid for vm in host.vms})
        signals = hit * min(max(mappings, 1) * alike, len(host.vms))
        smallest = (host.page_size or PAGE_SIZE).bit_length() - 1
        lost = max([page.shift or smallest for page in pages], default=smallest)
        guest_parts = min(1 << lost - _GUEST_PAGE_SHIFT, MAX_RECORDS) + max([len(vm.memslots) for vm in host.vms])
    infos = 0 if block is None else sections - len(block.entries)
    interpretations = _count_interpretations(event, infos, assumed) if frames else 1
    return WorkloadSize(
        sections=sections,
        frames=frames,
        mappings=mappings,
        poisoned_mappings=poisoned_mappings,
        known_poisoned=known_poisoned,
        signals=signals,
        guest_parts=guest_parts,
        interpretations=interpretations,
    )


def _count_frames(block: StatusBlock) -> tuple[int, int]:
    """Return upper limits of the sections and error infos that are read, and of the page frames that they queue."""
    sections = frames = 0
    for entry in block.entries:
        if entry.section_type == guid.MEMORY:
            frames += 1
        elif entry.section_type == guid.ARM_PROCESSOR:
            infos, queued = _count_infos(block, entry)
            sections += infos
            frames += queued
    return sections + len(block.entries), frames


def _count_infos(block: StatusBlock, entry: DataEntry) -> tuple[int, int]:
    """Return upper limits of the error infos and their page frames. An info's length may be 1 byte, or 0 to repeat the info."""
    count = arm_processor.read_counts(block.window(entry.payload_offset, arm_processor.HEADER_LENGTH))[1]
    length = min(entry.error_data_length, max(len(block.data) - entry.payload_offset, 0))
    return min(count, length + 1), min(count, length + QUEUE_LENGTH + 1)


def _may_queue_all(event: Event, policy: Policy | None, assumed: frozenset[str]) -> bool:
    """Return whether page frames may bypass the kernel worker's bounded queue, as task work of the thread that consumed the error."""
    if policy is not None and not policy.behaviours.action_required_in_task_work:
        return False
    consumed = event.notification.type is NotificationType.SEA and event.notification.taken_from != "kernel"
    return consumed or NOTIFICATION_TYPE in assumed


def _count_interpretations(event: Event, infos: int, assumed: frozenset[str]) -> int:
    """Return an upper limit of the decisions for an event with page frames, as if every page fact left something open."""
    interpretations = 1 + PAGE_INTERPRETATIONS
    if infos and (event.host.arm_error_types is None or ARM_ERROR_TYPES in assumed):
        interpretations += len(NUMBERINGS) - 1
    return interpretations + 1 if NOTIFICATION_TYPE in assumed else interpretations
