"""Pages with decoded status blocks, CPER records and HESTs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from ras_triage.service.api.error_sources import HestResponse
from ras_triage.service.cli.pages.layout import DIM, HIGHLIGHT, section, text
from ras_triage.service.cli.pages.steps import value_text


def decoded_page(decoded: dict[str, Any]) -> Group:
    """Return the page with a status block or CPER record, section by section, with the meanings of codes."""
    parts: list[RenderableType] = []
    if "record" in decoded:
        parts.append(section(f"CPER record, notification {decoded['notification']}", _fields(decoded["record"], {})))
    block = dict(decoded["status_block"])
    sections = block.pop("sections", [])
    parts.append(section("Status block", _fields(block, {})))
    for index, (fields, reading) in enumerate(zip(sections, decoded["readings"], strict=True)):
        parts.append(section(f"Section {index}: {reading['name']}", _fields(fields, reading)))
    return Group(*parts)


_STATUS: Final = {
    "read": "",
    "refused": HIGHLIGHT,
    "skipped": DIM,
    "never_read": HIGHLIGHT,
    "panics": "bold red",
}


def error_sources_page(decoded: HestResponse) -> Group:
    """Return the page with the error sources of a HEST, and what a kernel does with each."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("source", "notification", "status", "why"):
        table.add_column(column, overflow="fold")
    for source in decoded.sources:
        status = source.status
        name = f"type {source.type}" if source.source_id is None else str(source.source_id)
        notification = "" if source.notification is None else str(source.notification)
        table.add_row(text(name), text(notification), text(status.replace("_", " "), _STATUS[status]), text(source.why))
    head = section(f"HEST under {decoded.policy.name}", table)
    return head if decoded.fault is None else Group(head, text(decoded.fault.why, HIGHLIGHT))


def _fields(fields: dict[str, Any], reading: dict[str, Any]) -> Table:
    """Return a table of names, values and meanings."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(min_width=36, overflow="fold")
    grid.add_column(overflow="fold", style=DIM)
    for name, value, meaning in _rows("", fields, reading):
        grid.add_row(text(name), text(value), text(meaning))
    return grid


def _rows(name: str, value: Any, reading: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and meaning of each leaf; names are paths such as `errors[0].type`."""
    if isinstance(value, dict):
        yield from _members(name, value, reading if isinstance(reading, dict) else {})
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        for index, (member, meaning) in enumerate(zip_longest(value, reading if isinstance(reading, list) else [])):
            yield from _rows(f"{name}[{index}]", member, meaning)
    else:
        yield name, value_text(value), "" if reading is None else value_text(reading)


def _members(name: str, value: dict[str, Any], readings: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the fields of an object, then the members that only the meanings have."""
    prefix = f"{name}." if name else ""
    for key, member in value.items():
        if (name or key != "type") and member not in ([], {}):
            yield from _rows(f"{prefix}{key}", member, readings.get(key))
    for key, meaning in readings.items():
        if key not in value and (name or key != "name"):
            yield from _rows(f"{prefix}{key}", meaning, None)
