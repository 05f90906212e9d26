"""SQL of the queries for pages, statistics and streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ras_triage.service.store.port import Cursor, Field, Filter
from ras_triage.service.store.rows import SUMMARY_COLUMNS

Query = tuple[str, list[Any]]

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

_HAS_SECTION: Final = "EXISTS (SELECT 1 FROM decision_sections s WHERE s.section = ? AND s.at = d.at AND s.seq = d.seq)"
_HAS_ADDRESS: Final = "EXISTS (SELECT 1 FROM decision_addresses a WHERE a.address = ? AND a.at = d.at AND a.seq = d.seq)"


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

    def where(self) -> str:
        return " WHERE " + " AND ".join(self.texts) if self.texts else ""


def _hex(address: int | None) -> str | None:
    return None if address is None else hex(address)


def _add_columns(conditions: _Conditions, filter_: Filter, times: str) -> None:
    """Add conditions for columns. `times`: table whose index is used. For `d` it is the first column's; `+` disables the other indexes."""
    leads = times == "d"
    for field in _PLAIN:
        wanted = getattr(filter_, field)
        conditions.add(f"{'' if leads else '+'}d.{field} = ?", wanted)
        leads = leads and wanted is None
    conditions.add(f"{times}.at >= ?", filter_.since_ms)
    conditions.add(f"{times}.at < ?", filter_.until_ms)


def page_query(filter_: Filter, after: Cursor | None, limit: int) -> Query:
    """Return the query for a page, which starts from the most selective filter: address, section, any other column."""
    conditions = _Conditions()
    if filter_.physical_address is not None:
        by, tables = "a", "decision_addresses a CROSS JOIN decisions d ON d.seq = a.seq"
        conditions.add("a.address = ?", hex(filter_.physical_address))
        conditions.add(_HAS_SECTION, filter_.section)
    elif filter_.section is not None and filter_.source is None:
        by, tables = "s", "decision_sections s CROSS JOIN decisions d ON d.seq = s.seq"
        conditions.add("s.section = ?", filter_.section)
    else:
        by, tables = "d", "decisions d"
        conditions.add(_HAS_SECTION, filter_.section)
    _add_columns(conditions, filter_, by)
    if after is not None:
        conditions.add(f"({by}.at, {by}.seq) < (?, ?)", after.decided_at_ms, after.sequence)
    sql = f"SELECT d.seq, {SUMMARY_COLUMNS} FROM {tables}{conditions.where()} ORDER BY {by}.at DESC, {by}.seq DESC LIMIT ?"
    return sql, [*conditions.values, limit]


def _over_decisions(filter_: Filter) -> _Conditions:
    conditions = _Conditions()
    _add_columns(conditions, filter_, "d")
    conditions.add(_HAS_SECTION, filter_.section)
    conditions.add(_HAS_ADDRESS, _hex(filter_.physical_address))
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
