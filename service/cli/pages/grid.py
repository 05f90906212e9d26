"""Page with the decision grids of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from rich import box
from rich.console import Group
from rich.table import Table

from ras_triage.models.decision import Action
from ras_triage.policies.decision_grid import GridSummary
from ras_triage.service.cli.pages.layout import DIM, text

_MAX_FAULTS: Final = 20
_STATES: Final[Mapping[str, str]] = {
    "same": "as committed",
    "different": "differs from the committed grid",
    "not_committed": "not committed",
}


def grid_page(checked: Sequence[tuple[GridSummary, Literal["same", "different", "not_committed"]]]) -> Group:
    """Return the page: points by action for each policy, then the faults."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for name in ("points", *Action):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("digest", style=DIM, no_wrap=True)
    table.add_column("grid")
    for grid, state in checked:
        counts = [str(grid.totals[action]) for action in Action]
        table.add_row(text(grid.policy), str(grid.points), *counts, text(grid.digest[7:19]), _STATES[state])
    faults = [fault for grid, _ in checked for fault in (f"{grid.policy}: {fault}" for fault in grid.faults)]
    more = [f"... and {len(faults) - _MAX_FAULTS} more"] if len(faults) > _MAX_FAULTS else []
    found = faults[:_MAX_FAULTS] + more or ["Every point has exactly one outcome."]
    return Group(table, *map(text, found))
