"""Generator of the committed decision grids: `make tables` writes policies/catalog/grids.toml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decision_grid import GridSummary, summarize_grid
from tests.paths import ROOT

GRIDS: Final = ROOT / "policies/catalog/grids.toml"
POLICIES: Final = ("linux-5.10.223", "linux-6.1.192", "linux-6.12.107", "linux-7.3.4", "uniform")
HEAD: Final = """\
# The decision grids of recorded kernels and of `uniform` (policies/decision_grid.py): written by `make tables`, compared by the tests and
# by `ras-triage check-tables`. A changed line is a changed behaviour.
"""


def lines_of(summary: GridSummary) -> Iterator[str]:
    """Yield the table of one policy: digest and number of points, then points by notification and action."""
    yield f'\n["{summary.policy}"]'
    yield f'digest = "{summary.digest}"'
    yield f"points = {summary.points}"
    for notification, counts in summary.actions.items():
        yield f"actions.{notification} = {{ {', '.join(f'{action} = {count}' for action, count in counts.items())} }}"


def main() -> None:
    """Write the file."""
    tables = ["\n".join(lines_of(summarize_grid(resolve_policy(name)))) for name in POLICIES]
    GRIDS.write_text(HEAD + "\n".join(tables) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
