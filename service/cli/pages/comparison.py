"""Pages that compare the decisions of one event under several policies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Decision, Rationale
from ras_triage.service.cli.pages.decision import ACTION_COLOURS, mirrored_function, step_lines
from ras_triage.service.cli.pages.layout import DIM, HIGHLIGHT, join_lines, section, text

DIFFERS = "≠"
"""Marks lines that are not in every column; visible without colour."""


def comparison_page(decisions: Sequence[Decision]) -> Group:
    """Return the page that shows decisions side by side, with differences marked."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("")
    for decision in decisions:
        table.add_column(text(decision.policy.name), ratio=1)
    actions = [[text(decision.action.upper(), f"bold {ACTION_COLOURS[decision.action]}")] for decision in decisions]
    table.add_row("action", *_marked_row(actions))
    table.add_row("", *_marked_row([[text(decision.certainty)] for decision in decisions]), end_section=True)
    table.add_row("plan", *_marked_row([list(step_lines(decision.plan)) for decision in decisions], "nothing"), end_section=True)
    table.add_row("next\naccess", *_marked_row([list(step_lines(decision.next_access)) for decision in decisions], "no signal"))
    if any(decision.reasons for decision in decisions):
        table.add_section()
        table.add_row("because", *_marked_row([[text(reason) for reason in decision.reasons] for decision in decisions]))
    return Group(table, section("Different rules", _different_rules(decisions)))


def demo_page(introduction: str, decisions: Sequence[Decision]) -> Group:
    """Return a comparison with an introduction."""
    return Group(text(introduction.replace("\n", " ")), comparison_page(decisions))


def _marked_row(columns: list[list[Text]], nothing: str = "") -> list[RenderableType]:
    """Return a row of cells; a line that is not in every column is marked."""
    plains = [{line.plain for line in lines} for lines in columns]
    shared = set.intersection(*plains)
    return [_cell(lines or [Text(nothing, DIM)], shared, all(plains)) for lines in columns]


def _cell(lines: list[Text], shared: set[str], filled: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        differs = line.plain not in shared and (filled or line.style != DIM)
        grid.add_row(Text(DIFFERS if differs else " ", HIGHLIGHT), line)
    return grid


def _different_rules(decisions: Sequence[Decision]) -> RenderableType:
    rows = [row for row in zip_longest(*_aligned([decision.rationale for decision in decisions])) if _is_different(row)]
    if not rows:
        return Text("the same rules apply, with the same outcome", DIM)
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="cyan", max_width=26, overflow="fold")
    for _ in decisions:
        table.add_column(ratio=1, overflow="fold")
    for row in rows:
        name = next(rule.rule for rule in row if rule is not None)
        table.add_row(text(name), *(_rule_cell(rule) for rule in row))
    return table


def _rule_cell(rule: Rationale | None) -> Text:
    if rule is None:
        return Text("-", DIM)
    return join_lines(text(rule.outcome), *(Text.assemble(line, style=DIM) for line in mirrored_function(rule)))


def _is_different(row: Sequence[Rationale | None]) -> bool:
    return len({(rule.outcome, rule.mirrors) if rule else None for rule in row}) > 1


def _aligned(rationales: Sequence[Sequence[Rationale]]) -> list[list[Rationale | None]]:
    """Return the rules of each column, padded so that each rule has one row; a rule that applies twice has two rows."""
    numbered = [_number_rules(rationale) for rationale in rationales]
    order = list(dict.fromkeys(key for column in numbered for key in column))
    return [[column.get(key) for key in order] for column in numbered]


def _number_rules(rationale: Sequence[Rationale]) -> dict[tuple[str, int], Rationale]:
    numbered_rules: dict[tuple[str, int], Rationale] = {}
    counts: dict[str, int] = {}
    for rule in rationale:
        counts[rule.rule] = counts.get(rule.rule, 0) + 1
        numbered_rules[rule.rule, counts[rule.rule]] = rule
    return numbered_rules
