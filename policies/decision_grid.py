"""Decision grid of a policy: all combinations of the inputs that rules tell apart.

The axes are notification, severity of the block, severity of the section, section, page state and task state. Points share one decision
(`GridCell`) where a value cannot matter: the record of a source that is not read, and pages and tasks where no page frame is queued.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from ras_triage.models.decision import Action, Decision, Panic, QueueMemoryFailure
from ras_triage.models.event import Event
from ras_triage.models.host import MAPPED_STATES, Host, PageState
from ras_triage.models.notification import DELIVERY, Delivery, Notification, NotificationType
from ras_triage.models.records.block_fields import encode_structured
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.severity import Severity
from ras_triage.models.syndrome import SERROR_ESR_BASE, AsynchronousErrorType, serror_iss
from ras_triage.policies.catalog.policies import Policy, catalog_table
from ras_triage.policies.decide import decide_parsed
from ras_triage.policies.pipeline.stages import headline

_ADDRESS: Final = 0x4000_0000
_VIRTUAL: Final = 0x7F00_4000_0000
_PID: Final = 103
_TID: Final = 104
_OTHER_PID: Final = 200
_OFF_THE_LIST: Final = 4
"""A severity that no specification defines."""


# Notifications

_DATA_ABORT: Final = 0x9200_0010
_SERRORS: Final = {name.name.lower(): SERROR_ESR_BASE | serror_iss(name) for name in AsynchronousErrorType}
_CONTEXTS: Final = ("user", "kernel", "guest")
_EXCEPTIONS: Final = (Delivery.SYNCHRONOUS, Delivery.SERROR)


def _notifications() -> Iterator[tuple[str, Notification]]:
    for kind in NotificationType:
        if DELIVERY[kind] not in _EXCEPTIONS:
            yield kind.value, Notification(type=kind)
    for context in _CONTEXTS:
        abort = {"type": "sea", "syndrome": _DATA_ABORT, "fault_address": _VIRTUAL, "taken_from": context}
        yield f"sea/{context}", Notification.model_validate(abort)
    yield "sei", Notification(type=NotificationType.SEI)
    for (name, syndrome), context in product(_SERRORS.items(), _CONTEXTS):
        yield f"sei/{name}/{context}", Notification.model_validate({"type": "sei", "syndrome": syndrome, "taken_from": context})


# Records

_DEVICE: Final = {"segment": 0, "bus": 1, "device": 0, "function": 0, "vendor_id": 1, "device_id": 1, "class_code": 0}
_SECTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "memory/address": {"type": "memory", "physical_address": _ADDRESS},
    "memory/no_address": {"type": "memory"},
    "memory/threshold": {"type": "memory", "physical_address": _ADDRESS, "flags": ["threshold_exceeded"]},
    "memory2/address": {"type": "memory2", "physical_address": _ADDRESS},
    "memory2/no_address": {"type": "memory2"},
    "arm_cache/address": {"type": "arm_processor", "error_infos": [{"error_type": 2, "physical_fault_address": _ADDRESS}]},
    "arm_cache/no_address": {"type": "arm_processor", "error_infos": [{"error_type": 2}]},
    "arm_cache_legacy/address": {"type": "arm_processor", "error_infos": [{"error_type": 0, "physical_fault_address": _ADDRESS}]},
    "arm_tlb/address": {"type": "arm_processor", "error_infos": [{"error_type": 4, "physical_fault_address": _ADDRESS}]},
    "arm_processor/no_errors": {"type": "arm_processor"},
    "pcie/registers": {"type": "pcie", "port_type": 0, **_DEVICE, "aer_uncorrectable_status": 0x4000, "aer_uncorrectable_mask": 0},
    "pcie/masked": {"type": "pcie", "port_type": 0, **_DEVICE, "aer_uncorrectable_status": 0x4000, "aer_uncorrectable_mask": 0x4000},
    "pcie/port": {"type": "pcie", "port_type": 4, **_DEVICE, "aer_uncorrectable_status": 0x4000, "aer_uncorrectable_mask": 0},
    "pcie/no_registers": {"type": "pcie", **_DEVICE},
    "pcie/no_device": {"type": "pcie"},
    "generic_processor": {"type": "generic_processor"},
    "cxl_protocol/agent": {"type": "cxl_protocol", "agent_type": 2, "agent_address": 0, "serial_number": 1},
    "cxl_protocol/no_agent": {"type": "cxl_protocol"},
    "cxl_dram": {"type": "cxl_dram"},
    "firmware_record_reference": {"type": "firmware_record_reference"},
    "vendor": {"type": "d7c86cf1-1b1c-4fc9-9a5e-0a0f3e8f0a01", "payload": b"\0" * 16},
}
"""Sections by kind and by what is valid in them."""

_SEVERITIES: Final[Mapping[str, int]] = {severity.name.lower(): severity.value for severity in Severity} | {"off_the_list": _OFF_THE_LIST}


def _records() -> Iterator[tuple[tuple[str, str, str], StatusBlock | None]]:
    """Yield status blocks, by severity of the block, severity of the section, and section."""
    yield ("none", "none", "no_record"), None
    for name, severity in _SEVERITIES.items():
        empty = encode_structured({"severity": severity})
        yield (name, "none", "empty"), parse_block(empty)
        yield (name, "none", "not_pending"), parse_block(encode_structured({"severity": severity, "block_status": 0}))
        yield (name, "none", "malformed"), parse_block(encode_structured({"severity": severity, "raw_data_length": 1 << 20}))
        for (of_section, value), (kind, section) in product(_SEVERITIES.items(), _SECTIONS.items()):
            data = encode_structured({"severity": severity, "sections": [{**section, "severity": value}]})
            yield (name, of_section, kind), parse_block(data)


# Host facts

_HUGE: Final = (PageState.HUGETLB, PageState.HUGETLB_FREE, PageState.THP, PageState.FILE_THP, PageState.HUGE_ZERO)


def _page_states() -> Iterator[tuple[str, dict[str, Any]]]:
    for state in PageState:
        page: dict[str, Any] = {"physical_address": _ADDRESS, "state": state, "shift": 21 if state in _HUGE else 12}
        if state not in MAPPED_STATES:
            yield state.value, page
            continue
        mapped = page | {"mappings": [{"pid": _PID, "address": _VIRTUAL}, {"pid": _OTHER_PID, "address": _VIRTUAL}]}
        yield f"{state.value}/dirty", mapped | {"dirty": True}
        yield f"{state.value}/clean", mapped | {"dirty": False}
        if state in (PageState.ANONYMOUS, PageState.HUGETLB):
            yield f"{state.value}/unmap_fails", mapped | {"dirty": True, "unmap_fails": True}
            yield f"{state.value}/poisoned", mapped | {"dirty": True, "poisoned": True}
            yield f"{state.value}/unmapped", page | {"dirty": False}


def _process(mce_kill: str = "default") -> dict[str, Any]:
    return {"pid": _PID, "threads": [{"tid": _PID, "mce_kill": mce_kill}, {"tid": _TID, "mce_kill": mce_kill}]}


_MEMSLOT: Final = {"slot": 0, "guest_phys_addr": _ADDRESS, "memory_size": 1 << 30, "userspace_addr": _VIRTUAL}
_VM: Final = {
    "id": "vm-1",
    "pid": _PID,
    "vmm": "qemu",
    "vcpus": [{"index": 0, "tid": _TID}],
    "memslots": [_MEMSLOT],
    "guest": {"ghes": ["sea", "gpio"]},
}


def _task_states() -> Iterator[tuple[str, dict[str, Any]]]:
    user = {"current": {"pid": _PID, "tid": _TID}, "sysctl": {}}
    yield "default", user | {"tasks": [_process()]}
    yield "early", user | {"tasks": [_process("early")]}
    yield "late", user | {"tasks": [_process("late")], "sysctl": {"vm.memory_failure_early_kill": 1}}
    yield "early_by_sysctl", user | {"tasks": [_process()], "sysctl": {"vm.memory_failure_early_kill": 1}}
    yield "kernel_thread", user | {"current": None, "tasks": [_process()]}
    yield "vmm", user | {"tasks": [_process("early")], "vms": [_VM]}


_KNOWN: Final = {"page_size": 4096, "ras_extension": True, "config": {}, "arm_error_types": "uefi-2.10", "pci_devices": ["0000:01:00.0"]}


@dataclass(frozen=True, slots=True)
class _Axes:
    """Values of the axes by name."""

    notifications: Mapping[str, Notification] = field(default_factory=lambda: dict(_notifications()))
    records: Mapping[tuple[str, str, str], StatusBlock | None] = field(default_factory=lambda: dict(_records()))
    tasks: tuple[str, ...] = field(default_factory=lambda: tuple(name for name, _ in _task_states()))
    pages: tuple[str, ...] = field(default_factory=lambda: tuple(name for name, _ in _page_states()))
    hosts: Mapping[tuple[str, str], Host] = field(
        default_factory=lambda: {
            (name, page_name): Host.model_validate(_KNOWN | tasks | {"pages": [page]})
            for (name, tasks), (page_name, page) in product(_task_states(), _page_states())
        }
    )


@lru_cache(maxsize=1)
def _axes() -> _Axes:
    return _Axes()


# The grid


class GridPoint(NamedTuple):
    """One combination of values."""

    notification: str
    block_severity: str
    section_severity: str
    section: str
    task: str
    page: str


class GridCell(NamedTuple):
    """A point and its decision, which stands for `points` points that cannot differ from it."""

    point: GridPoint
    decision: Decision
    points: int


@dataclass(frozen=True, slots=True)
class GridSummary:
    """Counts and digest of a policy's grid."""

    policy: str
    points: int
    decisions: int
    """Decisions that were made for the points."""
    digest: str
    """Hash of action, certainty, plan and next access of these decisions with their points, in order."""
    actions: Mapping[str, Mapping[str, int]]
    """Number of points by notification and action."""
    faults: tuple[str, ...]
    """Points without exactly one outcome, with the reason; empty where the grid is sound."""

    @property
    def totals(self) -> dict[str, int]:
        """Return the number of points of each action."""
        return {action: sum(counts.get(action, 0) for counts in self.actions.values()) for action in Action}


def grid_axes() -> tuple[tuple[str, ...], tuple[tuple[str, str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """Return the values of the axes: notifications, records, task states and page states. Their product is the grid."""
    axes = _axes()
    return tuple(axes.notifications), tuple(axes.records), axes.tasks, axes.pages


def decide_point(policy: Policy, point: GridPoint) -> Decision:
    """Return the decision of one point."""
    axes = _axes()
    block = axes.records[point.block_severity, point.section_severity, point.section]
    event = Event.model_construct(
        notification=axes.notifications[point.notification], host=axes.hosts[point.task, point.page], assumed=None, source=None
    )
    return decide_parsed(event, block, policy, "")


def grid_cells(policy: Policy) -> Iterator[GridCell]:
    """Yield the decisions of all points; points that cannot differ are decided once."""
    axes = _axes()
    points = len(axes.records) * len(axes.tasks) * len(axes.pages)
    for notification in axes.notifications:
        records = _distinct_records(policy, notification)
        for record in records:
            first = GridPoint(notification, *record, axes.tasks[0], _MAPPED)
            decision = decide_point(policy, first)
            tasks, pages = _distinct_facts(first, decision)
            number = points // len(records) // len(tasks) // len(pages)
            for task, page in product(tasks, pages):
                point = first._replace(task=task, page=page)
                yield GridCell(point, decision if point == first else decide_point(policy, point), number)


def representative(policy: Policy, point: GridPoint) -> GridPoint:
    """Return the point whose cell has the decision of `point`."""
    record = (point.block_severity, point.section_severity, point.section)
    records = _distinct_records(policy, point.notification)
    first = GridPoint(point.notification, *(record if record in records else records[0]), _axes().tasks[0], _MAPPED)
    tasks, pages = _distinct_facts(first, decide_point(policy, first))
    return first._replace(task=point.task if point.task in tasks else tasks[0], page=point.page if point.page in pages else pages[0])


_MAPPED: Final = f"{PageState.ANONYMOUS.value}/dirty"
_READ: Final = ("recoverable", "recoverable", "memory/address")
_CONTEXT_TASKS: Final = ("default", "kernel_thread", "vmm")
"""Task states with different interrupted threads; the others differ in what signals a task asked for."""


def _distinct_records(policy: Policy, notification: str) -> tuple[tuple[str, str, str], ...]:
    """Return the records that can change the decision: one where the record is not read."""
    axes = _axes()
    decision = decide_point(policy, GridPoint(notification, *_READ, axes.tasks[0], _MAPPED))
    return tuple(axes.records) if any(fired.stage == "read" for fired in decision.rationale) else (_READ,)


def _distinct_facts(first: GridPoint, decision: Decision) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the task and page states that can change the decision of `first`, a point with a mapped page."""
    axes = _axes()
    if any(isinstance(step, QueueMemoryFailure) for step in decision.plan):
        return axes.tasks, axes.pages
    is_exception = DELIVERY[axes.notifications[first.notification].type] in _EXCEPTIONS
    return _CONTEXT_TASKS if is_exception else axes.tasks[:1], (_MAPPED,)


def summarize_grid(policy: Policy) -> GridSummary:
    """Decide every point of the grid and return counts, digest and faults."""
    digest = hashlib.sha256()
    counts: dict[str, Counter[str]] = {}
    faults: list[str] = []
    points = decisions = 0
    for point, decision, number in grid_cells(policy):
        digest.update(to_json([point, decision.action, decision.certainty, decision.plan, decision.next_access], bytes_mode="hex"))
        counts.setdefault(point.notification.partition("/")[0], Counter())[decision.action.value] += number
        faults += [f"{'; '.join(point)}: {fault}" for fault in _faults(decision)]
        points += number
        decisions += 1
    actions = {notification: dict(sorted(found.items())) for notification, found in counts.items()}
    return GridSummary(policy.name, points, decisions, f"sha256:{digest.hexdigest()}", actions, tuple(faults))


def _faults(decision: Decision) -> Iterator[str]:
    """Yield why a decision is not one outcome: its parts contradict each other."""
    panics = sum(isinstance(step, Panic) for step in decision.plan)
    if decision.action is not headline(decision.plan):
        yield f"action `{decision.action}` for a plan that comes to `{headline(decision.plan)}`"
    if panics > 1:
        yield f"{panics} panics"
    if panics and decision.next_access:
        yield "signals at the next access after a panic"
    if (decision.certainty == "depends") != bool(decision.reasons):
        yield f"certainty `{decision.certainty}` with {len(decision.reasons)} reasons"
    if not decision.plan and not decision.rationale:
        yield "neither a plan nor a rule"


@lru_cache(maxsize=1)
def committed_grids() -> Mapping[str, Mapping[str, Any]]:
    """Return digest and counts of the grids under review (`grids.toml`), by policy."""
    return catalog_table("grids.toml")
