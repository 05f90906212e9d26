"""Text, tables and headings that all pages share.

What comes from a sender may hold terminal control sequences: every text passes through `text`.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ras_triage.service.api.escaping import escape

DIM = "dim"
HEADING = "bold"
HIGHLIGHT = "bold yellow"


def console(*, width: int | None = None) -> Console:
    """Return the console of standard output; `width` in columns, by default that of the terminal."""
    return Console(width=width, highlight=False, markup=False, emoji=False)


def text(value: str, style: str = "") -> Text:
    """Return text with control characters escaped."""
    return Text(escape(value), style)


class EscapedPage:
    """A page whose text is escaped when it is drawn, even if it did not pass through `text`."""

    def __init__(self, page: RenderableType) -> None:
        self.page = page

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for shown, style, control in console.render(self.page, options):
            yield Segment("\n".join(map(escape, shown.split("\n"))), style, control)


def section(title: str, *body: RenderableType) -> Group:
    """Return a heading with an indented body."""
    return Group(text(title, HEADING), *(Padding(part, (0, 0, 0, 2)) for part in body), Text())


def numbered(lines: Iterable[Text]) -> Table:
    """Return a numbered list."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style=DIM)
    grid.add_column()
    for number, line in enumerate(lines, 1):
        grid.add_row(str(number), line)
    return grid


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Return a table of names and values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, value in rows:
        grid.add_row(text(name), text(value, DIM))
    return grid


def join_lines(*lines: Text) -> Text:
    """Return texts as lines of one text."""
    return Text("\n").join(lines)
