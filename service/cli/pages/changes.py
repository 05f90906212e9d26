"""Pages with changes between the decisions under two policies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action
from ras_triage.service.api.replays.changes import ChangedDecision, ComparisonFailure, DecisionChanges, GroupChange, RuleChange
from ras_triage.service.cli.counts import plural
from ras_triage.service.cli.pages.decision import ACTION_COLOURS
from ras_triage.service.cli.pages.layout import DIM, HEADING, join_lines, section, text

_SHOWN_GROUPS: Final = 10
_SHOWN_EXAMPLES: Final = 3
"""Groups of each field and examples of each two actions that are shown."""

_TITLES: Final = {
    "section": "By section",
    "notification": "By notification type",
    "kernel": "By kernel of the event",
    "source": "By source",
    "rule": "By the first rule with another outcome",
}


def changes_page(changes: DecisionChanges, before: str, after: str) -> RenderableType:
    """Return the page with the changes from one policy to another."""
    counts = f"{plural(changes.compared, 'error')} compared, {changes.changed} decided differently"
    head = [text(f"{before} → {after}", HEADING), text(counts)]
    body = [*_actions(changes, before, after), *_groups(changes.groups), *_examples(changes.examples)] if changes.compared else []
    return Group(*head, *body, *_failures(changes.failures))


def _actions(changes: DecisionChanges, before: str, after: str) -> Iterator[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(text(before))
    table.add_column(text(after))
    table.add_column("errors", justify="right")
    table.add_column("decided differently", justify="right")
    for one in changes.actions:
        table.add_row(_action(one.before), _action(one.after), str(one.count), str(one.changed))
    yield table


def _action(action: Action) -> Text:
    return text(action, f"bold {ACTION_COLOURS[action]}")


def _arrow(before: Action, after: Action) -> Text:
    return Text.assemble(_action(before), " → ", _action(after)) if before != after else Text.assemble(_action(before), ", another plan")


def _groups(groups: Sequence[GroupChange]) -> Iterator[RenderableType]:
    for field, title in _TITLES.items():
        found = [group for group in groups if group.field == field]
        if not any(group.value for group in found):
            continue
        table = Table.grid(padding=(0, 2))
        for group in found[:_SHOWN_GROUPS]:
            table.add_row(Text(str(group.count), justify="right"), text(group.value or "none"), _arrow(group.before, group.after))
        more = [text(f"and {len(found) - _SHOWN_GROUPS} more", DIM)] if len(found) > _SHOWN_GROUPS else []
        yield section(title, table, *more)


def _examples(examples: Sequence[ChangedDecision]) -> Iterator[RenderableType]:
    shown: dict[tuple[Action, Action], int] = {}
    rows: list[RenderableType] = []
    for example in examples:
        actions = example.before, example.after
        shown[actions] = shown.get(actions, 0) + 1
        if shown[actions] <= _SHOWN_EXAMPLES:
            rows.append(_example(example))
    if rows:
        yield section("Examples", *rows)


def _example(example: ChangedDecision) -> RenderableType:
    about = ", ".join(filter(None, (example.source, example.notification, *example.sections)))
    first = Text.assemble(text(example.id or example.place or "", "bold"), text(f" ({about}): "), _arrow(example.before, example.after))
    return join_lines(first, *map(_rule, example.rules[:1]), Text())


def _rule(rule: RuleChange) -> Text:
    mirrors = f" ({rule.mirrors})" if rule.mirrors else ""
    return text(f"  {rule.rule}{mirrors}: {rule.before or 'does not apply'} → {rule.after or 'does not apply'}", DIM)


def _failures(failures: Sequence[ComparisonFailure]) -> Iterator[RenderableType]:
    if failures:
        lines = (text(f"{plural(one.count, 'error')}: {one.detail}", "yellow") for one in failures)
        yield section("Not decided", *lines)
