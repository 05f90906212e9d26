"""Command `check-tables`: decision grid of policies."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Literal, NamedTuple

from pydantic_core import to_json

from ras_triage.policies.decision_grid import GridSummary, committed_grids, summarize_grid
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, known_policy, settings_of
from ras_triage.service.cli.output import INCOMPLETE, print_page, write_json

State = Literal["same", "different", "not_committed"]
"""Whether a grid's digest is the one that this version of the program was released with."""


class CheckedGrid(NamedTuple):
    """A grid, and how it compares with the committed one."""

    grid: GridSummary
    state: State


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decide every combination of notification, severities, section, page state and task state, and check that each has exactly one"
        " outcome. Without NAME: the policies whose grid is committed, compared with it."
        " Exit status: 0 sound; 1 a point without one outcome, or another grid than the committed one; 2 bad input."
    )
    add_examples(command, "ras-triage check-tables", "ras-triage check-tables linux-6.12.107", "ras-triage check-tables uniform --json")
    command.add_argument("names", nargs="*", metavar="NAME", help="uniform, linux-<release>, or a custom policy")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    policies = [known_policy(name, settings, "NAME") for name in options.names or committed_grids()]
    checked = [_compare(summarize_grid(policy)) for policy in policies]
    if options.json:
        for grid, state in checked:
            write_json(to_json({"committed": state, **asdict(grid), "totals": grid.totals}))
    else:
        from ras_triage.service.cli.pages.grid import grid_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(grid_page(checked))
    return INCOMPLETE if any(grid.faults or state == "different" for grid, state in checked) else 0


def _compare(grid: GridSummary) -> CheckedGrid:
    committed = committed_grids().get(grid.policy)
    if committed is None:
        return CheckedGrid(grid, "not_committed")
    return CheckedGrid(grid, "same" if committed["digest"] == grid.digest else "different")
