"""SQL of queries: pages, statistics, streams, host facts, poisoned pages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from ras_triage.service.store.port import Cursor, Field, Filter, HostFilter, PoisonedPosition, PoisonFilter
from ras_triage.service.store.rows import SUMMARY_COLUMNS, start_text

Query = tuple[str, list[Any]]

PAGE_SHIFTS: Final = (12, 49)
"""Range of log2 of the size of a poisoned page (`ras_triage.models.host.Page.shift`)."""

_PLAIN: Final[tuple[Field, ...]] = ("source", "policy", "severity", "notification", "action")
"""Columns that are compared directly, the most selective first."""

_GROUPS: Final[dict[Field, str]] = {
    **{field: f"d.{field}" for field in _PLAIN},
    "section": "one_section.value",
    "physical_address": "one_address.value",
}
_GROUP_TABLES: Final[dict[Field, str]] = {
    "section": " LEFT JOIN json_each(d.sections) one_section ON true",
    "physical_address": " LEFT JOIN json_each(d.addresses) one_address ON true",
}

_LENIENT: Final = "json_each(CASE WHEN json_valid({0}) THEN {0} ELSE '[]' END)"
"""JSON array that counts as empty if it is corrupt."""

_SECTION: Final = "decision_sections", "section"
_ADDRESS: Final = "decision_addresses", "address"
"""Search tables with their columns."""


def _among(column: str, values: Sequence[Any]) -> str:
    return f"{column} = ?" if len(values) == 1 else f"{column} IN ({', '.join('?' * len(values))})"


class _Conditions:
    """Conditions of a WHERE clause with their values."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        """Add a condition, unless one of its values is None."""
        if None not in values:
            self.texts.append(text)
            self.values += values

    def add_among(self, column: str, values: Sequence[Any]) -> None:
        """Add the condition that a column has one of the values, if there are any."""
        if values:
            self.add(_among(column, values), *values)

    def add_sources(self, column: str, names: Sequence[str], prefixes: Sequence[str]) -> None:
        """Add the condition that a column has one of the names or begins with one of the prefixes."""
        texts = [_among(column, names)] if names else []
        values = list(names)
        for prefix in prefixes:
            end = _after_prefix(prefix)
            texts.append(f"{column} >= ?" if end is None else f"({column} >= ? AND {column} < ?)")
            values += [prefix] if end is None else [prefix, end]
        if texts:
            self.add(texts[0] if len(texts) == 1 else f"({' OR '.join(texts)})", *values)

    def add_found(self, table: str, column: str, values: Sequence[str]) -> None:
        """Add the condition that a search table has one of the values for a decision, if there are any."""
        if values:
            self.add(f"EXISTS (SELECT 1 FROM {table} x WHERE {_among(f'x.{column}', values)} AND x.at = d.at AND x.seq = d.seq)", *values)

    def where(self) -> str:
        return " WHERE " + " AND ".join(self.texts) if self.texts else ""


def _after_prefix(prefix: str) -> str | None:
    """Return the first text after all texts with a prefix, in the order of code points, which is that of UTF-8; None: there is none."""
    for index in range(len(prefix) - 1, -1, -1):
        if (code := ord(prefix[index])) < 0x10FFFF:
            return prefix[:index] + chr(0xE000 if code == 0xD7FF else code + 1)  # UTF-8 has no surrogates
    return None


def _addresses(filter_: Filter) -> tuple[str, ...]:
    return tuple(map(hex, filter_.physical_address))


def _add_columns(conditions: _Conditions, filter_: Filter, times: str, *, leads: bool, merged: Field | None = None) -> None:
    """Add conditions for columns, except `merged`, and for the time, by its column in the table `times`.

    `leads`: the index of the first column is used; `+` disables the other indexes.
    """
    for field in _PLAIN:
        if field == merged:
            continue
        before, column = len(conditions.texts), f"{'' if leads else '+'}d.{field}"
        if field == "source":
            conditions.add_sources(column, filter_.source, filter_.source_prefixes)
        else:
            conditions.add_among(column, getattr(filter_, field))
        leads = leads and len(conditions.texts) == before
    conditions.add(f"{times}.at >= ?", filter_.since_ms)
    conditions.add(f"{times}.at < ?", filter_.until_ms)


class _Leading(NamedTuple):
    """The filter from which a page starts, with an index in the order of time for each of its values."""

    times: str
    tables: str
    column: str
    values: tuple[str, ...]
    field: Field | None = None


def _leading(filter_: Filter) -> _Leading:
    """Return the most selective filter: address, section, any other column."""
    if filter_.physical_address:
        tables = "decision_addresses a CROSS JOIN decisions d ON d.seq = a.seq"
        return _Leading("a", tables, "a.address", _addresses(filter_), "physical_address")
    if filter_.section and not filter_.source:
        tables = "decision_sections s CROSS JOIN decisions d ON d.seq = s.seq"
        return _Leading("s", tables, "s.section", filter_.section, "section")
    for field in _PLAIN:
        values = getattr(filter_, field)
        if values and not (field == "source" and filter_.source_prefixes):
            return _Leading("d", "decisions d", f"d.{field}", values, field)
    return _Leading("d", "decisions d", "", ())


def page_query(filter_: Filter, after: Cursor | None, limit: int) -> Query:
    """Return the query for a page. It merges the decisions of each value of the most selective filter, each in the order of time.

    An `IN` would sort all of them first, however short the page. `UNION` lists a decision with several of the values once.
    """
    leading = _leading(filter_)
    branches = [_branch(filter_, leading, value, after) for value in leading.values or (None,)]
    columns = SUMMARY_COLUMNS.replace("d.at", f"{leading.times}.at")
    sql = " UNION ".join(f"SELECT {leading.times}.seq, {columns} FROM {leading.tables}{branch.where()}" for branch in branches)
    return f"{sql} ORDER BY 3 DESC, 1 DESC LIMIT ?", [*chain.from_iterable(branch.values for branch in branches), limit]


def _branch(filter_: Filter, leading: _Leading, value: str | None, after: Cursor | None) -> _Conditions:
    """Return the conditions for the decisions with one value of the leading filter; None: there is no such filter."""
    conditions, times = _Conditions(), leading.times
    conditions.add(f"{leading.column} = ?", value)
    if leading.field != "section":
        conditions.add_found(*_SECTION, filter_.section)
    _add_columns(conditions, filter_, times, leads=False, merged=leading.field)
    if after is not None:
        conditions.add(f"({times}.at, {times}.seq) < (?, ?)", after.decided_at_ms, after.sequence)
    return conditions


def sources_with_prefix(prefix: str, limit: int) -> Query:
    """Return the query for at most `limit` sources of decisions that begin with a prefix; it takes one step for each."""
    end = _after_prefix(prefix)
    least = f"SELECT min(source) FROM decisions WHERE {'? IS NULL' if end is None else 'source < ?'} AND source"
    found = (
        f"WITH found (source) AS ({least} >= ? UNION ALL SELECT ({least} > found.source) FROM found WHERE found.source IS NOT NULL LIMIT ?)"
    )
    return f"{found} SELECT source FROM found WHERE source IS NOT NULL", [end, prefix, end, limit]


def _over_decisions(filter_: Filter) -> _Conditions:
    conditions = _Conditions()
    _add_columns(conditions, filter_, "d", leads=True)
    conditions.add_found(*_SECTION, filter_.section)
    conditions.add_found(*_ADDRESS, _addresses(filter_))
    return conditions


def after_sequence(filter_: Filter, after: int, up_to: int, limit: int) -> Query:
    """Return the query for decisions by sequence; it scans a range of sequences."""
    conditions = _over_decisions(filter_)
    conditions.add("d.seq > ? AND d.seq <= ?", after, up_to)
    sql = f"SELECT d.seq, {SUMMARY_COLUMNS} FROM decisions d NOT INDEXED{conditions.where()} ORDER BY d.seq LIMIT ?"
    return sql, [*conditions.values, limit]


def stats(filter_: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int, *, lenient: bool = False) -> Query:
    """Return the query for counts by bucket and group; a decision with several sections or addresses counts for each.

    `lenient`: corrupt sections or addresses count as none. It is slower.
    """
    conditions = _over_decisions(filter_)
    tables = "decisions d" + "".join(_GROUP_TABLES.get(field, "") for field in group_by)
    if lenient:
        for column in ("d.sections", "d.addresses"):
            tables = tables.replace(f"json_each({column})", _LENIENT.format(column))
    columns = ", ".join(["d.at / ? * ?", *(_GROUPS[field] for field in group_by), "count(*)"])
    by = ", ".join(str(column) for column in range(1, len(group_by) + 2))
    sql = f"SELECT {columns} FROM {tables}{conditions.where()} GROUP BY {by} ORDER BY {by} LIMIT ?"
    return sql, [bucket_ms, bucket_ms, *conditions.values, limit]


def hosts(filter_: HostFilter, after: str | None, limit: int) -> Query:
    """Return the query for the newest facts of sources; it takes one step for each source."""
    sources = _Conditions()
    sources.add_sources("+source", filter_.source, filter_.source_prefixes)
    newest = _Conditions()
    newest.add("h.facts IS NOT NULL")
    newest.add("h.changed_at >= ?", filter_.since_ms)
    newest.add("h.changed_at < ?", filter_.until_ms)
    least, wanted = "SELECT min(source) FROM host_facts WHERE source > ", "".join(f" AND {text}" for text in sources.texts)
    found = (
        f"WITH found (source) AS ({least}?{wanted} UNION ALL"
        f" SELECT ({least}found.source{wanted}) FROM found WHERE found.source IS NOT NULL)"
    )
    sql = (
        f"{found} SELECT h.source, h.version, h.changed_at, length(h.facts) FROM found CROSS JOIN host_facts h"
        " ON h.source = found.source AND h.version = (SELECT max(version) FROM host_facts WHERE source = found.source)"
        f"{newest.where()} LIMIT ?"
    )
    return sql, [after or "", *sources.values, *sources.values, *newest.values, limit]


def poisoned_pages(filter_: PoisonFilter, after: PoisonedPosition | None, limit: int) -> Query:
    """Return the query for poisoned pages in the order of source and address."""
    conditions = _Conditions()
    conditions.add_sources("source", filter_.source, filter_.source_prefixes)
    if filter_.physical_address:
        text, values = containing(filter_.physical_address)
        conditions.add(text, *values)
    if after is not None:
        conditions.add("(source, start, shift) > (?, ?, ?)", after.source, after.start, after.shift)
    sql = f"SELECT source, start, shift, address FROM poisoned_pages{conditions.where()} ORDER BY source, start, shift LIMIT ?"
    return sql, [*conditions.values, limit]


def containing(addresses: Sequence[int]) -> Query:
    """Return the condition that a poisoned page contains one of the addresses."""
    candidates = {(start_text(address >> shift << shift), shift) for address in addresses for shift in range(*PAGE_SHIFTS)}
    return f"(start, shift) IN (VALUES {', '.join(['(?, ?)'] * len(candidates))})", [*chain.from_iterable(candidates)]
