"""Actions under every reading of the unknown facts, and the smallest change.

An event can leave open the state of its pages, the kill policies of threads, the notification type and the numbering of ARM error types.
Their readings are a finite grid: each point is decided, and points with the same action are grouped. `alternatives` of a decision are a
few of these points, one for each other action.

The number of decisions is at most `MAX_READINGS` for the grid, `MAX_CHANGES` for single changes, and for pairs of changes what the limit of
steps allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from itertools import chain, combinations, islice
from typing import Any, Final, NamedTuple

from ras_triage.models.decision import Action, Condition, InputChange, SmallestChange, Step, UnknownFact, WhatIf
from ras_triage.models.event import Event
from ras_triage.models.host import MAPPED_STATES, Host, MceKill, Page, PageState, Sysctl, Task, Thread
from ras_triage.models.notification import Notification, NotificationType
from ras_triage.models.records.block_summary import physical_addresses
from ras_triage.models.records.guid import ARM_PROCESSOR
from ras_triage.models.records.status_block import StatusBlock, parse_block
from ras_triage.models.severity import Severity
from ras_triage.policies.alternatives import ARM_ERROR_TYPES, NOTIFICATION_TYPE
from ras_triage.policies.catalog.policies import Policy
from ras_triage.policies.catalog.vmms import NO_CUSTOM_VMMS, Vmm
from ras_triage.policies.pipeline.arm_error_types import NUMBERINGS
from ras_triage.policies.pipeline.facts import DEFAULT_PAGE, Facts
from ras_triage.policies.pipeline.stage_result import merge_results
from ras_triage.policies.pipeline.stages import headline, run_stages
from ras_triage.policies.workload import require_workload, workload


class _Question(NamedTuple):
    """Inputs of a decision: an event, and what stands for its unknown facts."""

    notification: Notification
    block: StatusBlock | None
    host: Host
    default_page: Page = DEFAULT_PAGE
    numbering: str | None = None
    """Numbering of ARM error types, whatever the kernel uses; None: the kernel's."""


_Change = Callable[[_Question], _Question]


class _Axis(NamedTuple):
    """An unknown fact with all its readings."""

    fact: str
    readings: Mapping[str, _Change]
    requires: Mapping[str, tuple[str, ...]] = {}
    """What else has to hold for the fact to matter."""


def what_if(
    event: Event,
    block: StatusBlock | None,
    policy: Policy,
    limit: int,
    assumed: frozenset[str] = frozenset(),
    custom_vmms: Mapping[str, Vmm] = NO_CUSTOM_VMMS,
) -> WhatIf:
    """Decide an event, whose VMMs are known, under every reading of its unknown facts, and find the smallest change.

    `limit`: number of steps of about one microsecond that the grid, and then the changes, may take. Raises TooMuchWork.
    `assumed`: as for `decide`.
    """
    question = _Question(event.notification, block, event.host)
    axes = _unknown_facts(question, assumed.union(event.assumed or ()), policy)
    changes = _changes(question, axes)
    size = 1
    for axis in axes:
        size *= len(axis.readings)
    require_workload(event, block, limit // (size + len(changes)), policy, assumed=assumed)
    pairs = limit // max(workload(event, block, policy, assumed=assumed), 1)
    answer = partial(_answer, policy, custom_vmms)
    action, _ = answer(question)
    unknown = tuple(UnknownFact(axis.fact, tuple(axis.readings)) for axis in axes)
    conditions = tuple(_conditions(question, axes, answer))
    return WhatIf(action, unknown, size, conditions, _smallest_change(question, action, changes, pairs, answer))


_Answer = tuple[Action, tuple[Step, ...]]


def _answer(policy: Policy, custom_vmms: Mapping[str, Vmm], question: _Question) -> _Answer:
    facts = Facts(question.host, question.default_page, question.numbering, custom_vmms)
    steps = merge_results(run_stages(question.notification, question.block, policy, facts).stage_results).steps
    return headline(steps), steps


# Unknown facts


def _unknown_facts(question: _Question, assumed: frozenset[str], policy: Policy) -> list[_Axis]:
    host, block = question.host, question.block
    axes = []
    if NOTIFICATION_TYPE in assumed:
        axes.append(_Axis("notification", {name: partial(_with_notification, name) for name in _NOTIFICATIONS}))
    has_types = block is not None and any(entry.section_type == ARM_PROCESSOR for entry in block.entries)
    if has_types and (host.arm_error_types is None or ARM_ERROR_TYPES in assumed):
        requires = {} if policy.behaviours.arm_error_types_heeded else _WITH_FIRMWARE_NUMBERING
        axes.append(_Axis("host.arm_error_types", {name: partial(_with_numbering, name) for name in NUMBERINGS}, requires))
    axes += [*_unknown_pages(question), *_unknown_tasks(question)]
    if host.sysctl is None:
        settings = {str(value): partial(_with_sysctl, "early_kill", value) for value in (0, 1)}
        axes.append(_Axis("host.sysctl.vm.memory_failure_early_kill", settings))
    return axes


_WITH_FIRMWARE_NUMBERING: Final = {"policy.flags.arm_error_types_heeded": ("true",)}
"""A kernel has a numbering of its own, whatever the firmware's."""

_NOTIFICATIONS: Final = (
    *(kind.value for kind in NotificationType if kind is not NotificationType.SEA),
    "sea",
    "sea taken from the kernel",
    "sea taken from a guest",
)


def _with_notification(name: str, question: _Question) -> _Question:
    kind, _, context = name.partition(" ")
    taken_from = context.rpartition(" ")[2] or "user"
    return question._replace(
        notification=question.notification.model_copy(update={"type": NotificationType(kind), "taken_from": taken_from})
    )


def _with_numbering(name: str, question: _Question) -> _Question:
    return question._replace(numbering=name)


def _unknown_pages(question: _Question) -> Iterator[_Axis]:
    """Yield the axis of pages without a fact or of unknown state, or else of mapped pages that may be dirty."""
    if question.block is None or not (addresses := physical_addresses(question.block)):
        return
    facts = Facts(question.host)
    pages = [facts.page_at(address) for address in addresses]
    if any(page is None or page.state is PageState.UNKNOWN for page in pages):
        yield _Axis("page", {name: partial(_with_page, name) for name in _PAGES})
    elif any(page is not None and page.dirty is None and page.mappings for page in pages):
        yield _Axis("page.dirty", {name: partial(_with_dirty, dirty) for name, dirty in (("true", True), ("false", False))})


def _page_readings() -> Iterator[tuple[str, tuple[PageState, bool | None]]]:
    for state in PageState:
        if state in MAPPED_STATES:
            yield f"{state.value} dirty", (state, True)
            yield f"{state.value} clean", (state, False)
        elif state is not PageState.UNKNOWN:
            yield state.value, (state, None)


_PAGES: Final = dict(_page_readings())

MAX_READINGS: Final = len(_NOTIFICATIONS) * len(NUMBERINGS) * len(_PAGES) * 3 * 2
"""Upper limit of the points of the grid: notifications, numberings, pages, kill policies, `vm.memory_failure_early_kill`."""


def _with_page(name: str, question: _Question) -> _Question:
    """Return the question with all pages of unknown state in this one; a fact that says `dirty` keeps it."""
    state, dirty = _PAGES[name]
    host = question.host
    if state is PageState.NO_STRUCT_PAGE and host.valid_ranges is None:
        host = host.model_copy(update={"valid_ranges": ()})
    if host.pages:
        host = host.model_copy(update={"pages": tuple(_in_state(page, state, dirty) for page in host.pages)})
    return question._replace(host=host, default_page=Page(physical_address=0, state=state, dirty=dirty))


def _in_state(page: Page, state: PageState, dirty: bool | None) -> Page:
    if page.state is not PageState.UNKNOWN:
        return page if page.dirty is not None or dirty is None else page.model_copy(update={"dirty": dirty})
    return page.model_copy(update={"state": state, "dirty": dirty if page.dirty is None else page.dirty})


def _with_dirty(dirty: bool, question: _Question) -> _Question:
    pages = [page.model_copy(update={"dirty": dirty}) if page.dirty is None else page for page in question.host.pages or ()]
    return question._replace(host=question.host.model_copy(update={"pages": tuple(pages)}))


_KILL_POLICIES: Final[tuple[MceKill, ...]] = ("default", "early", "late")


def _unknown_tasks(question: _Question) -> Iterator[_Axis]:
    """Yield the axis of processes that map a page or were interrupted, and whose kill policy the event does not say."""
    host = question.host
    known = {task.pid for task in host.tasks or ()}
    pids = dict.fromkeys(mapping.pid for page in host.pages or () for mapping in page.mappings)
    if host.current is not None:
        pids[host.current.pid] = None
    if unknown := tuple(pid for pid in pids if pid not in known):
        yield _Axis("task.mce_kill", {kill: partial(_with_tasks, unknown, kill) for kill in _KILL_POLICIES})


def _with_tasks(pids: Sequence[int], kill: MceKill, question: _Question) -> _Question:
    tasks = [Task(pid=pid, mce_kill=kill) for pid in pids]
    return question._replace(host=question.host.model_copy(update={"tasks": (*(question.host.tasks or ()), *tasks)}))


def _with_sysctl(name: str, value: int, question: _Question) -> _Question:
    sysctl = (question.host.sysctl or Sysctl()).model_copy(update={name: value})
    return question._replace(host=question.host.model_copy(update={"sysctl": sysctl}))


# Conditions


class _Group(NamedTuple):
    """Readings of some axes with the same action."""

    when: tuple[tuple[str, tuple[str, ...]], ...]
    action: Action
    readings: int


def _conditions(question: _Question, axes: Sequence[_Axis], answer: Callable[[_Question], _Answer]) -> Iterator[Condition]:
    """Yield conditions that together cover each reading once: the fewest in the order of the axes."""
    for when, action, readings in _groups(question, axes, answer):
        conditions = dict(when)
        first = reduce(_apply, (axis.readings[conditions[axis.fact][0]] for axis in axes if axis.fact in conditions), question)
        rest = reduce(_apply, (next(iter(axis.readings.values())) for axis in axes if axis.fact not in conditions), first)
        required = {name: values for axis in axes if axis.fact in conditions for name, values in axis.requires.items()}
        yield Condition(conditions | required, action, readings, answer(rest)[1])


def _apply(question: _Question, change: _Change) -> _Question:
    return change(question)


def _groups(question: _Question, axes: Sequence[_Axis], answer: Callable[[_Question], _Answer]) -> tuple[_Group, ...]:
    """Return the groups of a grid: values of the first axis that lead to the same groups of the rest are one value."""
    if not axes:
        return (_Group((), answer(question)[0], 1),)
    axis, rest = axes[0], axes[1:]
    alike: dict[tuple[_Group, ...], list[str]] = {}
    for name, change in axis.readings.items():
        alike.setdefault(_groups(change(question), rest, answer), []).append(name)
    if len(alike) == 1:
        return tuple(group._replace(readings=group.readings * len(axis.readings)) for group in next(iter(alike)))
    return tuple(
        _Group(((axis.fact, tuple(names)), *group.when), group.action, group.readings * len(names))
        for groups, names in alike.items()
        for group in groups
    )


# Smallest change

_MAX_ITEMS: Final = 4
"""Sections and pages that are changed one by one."""

_SYSCTLS: Final = ("early_kill", "recovery", "enable_soft_offline", "panic_on_unrecoverable", "panic_on_oops")

MAX_CHANGES: Final = 128
"""Upper limit of changes of one input that are tried."""


def _changes(question: _Question, axes: Sequence[_Axis]) -> list[tuple[InputChange, _Change]]:
    """Return changes of one input each, those of unknown facts first."""
    unknown = ((InputChange(axis.fact, name), change) for axis in axes if not axis.requires for name, change in axis.readings.items())
    return list(islice(chain(unknown, _all_changes(question)), MAX_CHANGES))


def _all_changes(question: _Question) -> Iterator[tuple[InputChange, _Change]]:
    host, notification = question.host, question.notification
    yield from _page_changes(host)
    yield from _task_changes(host)
    sysctl = host.sysctl or Sysctl()
    for name in _SYSCTLS:
        value = 0 if getattr(sysctl, name) else 1
        alias = Sysctl.model_fields[name].alias
        yield InputChange(f"/host/sysctl/{alias}", str(value)), partial(_with_sysctl, name, value)
    for kind in NotificationType:
        if kind is not notification.type:
            yield InputChange("/notification/type", kind.value), partial(_with_field, "type", kind)
    for context in ("user", "kernel", "guest"):
        if context != notification.taken_from:
            yield InputChange("/notification/taken_from", context), partial(_with_field, "taken_from", context)
    yield from _record_changes(question.block)


def _page_changes(host: Host) -> Iterator[tuple[InputChange, _Change]]:
    for index, page in enumerate((host.pages or ())[:_MAX_ITEMS]):
        if page.dirty is not None:
            yield _page_change(index, "dirty", not page.dirty)
        yield _page_change(index, "poisoned", not page.poisoned)
        for state in (PageState.PAGE_CACHE, PageState.ANONYMOUS, PageState.KERNEL, PageState.FREE):
            if state is not page.state:
                yield _page_change(index, "state", state)


def _page_change(index: int, name: str, value: Any) -> tuple[InputChange, _Change]:
    text = value.value if isinstance(value, PageState) else str(value).lower()
    return InputChange(f"/host/pages/{index}/{name}", text), partial(_with_page_field, index, name, value)


def _with_page_field(index: int, name: str, value: Any, question: _Question) -> _Question:
    pages = list(question.host.pages or ())
    pages[index] = pages[index].model_copy(update={name: value})
    return question._replace(host=question.host.model_copy(update={"pages": tuple(pages)}))


def _task_changes(host: Host) -> Iterator[tuple[InputChange, _Change]]:
    for index, task in enumerate((host.tasks or ())[:_MAX_ITEMS]):
        kills = [task.mce_kill, *(thread.mce_kill for thread in task.threads)]
        for kill in _KILL_POLICIES:
            if any(known != kill for known in kills):
                yield InputChange(f"/host/tasks/{index}/mce_kill", kill), partial(_with_kill, index, kill)


def _with_kill(index: int, kill: MceKill, question: _Question) -> _Question:
    """Return the question with the kill policy of a process and of its threads."""
    tasks = list(question.host.tasks or ())
    threads = tuple(Thread(tid=thread.tid, mce_kill=kill) for thread in tasks[index].threads)
    tasks[index] = tasks[index].model_copy(update={"mce_kill": kill, "threads": threads})
    return question._replace(host=question.host.model_copy(update={"tasks": tuple(tasks)}))


def _with_field(name: str, value: Any, question: _Question) -> _Question:
    return question._replace(notification=question.notification.model_copy(update={name: value}))


_BLOCK_SEVERITY_AT: Final = 16
"""Offset of the severity in a status block (ACPI 6.5 18.3.2.7.1)."""
_SECTION_SEVERITY_AT: Final = 16
"""Offset of the severity in a data entry (ACPI 6.5 table 18.12)."""


def _record_changes(block: StatusBlock | None) -> Iterator[tuple[InputChange, _Change]]:
    if block is None:
        return
    yield from _severity_changes("/status_block/severity", _BLOCK_SEVERITY_AT, block.error_severity)
    for index, entry in enumerate(block.entries[:_MAX_ITEMS]):
        pointer = f"/status_block/sections/{index}/severity"
        yield from _severity_changes(pointer, entry.offset + _SECTION_SEVERITY_AT, entry.error_severity)
    yield InputChange("/status_block", "absent"), _without_record


def _severity_changes(pointer: str, offset: int, known: int) -> Iterator[tuple[InputChange, _Change]]:
    for severity in Severity:
        if severity != known:
            yield InputChange(pointer, severity.name.lower()), partial(_with_severity, offset, severity)


def _with_severity(offset: int, severity: Severity, question: _Question) -> _Question:
    data = bytearray(b"" if question.block is None else question.block.data)
    data[offset : offset + 4] = severity.to_bytes(4, "little")
    return question._replace(block=parse_block(bytes(data)))


def _without_record(question: _Question) -> _Question:
    return question._replace(block=None)


def _smallest_change(
    question: _Question,
    action: Action,
    changes: Sequence[tuple[InputChange, _Change]],
    most_pairs: int,
    answer: Callable[[_Question], _Answer],
) -> SmallestChange | None:
    """Return the first single change that leads to another action, else the first two changes of different inputs."""
    pairs = (pair for pair in combinations(changes, 2) if not _overlap(pair[0][0].input, pair[1][0].input))
    for chosen in chain(zip(changes), islice(pairs, most_pairs)):
        other, plan = answer(reduce(_apply, (change for _, change in chosen), question))
        if other is not action:
            return SmallestChange(tuple(named for named, _ in chosen), other, plan)
    return None


def _overlap(one: str, other: str) -> bool:
    """Return whether two pointers lead to the same input, or one to a part of the other's."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
