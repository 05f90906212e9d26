"""Page with the result of a table of expected decisions."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ras_triage.service.cli.pages.layout import DIM, HEADING, join_lines, section, text
from ras_triage.service.engine.tables.policy_table import CaseResult, TableResult


def table_result_page(result: TableResult) -> Group:
    """Return the page: each case with its differences, then the coverage of rules."""
    cases = Table.grid(padding=(0, 2))
    cases.add_column(no_wrap=True)
    cases.add_column()
    for case in result.cases:
        cases.add_row(*_row(case))
    known = len(result.reached) + len(result.unreached)
    head = Text.assemble(text(result.policy, HEADING), text(f"  {result.digest[:19]}", DIM))
    passed = f"{len(result.cases) - result.failed} of {len(result.cases)} cases as expected"
    unreached = text(", ".join(result.unreached) or "none", DIM)
    return Group(
        head,
        text(passed),
        Text(),
        section("Cases", cases),
        section(f"Rules reached: {len(result.reached)} of {known}; not reached", unreached),
    )


def _row(case: CaseResult) -> tuple[Text, Text]:
    status = Text("FAILED", "bold red") if case.differences else Text("ok", "green")
    return status, join_lines(text(case.name), *(text(difference, "red") for difference in case.differences))
