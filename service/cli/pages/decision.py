"""Pages with one decision, at any width from 80 columns, with or without colour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action, Decision, Rationale, Step
from ras_triage.policies.pipeline.record import PREVIOUS_BOOT
from ras_triage.service.cli.pages.layout import DIM, HEADING, join_lines, numbered, pairs, section, text
from ras_triage.service.cli.pages.steps import describe_step, value_text

ACTION_COLOURS = {
    Action.HANDLED: "green",
    Action.SIGNAL: "yellow",
    Action.TRANSLATE: "yellow",
    Action.INJECT: "magenta",
    Action.PANIC: "red",
}

_ACTION_SUMMARIES = {
    Action.HANDLED: "the system continues, no process is interrupted",
    Action.SIGNAL: "a thread is signalled or killed",
    Action.TRANSLATE: "a guest is to be notified",
    Action.INJECT: "a guest takes an exception",
    Action.PANIC: "the kernel panics",
}

_WIDE_COLUMNS = 96
"""Columns from which rule, outcome and kernel function stand side by side."""


def decision_page(decision: Decision) -> Group:
    """Return the page with one decision: headline, plan, rationale."""
    return Group(*_parts(decision))


def _parts(decision: Decision) -> Iterator[RenderableType]:
    yield _headline(decision)
    yield Text()
    yield section("Plan", numbered(step_lines(decision.plan)) if decision.plan else Text("nothing", DIM))
    if decision.next_access or (decision.action is not Action.PANIC and any(step.kind == "memory_failure" for step in decision.plan)):
        yield section("Next access to the page", _next_access(decision))
    if decision.reasons:
        yield section("Depends on", *(text(reason) for reason in decision.reasons))
    yield section("Why", RationaleTable(decision.rationale))
    if decision.assumptions:
        yield section("Assumptions", pairs((known.fact, known.assumed) for known in decision.assumptions))
    if decision.warnings:
        yield section("Warnings", pairs((warning.code, warning.detail) for warning in decision.warnings))


def _headline(decision: Decision) -> Group:
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    action = Text.assemble((decision.action.upper(), f"bold {ACTION_COLOURS[decision.action]}"), f"  {_summary(decision)}")
    head.add_row(action, text(decision.policy.name, HEADING))
    head.add_row(text(_certainty_text(decision)), text(decision.policy.digest[:19], DIM))
    if decision.source is not None:
        head.add_row(text(f"source {decision.source}", DIM), Text())
    return Group(head, Rule(style=DIM))


def _summary(decision: Decision) -> str:
    if any(warning.code == PREVIOUS_BOOT for warning in decision.warnings):
        return "the machine had gone down before this boot; nothing happens now"
    return _ACTION_SUMMARIES[decision.action]


def _certainty_text(decision: Decision) -> str:
    return "certain" if decision.certainty == "certain" else "depends, see below"


_EMPHASIZED = ("signal", "panic", "oops", "inject_serror", "inject_abort", "vmm_exits", "reject")

_MAX_RECORDS = 4
"""Consecutive records for guest pages that are shown one by one."""


def step_lines(steps: Iterable[Step]) -> Iterator[Text]:
    """Yield a line for each step of a plan; of many records for guest pages the first ones and a count."""
    for kind, alike in groupby(steps, key=lambda step: step.kind):
        run = list(alike)
        shown = run[: _MAX_RECORDS - 1] if kind == "record_guest_error" and len(run) > _MAX_RECORDS else run
        for step in shown:
            yield text(describe_step(step), "bold" if kind in _EMPHASIZED else "")
        if len(run) > len(shown):
            yield text(f"{len(run) - len(shown)} more records for guest pages, the last: {describe_step(run[-1])}")


def _next_access(decision: Decision) -> RenderableType:
    return numbered(step_lines(decision.next_access)) if decision.next_access else Text("no signal", DIM)


class RationaleTable:
    """Table of rules: outcome, inputs, and the kernel function, which has a column of its own if the page is wide enough."""

    def __init__(self, rationale: Sequence[Rationale]) -> None:
        self.rationale = rationale

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= _WIDE_COLUMNS
        grid = Table.grid(padding=(0, 2), expand=wide)
        grid.add_column(no_wrap=True, style="cyan")
        grid.add_column(ratio=1 if wide else None)
        grid.add_column(no_wrap=True)
        for rule in self.rationale:
            outcome, mirrors = _outcome(rule), mirrored_function(rule)
            if wide:
                grid.add_row(text(rule.rule), join_lines(*outcome), join_lines(*mirrors))
            else:
                grid.add_row(text(rule.rule), join_lines(*outcome, Text("  ").join(mirrors)) if mirrors else join_lines(*outcome))
        yield grid


def _outcome(rule: Rationale) -> Iterator[Text]:
    yield text(rule.outcome)
    if rule.given:
        yield text(", ".join(f"{name.replace('_', ' ')} {value_text(value)}" for name, value in rule.given.items()), DIM)


def mirrored_function(rule: Rationale) -> list[Text]:
    """Return the kernel function that a rule mirrors and the release that brought it, a line each."""
    if rule.mirrors is None:
        return []
    return [text(rule.mirrors), *([text(f"since {rule.since}", DIM)] if rule.since else [])]
