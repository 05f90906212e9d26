"""Pages with lists and counts of stored decisions."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action
from ras_triage.service.cli.pages.decision import ACTION_COLOURS
from ras_triage.service.cli.pages.layout import DIM, text
from ras_triage.service.client.results import Stats, Summary


def list_page(decisions: Sequence[Summary]) -> RenderableType:
    """Return the list of decisions, two lines each: time and id, action and policy, error and location."""
    if not decisions:
        return Text("no decisions", DIM)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("decided", no_wrap=True)
    table.add_column("action", overflow="fold")
    table.add_column("error, location", overflow="fold")
    for summary in decisions:
        when = Text.assemble(text(utc_second(summary.decided_at)), "\n", text(summary.id, DIM))
        action = Text.assemble(text(summary.action, _style(summary.action)), "\n", text(summary.policy.name, DIM))
        table.add_row(when, action, Text.assemble(text(_error_text(summary)), "\n", text(_location(summary), DIM)))
    return table


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
    places = [summary.source or "no source", *summary.physical_addresses[:2]]
    more = len(summary.physical_addresses) - 2
    return ", ".join(places) + (f" and {more} more" if more > 0 else "")


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
