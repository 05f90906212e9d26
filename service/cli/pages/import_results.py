"""Pages with the results of an import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ras_triage.models.formats.results import FoundError, UnmatchedAction, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.models.observed import ObservedAction
from ras_triage.models.records.block_summary import physical_addresses, section_names
from ras_triage.models.records.status_block import parse_block
from ras_triage.models.severity import severity_name
from ras_triage.policies.agreement import Agreement
from ras_triage.service.cli.counts import listed, plural
from ras_triage.service.cli.pages.decision import decision_page
from ras_triage.service.cli.pages.layout import pairs, section, text
from ras_triage.service.engine.imports.decisions import Result
from ras_triage.service.engine.imports.error_groups import ErrorGroup, ErrorGroups
from ras_triage.service.engine.imports.results import ImportCounts, position_text

_VERDICTS = {
    "agree": "the decision agrees with the kernel log",
    "differ": "the decision DIFFERS from the kernel log",
    "cannot_tell": "the kernel log neither confirms nor contradicts the decision",
}


def result_page(result: Result, file: str) -> RenderableType:
    """Return the page with one item of a file: an error with its decision, or a line for anything else."""
    item = result.item
    if isinstance(item, FoundError):
        return Group(*_error(result, item, file))
    where = f"{file}, {position_text(item.place)}" if position_text(item.place) else file
    if isinstance(item, UnreadableRecord):
        return text(f"not read: {where}: {item.reason}", "yellow")
    if isinstance(item, UnmatchedAction):
        return Group(*(text(f"kernel message without a record: {where}: {message}") for message in _messages(item)))
    return text(f"{item.kind}: {where}: {item.table}: " + ", ".join(f"{name}={value!r}" for name, value in item.fields)[:200])


def _messages(action: UnmatchedAction) -> Iterator[str]:
    observed = action.observed
    actions: tuple[ObservedAction, ...] = (*observed.memory_failures, *observed.soft_offlines, *observed.signals, *observed.panics)
    for one in (*actions, *observed.oopses, *observed.serrors, *observed.recoveries, *observed.notes):
        yield one.said


def _error(result: Result, found: FoundError, file: str) -> Iterator[RenderableType]:
    yield Rule(text(f"{file}, {position_text(found.place)}".removesuffix(", "), "bold"), align="left")
    yield text(_error_summary(found), "bold")
    yield Text()
    if result.decision is not None:
        yield decision_page(result.decision)
    if result.problem is not None:
        yield section("Not decided", text(result.problem.detail))
    if result.decision is not None and result.decision.alternatives:
        others = [(_condition(other.when), f"action would be {other.action}") for other in result.decision.alternatives]
        yield section("Alternatives", pairs(others))
    if result.agreement is not None:
        yield section("Kernel messages", *_agreement(result.agreement))
    if found.assumed:
        yield section("Assumed by the import", pairs((one.field, f"{one.assumed}: {one.because}") for one in found.assumed))
    if found.lost:
        yield section("Not in the source", *(text(phrase) for phrase in found.lost))


def _condition(when: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in when.items())


def _error_summary(found: FoundError) -> str:
    """Return severity, sections and addresses in a line."""
    event = found.event
    if event.status_block is None:
        return f"{found.format}: no record, notified by {_exception_text(event.notification)}"
    block = parse_block(event.status_block)
    addresses = ", ".join(f"{address:#x}" for address in physical_addresses(block)) or "no address"
    sections = ", ".join(section_names(block)) or "no section"
    return f"{found.format}: {severity_name(block.error_severity)}, {sections}, {addresses}, notified by {event.notification.type}"


def _exception_text(notification: Notification) -> str:
    """Return the notification type, and what is known of the exception."""
    known = {"syndrome": notification.syndrome, "fault address": notification.fault_address}
    facts = [f"{name} {value:#x}" for name, value in known.items() if value is not None]
    return ", ".join([notification.type, *facts, f"taken from {notification.taken_from}" if facts else ""]).removesuffix(", ")


def _agreement(agreement: Agreement) -> Iterator[RenderableType]:
    yield text(_VERDICTS[agreement.verdict], "bold")
    for compared in agreement.comparisons:
        because = f" ({compared.because})" if compared.because else ""
        yield text(f"line {compared.line}: {compared.observed}" if compared.line else compared.observed)
        yield text(f"    decided: {compared.decided}: {compared.verdict.replace('_', ' ')}{because}", "dim")


_SHOWN: Final = 100
"""Groups of a kind of error that are shown; the others are counted."""


def groups_page(groups: ErrorGroups) -> RenderableType:
    """Return the counts of errors, a table for each kind of error."""
    kinds: dict[str, list[tuple[ErrorGroup, int]]] = {}
    for group, count in groups.counts.most_common():
        kinds.setdefault(group.kind, []).append((group, count))
    return Group(*(_kind_section(kind, counted) for kind, counted in kinds.items()))


def _kind_section(kind: str, counted: list[tuple[ErrorGroup, int]]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("errors", justify="right")
    for name in ("severity", "place", "page", "action"):
        table.add_column(name, overflow="fold")
    for group, count in counted[:_SHOWN]:
        table.add_row(str(count), *(text(value or "-") for value in (group.severity, group.place, group.page, group.action)))
    more = [text(f"and {len(counted) - _SHOWN} more groups")] if len(counted) > _SHOWN else []
    return section(f"{kind}: {plural(sum(count for _, count in counted), 'error')}", table, *more)


def summary_page(counts: ImportCounts) -> RenderableType:
    """Return the counts of an import."""
    lines = [f"{plural(counts.errors, 'error')} found, {counts.decided} decided{listed(counts.actions)}"]
    lines += [f"compared with the kernel log{listed(counts.agreement)}"] if counts.agreement else []
    lines += [f"{counts.refused} could not be decided"] if counts.refused else []
    lines += [f"{counts.unread} could not be read"] if counts.unread else []
    lines += [f"{plural(counts.observations, 'kernel message')} without a record"] if counts.observations else []
    lines += [f"{plural(counts.raw, 'row')} without a decidable error"] if counts.raw else []
    return Group(Rule(style="dim"), *(text(line) for line in lines))
