"""Pages with lists and counts of stored decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action
from ras_triage.service.cli.pages.decision import ACTION_COLOURS
from ras_triage.service.cli.pages.layout import DIM, text
from ras_triage.service.client.results import Stats, Summary

_WIDE: Final = 120
"""Columns of a terminal from which times are whole and policies are shown."""
_SHORTEST_ID: Final = 13
"""Characters of an id that have its time in milliseconds (RFC 9562 5.7)."""
_NARROWEST: Final = 5


def list_page(decisions: Sequence[Summary], width: int) -> RenderableType:
    """Return the table of decisions, a line each, at most `width` columns wide. Ids are shortened as long as they differ."""
    if not decisions:
        return Text("no decisions", DIM)
    wide = width >= _WIDE
    ids = _short_ids([summary.id for summary in decisions])
    names = ("decided", "action", "source", "error", "address", *(["policy"] if wide else []), "id")
    rows = [_cells(summary, identity, wide=wide) for summary, identity in zip(decisions, ids, strict=True)]
    gap = 2 if wide else 1
    widths = _fitting([max(cell.cell_len for cell in column) for column in zip(map(Text, names), *rows, strict=True)], width, gap)
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style=DIM)
    for name, columns in zip(names, widths, strict=True):
        table.add_column(name, width=columns, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _cells(summary: Summary, identity: str, *, wide: bool) -> list[Text]:
    when = utc_second(summary.decided_at)
    return [
        text(when if wide else when[len("2026-") :]),
        text(summary.action, _style(summary.action)),
        text(summary.source or "-"),
        text(_error_text(summary)),
        text(_addresses(summary) or "-"),
        *([text(summary.policy.name, DIM)] if wide else []),
        text(identity),
    ]


def _short_ids(ids: Sequence[str]) -> list[str]:
    """Return the shortest prefixes of ids that differ from each other."""
    length = next((size for size in range(_SHORTEST_ID, 36) if len({identity[:size] for identity in ids}) == len(set(ids))), 36)
    return [identity[:length] for identity in ids]


def _fitting(widths: list[int], available: int, gap: int) -> list[int]:
    """Return widths of columns that fit with `gap` spaces between them; the widest in the middle become narrower."""
    excess = sum(widths) + gap * (len(widths) - 1) - available
    while excess > 0 and (widest := max(range(2, len(widths) - 1), key=lambda index: widths[index])) and widths[widest] > _NARROWEST:
        widths[widest] -= 1
        excess -= 1
    return widths


def line(summary: Summary) -> Text:
    """Return a decision as summary line."""
    return Text.assemble(
        text(utc_second(summary.decided_at), DIM),
        "  ",
        text(f"{summary.action:9}", _style(summary.action)),
        "  ",
        text(f"{_error_text(summary)}; {_location(summary)}"),
        "  ",
        text(summary.id, DIM),
    )


def _style(action: str) -> str:
    return f"bold {ACTION_COLOURS[Action(action)]}" if action in ACTION_COLOURS else "bold"


def utc_second(rfc3339: str) -> str:
    """Return an RFC 3339 time without its fraction and zone."""
    return rfc3339[:19].replace("T", " ")


def _error_text(summary: Summary) -> str:
    named = [summary.notification, *([summary.severity] if summary.severity else []), ", ".join(summary.sections) or "no record"]
    return " ".join(named)


def _location(summary: Summary) -> str:
    return ", ".join(filter(None, (summary.source or "no source", _addresses(summary))))


def _addresses(summary: Summary) -> str:
    more = len(summary.physical_addresses) - 2
    return ", ".join(summary.physical_addresses[:2]) + (f" and {more} more" if more > 0 else "")


def stats_page(stats: Stats) -> RenderableType:
    """Return the table of counts, a row for each bucket and group."""
    if not stats.buckets:
        return Text("no decisions", DIM)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(f"from, for {_bucket_name(stats.bucket_s)}", no_wrap=True)
    for field in stats.group_by:
        table.add_column(text(field), overflow="fold")
    table.add_column("decisions", justify="right")
    for bucket in stats.buckets:
        for index, group in enumerate(bucket.groups):
            fields = (text(str(group.get(field) or "none")) for field in stats.group_by)
            last = index == len(bucket.groups) - 1
            table.add_row(text(utc_second(bucket.start) if index == 0 else ""), *fields, str(group["count"]), end_section=last)
    return table


def _bucket_name(seconds: int) -> str:
    named = {60: "a minute", 3600: "an hour", 86400: "a day"}
    return named.get(seconds, f"{seconds} s")
