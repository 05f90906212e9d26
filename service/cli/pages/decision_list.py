"""Decisions that a service keeps, as lists and counts to read."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action
from ras_triage.service.cli.pages.decision import ACTION_COLOURS, text
from ras_triage.service.client.results import Stats, Summary

_QUIET = "dim"


def list_page(decisions: Sequence[Summary]) -> RenderableType:
    """Decisions, two lines each: when and under which id, how far it went and under which policy, what it was and where."""
    if not decisions:
        return Text("no decisions", _QUIET)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("decided", no_wrap=True)
    table.add_column("action", overflow="fold")
    table.add_column("what, where", overflow="fold")
    for one in decisions:
        when = Text.assemble(text(moment(one.decided_at)), "\n", text(one.id, _QUIET))
        far = Text.assemble(text(one.action, _style(one.action)), "\n", text(one.policy.name, _QUIET))
        table.add_row(when, far, Text.assemble(text(_what(one)), "\n", text(_where(one), _QUIET)))
    return table


def line(one: Summary) -> Text:
    """A decision in one line."""
    return Text.assemble(
        text(moment(one.decided_at), _QUIET),
        "  ",
        text(f"{one.action:9}", _style(one.action)),
        "  ",
        text(f"{_what(one)}; {_where(one)}"),
        "  ",
        text(one.id, _QUIET),
    )


def _style(action: str) -> str:
    return f"bold {ACTION_COLOURS[Action(action)]}" if action in ACTION_COLOURS else "bold"


def moment(rfc3339: str) -> str:
    """A time in UTC, to the second."""
    return rfc3339[:19].replace("T", " ")


def _what(one: Summary) -> str:
    named = [one.notification, *([one.severity] if one.severity else []), ", ".join(one.sections) or "no record"]
    return " ".join(named)


def _where(one: Summary) -> str:
    places = [one.source or "no source", *one.physical_addresses[:2]]
    more = len(one.physical_addresses) - 2
    return ", ".join(places) + (f" and {more} more" if more > 0 else "")


def stats_page(stats: Stats) -> RenderableType:
    """Counts, a line for each span and group."""
    if not stats.buckets:
        return Text("no decisions", _QUIET)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column(f"from, for {_span(stats.bucket_s)}", no_wrap=True)
    for field in stats.group_by:
        table.add_column(text(field), overflow="fold")
    table.add_column("decisions", justify="right")
    for bucket in stats.buckets:
        for index, group in enumerate(bucket.groups):
            fields = (text(str(group.get(field) or "none")) for field in stats.group_by)
            last = index == len(bucket.groups) - 1
            table.add_row(text(moment(bucket.start) if index == 0 else ""), *fields, str(group["count"]), end_section=last)
    return table


def _span(seconds: int) -> str:
    named = {60: "a minute", 3600: "an hour", 86400: "a day"}
    return named.get(seconds, f"{seconds} s")
