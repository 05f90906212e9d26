"""Formats of lists and counts that programs read: JSON, NDJSON, CSV, columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pydantic import TypeAdapter
from pydantic_core import to_json

from ras_triage.service.api.csv_rows import csv_rows
from ras_triage.service.api.escaping import escape, escape_json
from ras_triage.service.cli.output import write_bytes, write_json
from ras_triage.service.client import Stats, Summary

DECISION_COLUMNS: Final = (
    *("id", "decided_at", "source", "event_id", "event_key", "policy", "policy_digest", "action", "certainty"),
    *("notification", "severity", "sections", "physical_addresses"),
)
"""Columns of CSV, as of `GET /v1/decisions`."""

PLAIN_COLUMNS: Final = ("decided_at", "id", "action", "source", "notification", "severity", "sections", "physical_addresses", "policy")
"""Columns of plain text."""

_AT_ONCE: Final = 1000

Row = Sequence[object]


def write_decisions(decisions: Iterable[Summary], form: str | None) -> None:
    """Print decisions one by one; without a format as columns with tabs between them."""
    match form:
        case "json":
            _write_array(map(TypeAdapter(Summary).dump_json, decisions))
        case "ndjson":
            for line in map(TypeAdapter(Summary).dump_json, decisions):
                write_json(line)
        case "csv":
            _write_csv(DECISION_COLUMNS, (_row(decision, DECISION_COLUMNS) for decision in decisions))
        case _:
            _write_columns(_row(decision, PLAIN_COLUMNS) for decision in decisions)


def write_counts(stats: Stats, form: str | None) -> None:
    """Print counts: one JSON document, or a row for each group of each bucket."""
    names = ("start", *stats.group_by, "count")
    rows = [{"start": bucket.start, **group} for bucket in stats.buckets for group in bucket.groups]
    match form:
        case "json":
            write_json(TypeAdapter(Stats).dump_json(stats))
        case "ndjson":
            for row in rows:
                write_json(to_json(row))
        case "csv":
            _write_csv(names, ([row.get(name) for name in names] for row in rows))
        case _:
            _write_columns([row.get(name) for name in names] for row in rows)


def _write_array(documents: Iterable[bytes]) -> None:
    before = "["
    for document in documents:
        write_bytes(before.encode() + b"\n" + escape_json(document))
        before = ","
    write_bytes(b"[]\n" if before == "[" else b"\n]\n")


def _write_csv(names: Sequence[str], rows: Iterator[Row]) -> None:
    header = [escape(name) for name in names]
    write_bytes(csv_rows(header, ()))
    while some := list(islice(rows, _AT_ONCE)):
        write_bytes(csv_rows(header, (map(_printable, row) for row in some)).partition(b"\r\n")[2])


def _write_columns(rows: Iterable[Row]) -> None:
    for row in rows:
        write_bytes("\t".join("-" if value in (None, "") else escape(str(value)) for value in row).encode() + b"\n")


def _printable(value: object) -> object:
    return escape(value) if isinstance(value, str) else value


def _row(summary: Summary, names: Sequence[str]) -> list[object]:
    values: dict[str, object] = {
        "policy": summary.policy.name,
        "policy_digest": summary.policy.digest,
        "sections": " ".join(summary.sections),
        "physical_addresses": " ".join(summary.physical_addresses),
    }
    return [values[name] if name in values else getattr(summary, name) for name in names]
