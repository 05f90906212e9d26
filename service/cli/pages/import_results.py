"""What was imported, as pages to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from ras_triage.models.formats.items import FoundError, UnmatchedAction, UnreadableRecord
from ras_triage.models.observed import ObservedAction
from ras_triage.models.records.block_summary import physical_addresses, section_names
from ras_triage.models.records.status_block import parse
from ras_triage.models.severity import severity_name
from ras_triage.policies.agreement import Agreement
from ras_triage.service.cli.pages.decision import decision_page, pairs, section, text
from ras_triage.service.engine.imports.decisions import Result
from ras_triage.service.engine.imports.results import ImportCounts, position_text

_VERDICTS = {
    "agree": "the decision agrees with what the kernel said",
    "differ": "the decision DIFFERS from what the kernel said",
    "cannot_tell": "nothing can be told from what the kernel said",
}


def result_page(result: Result, file: str) -> RenderableType:
    """One thing that was in a file: an error with its decision, or a line that says what else it is."""
    item = result.item
    if isinstance(item, FoundError):
        return Group(*_error(result, item, file))
    where = f"{file}, {position_text(item.place)}" if position_text(item.place) else file
    if isinstance(item, UnreadableRecord):
        return text(f"not read: {where}: {item.reason}", "yellow")
    if isinstance(item, UnmatchedAction):
        return Group(*(text(f"also said: {where}: {words}") for words in _said(item)))
    return text(f"{item.kind}: {where}: {item.table}: " + ", ".join(f"{name}={told!r}" for name, told in item.fields)[:200])


def _said(loose: UnmatchedAction) -> Iterator[str]:
    seen = loose.observed
    found: tuple[ObservedAction, ...] = (*seen.memory_failures, *seen.soft_offlines, *seen.signals, *seen.panics)
    for one in (*found, *seen.oopses, *seen.serrors, *seen.notes):
        yield one.said


def _error(result: Result, reading: FoundError, file: str) -> Iterator[RenderableType]:
    yield Rule(text(f"{file}, {position_text(reading.place)}".removesuffix(", "), "bold"), align="left")
    yield text(_contents(reading), "bold")
    yield Text()
    if result.decision is not None:
        yield decision_page(result.decision)
    if result.problem is not None:
        yield section("Not decided", text(result.problem.detail))
    if result.decision is not None and result.decision.alternatives:
        others = [(_when(other.when), f"would come to {other.action}") for other in result.decision.alternatives]
        yield section("Read otherwise", pairs(others))
    if result.agreement is not None:
        yield section("What the kernel said", *_agreement(result.agreement))
    if reading.assumed:
        yield section("Assumed for the source", pairs((one.field, f"{one.assumed}: {one.because}") for one in reading.assumed))
    if reading.lost:
        yield section("Lost in the source", *(text(phrase) for phrase in reading.lost))


def _when(when: dict[str, object]) -> str:
    return ", ".join(f"{name} {told}" for name, told in when.items())


def _contents(reading: FoundError) -> str:
    """Severity, sections and addresses, in a line."""
    event = reading.event
    if event.status_block is None:
        return f"{reading.format}: no record, notified by {event.notification.type}"
    block = parse(event.status_block)
    addresses = ", ".join(f"{address:#x}" for address in physical_addresses(block)) or "no address"
    sections = ", ".join(section_names(block)) or "no section"
    return f"{reading.format}: {severity_name(block.error_severity)}, {sections}, {addresses}, notified by {event.notification.type}"


def _agreement(agreement: Agreement) -> Iterator[RenderableType]:
    yield text(_VERDICTS[agreement.verdict], "bold")
    for compared in agreement.comparisons:
        because = f" ({compared.because})" if compared.because else ""
        yield text(f"line {compared.line}: {compared.observed}")
        yield text(f"    decided: {compared.decided}: {compared.verdict.replace('_', ' ')}{because}", "dim")


def summary_page(tally: ImportCounts) -> RenderableType:
    """The counts."""
    lines = [f"{tally.errors} errors found, {tally.decided} decided{_listed(tally.actions)}"]
    lines += [f"beside what the kernel said{_listed(tally.agreement)}"] if tally.agreement else []
    lines += [f"{tally.refused} could not be decided"] if tally.refused else []
    lines += [f"{tally.unread} could not be read"] if tally.unread else []
    lines += [f"{tally.observations} more things that the kernel said it did"] if tally.observations else []
    lines += [f"{tally.raw} rows that are no errors to decide on"] if tally.raw else []
    return Group(Rule(style="dim"), *(text(line) for line in lines))


def _listed(counts: Counter[str]) -> str:
    return ": " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.most_common()) if counts else ""
