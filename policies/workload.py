"""Estimate of the work that deciding an event takes, and its limit.

TooMuchWork         an event whose decision would take more steps than the limit
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ras_triage.models.event import Event
from ras_triage.models.notification import NotificationType
from ras_triage.models.records import guid
from ras_triage.models.records.status_block import DataEntry, StatusBlock
from ras_triage.models.sections import arm_processor
from ras_triage.policies.alternatives import ARM_ERROR_TYPES, NOTIFICATION_TYPE, PAGE_READINGS
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
"""For one page frame that is queued, without those who map it."""
_SIGNAL_STEPS: Final = 8
"""For one process that maps a page frame: its signal now, its signal at the next access, and their JSON."""
_ANSWER_STEPS: Final = 8
"""For one signal that a VM answers."""
_TELLING_STEPS: Final = 2
"""For one range or page that it tells its guest of."""
_ANSWER_SIZE: Final = 3
"""Of `MAX_SIZE`, the least that an answer takes."""
_REREADING: Final = 3
"""One part in so many of the steps that one more reading of the event takes: it is decided, and seldom encoded."""

_GUEST_PAGE_SHIFT: Final = 12
"""Of the smallest guest page."""


class Size(NamedTuple):
    """The counts on which the work depends."""

    sections: int
    """Sections and error infos that are looked at."""
    frames: int
    """Page frames that are queued."""
    mappings: int
    """Of the page that has most."""
    poisoned: int
    """Mappings of all pages that are poisoned already."""
    remembered: int
    """Pages kept as poisoned, which are not among the host's facts yet."""
    signals: int
    """Signals to processes that run VMs."""
    told: int
    """Ranges and pages that a VM is told of for one signal."""
    readings: int
    """How often the event is decided: once, and once for each other reading (`ras_triage.policies.alternatives`)."""


class Factor(NamedTuple):
    """A count in an event on which the work depends."""

    number: int
    noun: str
    """Plural."""
    pointer: str
    """JSON pointer into the event."""

    def __str__(self) -> str:
        return f"{self.number} {self.noun}"


class TooMuchWork(ValueError):
    """An event whose decision would take more steps than the limit.

    `factors` are the two counts whose product is the largest part of them.
    """

    def __init__(self, factors: tuple[Factor, Factor], steps: int, limit: int) -> None:
        super().__init__(f"{factors[0]} x {factors[1]}: deciding would take about {steps} steps, and {limit} is the limit")
        self.factors = factors
        self.steps = steps
        self.limit = limit


def workload(
    event: Event,
    block: StatusBlock | None,
    policy: Policy | None = None,
    *,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    remembered: int = 0,
) -> int:
    """Return an upper estimate of the steps that deciding `event` and encoding the decision take, about one microsecond each.

    Takes time in proportion to the sections of `block` and to the pages and VMs of the host, whatever is in them. `policy` makes the
    estimate closer; `assumed` is as for `decide`; `remembered` counts the pages kept as poisoned that will be added to the host's facts.
    """
    return _steps(_measure(event, block, policy, assumed, remembered))


def require_workload(
    event: Event,
    block: StatusBlock | None,
    limit: int,
    policy: Policy | None = None,
    *,
    assumed: frozenset[str] = NOTHING_ASSUMED,
    remembered: int = 0,
) -> None:
    """Raise TooMuchWork where `workload` is more than `limit`."""
    size = _measure(event, block, policy, assumed, remembered)
    if (steps := _steps(size)) > limit:
        raise TooMuchWork(_largest(size), steps, limit)


def _steps(size: Size) -> int:
    once = (
        size.sections * _SECTION_STEPS
        + size.frames * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS)
        + size.remembered * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS)
        + size.poisoned * _SIGNAL_STEPS
        + _guest_steps(size)
    )
    return once + once * (size.readings - 1) // _REREADING


def _guest_steps(size: Size) -> int:
    """The guest half stops at `MAX_SIZE`, after the signal that reaches it."""
    answers = min(size.signals, MAX_SIZE // _ANSWER_SIZE)
    return answers * _ANSWER_STEPS + min(size.signals * size.told, MAX_SIZE + size.told) * _TELLING_STEPS


def _largest(size: Size) -> tuple[Factor, Factor]:
    """The two factors of the largest part of the work."""
    sections = Factor(size.sections, "sections and error infos", "/status_block")
    frames = Factor(size.frames, "page frames", "/status_block")
    mappings = Factor(size.mappings, "mappings of one page", "/host/pages")
    remembered = Factor(size.remembered, "pages kept as poisoned", "")
    poisoned = Factor(size.poisoned, "mappings of poisoned pages", "/host/pages")
    signals, told = Factor(size.signals, "signals to VMs", "/host/vms"), Factor(size.told, "guest ranges and pages", "/host/vms")
    readings = Factor(size.readings, "readings of the event", "")
    parts = (
        (size.sections * _SECTION_STEPS, (sections, readings)),
        (size.frames * size.mappings * _SIGNAL_STEPS, (frames, mappings)),
        (size.frames * _FRAME_STEPS, (frames, readings)),
        (size.remembered * (_FRAME_STEPS + size.mappings * _SIGNAL_STEPS), (remembered, mappings)),
        (size.poisoned * _SIGNAL_STEPS, (poisoned, readings)),
        (_guest_steps(size), (signals, told)),
    )
    return max(parts, key=lambda part: part[0])[1]


def _measure(event: Event, block: StatusBlock | None, policy: Policy | None, assumed: frozenset[str], remembered: int) -> Size:
    host = event.host
    pages = host.pages or ()
    sections, frames = (0, 0) if block is None else _count_frames(block)
    if frames > QUEUE_LENGTH and not _may_queue_all(event, policy, assumed):
        frames = QUEUE_LENGTH
    hit = frames + remembered
    mappings = max([len(page.mappings) for page in pages], default=0) if hit else 0
    poisoned = sum([len(page.mappings) for page in pages if page.poisoned])
    signals = told = 0
    if hit and host.vms:
        alike = 1 + len(host.vms) - len({vm.pid for vm in host.vms})
        signals = hit * min(max(mappings, 1) * alike, len(host.vms))
        smallest = (host.page_size or PAGE_SIZE).bit_length() - 1
        lost = max([page.shift or smallest for page in pages], default=smallest)
        told = min(1 << lost - _GUEST_PAGE_SHIFT, MAX_RECORDS) + max([len(vm.memslots) for vm in host.vms])
    infos = 0 if block is None else sections - len(block.entries)
    readings = _count_readings(event, infos, assumed) if frames else 1
    return Size(sections, frames, mappings, poisoned, remembered, signals, told, readings)


def _count_frames(block: StatusBlock) -> tuple[int, int]:
    """At most how many sections and error infos are looked at, and how many page frames they queue."""
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
    """At most how many error infos are looked at: each says how long it is, which may be one byte, or none for the same info again."""
    count = arm_processor.read_counts(block.window(entry.payload_offset, arm_processor.HEADER_LENGTH))[1]
    length = min(entry.error_data_length, max(len(block.data) - entry.payload_offset, 0))
    return min(count, length + 1), min(count, length + QUEUE_LENGTH + 1)


def _may_queue_all(event: Event, policy: Policy | None, assumed: frozenset[str]) -> bool:
    """Whether page frames may bypass the kernel worker's queue, which has a length: the thread that consumed them handles them itself."""
    if policy is not None and not policy.behaviours.action_required_in_task_work:
        return False
    consumed = event.notification.type is NotificationType.SEA and event.notification.taken_from != "kernel"
    return consumed or NOTIFICATION_TYPE in assumed


def _count_readings(event: Event, infos: int, assumed: frozenset[str]) -> int:
    """At most how often an event with page frames is decided: nobody looks here whether all of their pages are told."""
    readings = 1 + PAGE_READINGS
    if infos and (event.host.arm_error_types is None or ARM_ERROR_TYPES in assumed):
        readings += len(NUMBERINGS) - 1
    return readings + 1 if NOTIFICATION_TYPE in assumed else readings
