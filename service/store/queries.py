"""Questions to the store as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ras_triage.service.store.port import Cursor, Field, Filter
from ras_triage.service.store.rows import SUMMARY_COLUMNS

Query = tuple[str, list[Any]]

_PLAIN: Final[tuple[Field, ...]] = ("source", "policy", "severity", "notification", "action")
"""Columns that are filtered as they are, the one that narrows most first."""

_GROUPS: Final[dict[Field, str]] = {
    **{field: f"d.{field}" for field in _PLAIN},
    "section": "one_section.value",
    "physical_address": "one_address.value",
}
_GROUP_TABLES: Final[dict[Field, str]] = {
    "section": " LEFT JOIN json_each(d.sections) one_section ON true",
    "physical_address": " LEFT JOIN json_each(d.addresses) one_address ON true",
}

_GUARDED: Final = "json_each(CASE WHEN json_valid({0}) THEN {0} ELSE '[]' END)"
"""An array that may be damaged: then it counts as empty."""

_HAS_SECTION: Final = "EXISTS (SELECT 1 FROM decision_sections s WHERE s.section = ? AND s.at = d.at AND s.seq = d.seq)"
_HAS_ADDRESS: Final = "EXISTS (SELECT 1 FROM decision_addresses a WHERE a.address = ? AND a.at = d.at AND a.seq = d.seq)"


class _Conditions:
    """What a WHERE asks for, and the values it asks with."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        """Ask for one thing more, unless a value is None: then nothing was asked."""
        if None not in values:
            self.texts.append(text)
            self.values += values

    def where(self) -> str:
        return " WHERE " + " AND ".join(self.texts) if self.texts else ""


def _hex(address: int | None) -> str | None:
    return None if address is None else hex(address)


def _add_columns(conditions: _Conditions, asked: Filter, times: str) -> None:
    """`times`: the table whose index leads. Of the decisions' own, the first column's does, and `+` keeps SQLite from the others'."""
    leads = times == "d"
    for field in _PLAIN:
        wanted = getattr(asked, field)
        conditions.add(f"{'' if leads else '+'}d.{field} = ?", wanted)
        leads = leads and wanted is None
    conditions.add(f"{times}.at >= ?", asked.since_ms)
    conditions.add(f"{times}.at < ?", asked.until_ms)


def page(asked: Filter, after: Cursor | None, limit: int) -> Query:
    """Sequence and summary of decisions, newest first, found from the side that is narrowest: address, section, any other column."""
    conditions = _Conditions()
    if asked.physical_address is not None:
        by, tables = "a", "decision_addresses a CROSS JOIN decisions d ON d.seq = a.seq"
        conditions.add("a.address = ?", hex(asked.physical_address))
        conditions.add(_HAS_SECTION, asked.section)
    elif asked.section is not None and asked.source is None:
        by, tables = "s", "decision_sections s CROSS JOIN decisions d ON d.seq = s.seq"
        conditions.add("s.section = ?", asked.section)
    else:
        by, tables = "d", "decisions d"
        conditions.add(_HAS_SECTION, asked.section)
    _add_columns(conditions, asked, by)
    if after is not None:
        conditions.add(f"({by}.at, {by}.seq) < (?, ?)", after.decided_at_ms, after.sequence)
    sql = f"SELECT d.seq, {SUMMARY_COLUMNS} FROM {tables}{conditions.where()} ORDER BY {by}.at DESC, {by}.seq DESC LIMIT ?"
    return sql, [*conditions.values, limit]


def _over_decisions(asked: Filter) -> _Conditions:
    conditions = _Conditions()
    _add_columns(conditions, asked, "d")
    conditions.add(_HAS_SECTION, asked.section)
    conditions.add(_HAS_ADDRESS, _hex(asked.physical_address))
    return conditions


def following(asked: Filter, after: int, up_to: int, limit: int) -> Query:
    """Sequence and summary of decisions in the order of keeping, looked up by nothing but that."""
    conditions = _over_decisions(asked)
    conditions.add("d.seq > ? AND d.seq <= ?", after, up_to)
    sql = f"SELECT d.seq, {SUMMARY_COLUMNS} FROM decisions d NOT INDEXED{conditions.where()} ORDER BY d.seq LIMIT ?"
    return sql, [*conditions.values, limit]


def stats(asked: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int, *, guarded: bool = False) -> Query:
    """Counts by span of time and group; a decision with several sections or addresses counts for each.

    `guarded`: one whose sections or addresses are damaged counts as without. It takes longer.
    """
    conditions = _over_decisions(asked)
    tables = "decisions d" + "".join(_GROUP_TABLES.get(field, "") for field in group_by)
    if guarded:
        for column in ("d.sections", "d.addresses"):
            tables = tables.replace(f"json_each({column})", _GUARDED.format(column))
    columns = ", ".join(["d.at / ? * ?", *(_GROUPS[field] for field in group_by), "count(*)"])
    by = ", ".join(str(column) for column in range(1, len(group_by) + 2))
    sql = f"SELECT {columns} FROM {tables}{conditions.where()} GROUP BY {by} ORDER BY {by} LIMIT ?"
    return sql, [bucket_ms, bucket_ms, *conditions.values, limit]
