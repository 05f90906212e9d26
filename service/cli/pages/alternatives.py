"""Page with the alternatives of one event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action, SmallestChange
from ras_triage.service.api.decision_response import AlternativesResponse
from ras_triage.service.cli.pages.decision import ACTION_COLOURS
from ras_triage.service.cli.pages.layout import DIM, HEADING, pairs, section, text


def alternatives_page(found: AlternativesResponse) -> Group:
    """Return the page: the action, the conditions that lead to each action, and the smallest change."""
    return Group(*_parts(found))


def _parts(found: AlternativesResponse) -> Iterator[RenderableType]:
    yield Text.assemble(_action(found.action), "  ", text(found.policy.name, HEADING), text(" with the assumed facts", DIM))
    yield Text()
    unknown = pairs((fact.fact, f"{len(fact.readings)} readings") for fact in found.unknown)
    yield section("Unknown", unknown if found.unknown else Text("nothing that matters here", DIM))
    yield section(f"Actions of all {found.readings} combinations", _conditions(found))
    yield section("Smallest change", *_smallest(found.smallest_change))


def _conditions(found: AlternativesResponse) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True, style=DIM)
    grid.add_column()
    for condition in found.conditions:
        grid.add_row(_action(condition.action), str(condition.readings), text(_words(condition.when) or "always"))
    return grid


def _words(when: Mapping[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{fact}: {', '.join(values)}" for fact, values in when.items())


def _smallest(change: SmallestChange | None) -> Iterator[Text]:
    if change is None:
        yield Text("none of the changes that were tried leads to another action", DIM)
        return
    changes = " and ".join(f"{one.input} = {one.value}" for one in change.changes)
    yield Text.assemble(_action(change.action), text(f" with {changes}"))


def _action(action: Action) -> Text:
    return Text(action.upper(), f"bold {ACTION_COLOURS[action]}")
