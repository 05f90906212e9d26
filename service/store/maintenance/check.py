"""Verification of a store: checksums, columns, derived tables, indexes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

from pydantic_core import from_json

from ras_triage.models.frozen import frozen
from ras_triage.service.store import rows
from ras_triage.service.store.files.database import is_counter, is_store_id
from ras_triage.service.store.port import RowDamaged

Kind = Literal["lost", "event_lost", "wrong", "index", "incomplete"]
"""A lost row; a lost event with a sound decision; wrong data that can be derived from sound data; an error of SQLite's integrity check;
missing commits.
"""

MAX_FINDINGS: Final = 10_000
"""Limit for listed findings; all are counted."""

WINDOW: Final = 256
"""Decisions read at a time."""

_SQLITE_FINDINGS: Final = 1000


@frozen
class Finding:
    """One error in a store."""

    kind: Kind
    table: str
    detail: str
    sequence: int | None = None
    id: str | None = None
    """Id of the decision; None: unreadable."""


@frozen
class EventFields:
    """Columns that are derived from an event."""

    event_id: str | None
    repeat_key: bytes | None
    """None: not derivable from the event alone."""
    notification: str
    severity: str | None
    sections: tuple[str, ...]
    physical_addresses: tuple[int, ...]


ReadEvent = Callable[[bytes], EventFields | None]
"""Parses an event; None: this release refuses it."""


@frozen
class ExaminedDecision:
    """A decision, as far as it can be recovered."""

    sequence: int
    row: tuple[Any, ...] | None
    """Corrected row in the order of DECISION_COLUMNS; None: lost."""
    body: tuple[Any, ...] | None
    """Corrected row in the order of BODY_COLUMNS."""
    found: tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]
    """Both rows as stored; None: missing or unreadable."""
    findings: tuple[Finding, ...]


@frozen
class Counters:
    """Identity and counters of a store; None: corrupt or missing."""

    store_id: bytes | None
    sequence: int | None
    """Sequence of the newest decision ever."""
    changes: int | None
    poison_known_after: int | None


_COLUMNS: Final = tuple(rows.DECISION_COLUMNS.replace(" ", "").split(","))
_PLACE: Final = {name: place for place, name in enumerate(_COLUMNS)}


class Examination:
    """Examines a store in any state. The connection must return text that is not UTF-8 as bytes."""

    def __init__(self, connection: sqlite3.Connection, read_event: ReadEvent) -> None:
        self._connection = connection
        self._read_event = read_event
        self.decisions = 0
        """Number of recoverable decisions."""
        self.lost: list[int] = []
        """Sequences of lost decisions."""
        self.poison_unknown = False
        """Whether the pages poisoned by the decisions cannot be determined."""

    def find_all(self) -> Iterator[Finding]:
        """Return all findings."""
        yield from self.check_file()
        yield from self.check_counters()
        for examined in self.examine_decisions():
            yield from examined.findings
        yield from self.check_derived_tables()
        yield from self.check_poisoned_pages()
        for table in OTHER_TABLES:
            for _, finding in other_rows(self._connection, table):
                if finding is not None:
                    yield finding

    # The file, as SQLite sees it.

    def check_file(self) -> Iterator[Finding]:
        """Return the errors of SQLite's integrity check: pages, indexes, constraints."""
        try:
            for (text,) in self._connection.execute(f"PRAGMA integrity_check({_SQLITE_FINDINGS})"):
                if text != "ok":
                    yield Finding("index", "", " ".join(str(text).split()))
        except sqlite3.DatabaseError as error:
            yield Finding("index", "", str(error))

    def counters(self) -> Counters:
        """Return the identity and the counters of the store. Raises sqlite3.Error."""
        found = self._connection.execute("SELECT id, changes, poison_known_after FROM store").fetchone()
        store_id, changes, known_after = found or (None, None, None)
        sequence = self._connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'").fetchone()[0]
        newest = self._number("SELECT max(seq) FROM decisions NOT INDEXED") or 0
        return Counters(
            store_id if is_store_id(store_id) else None,
            sequence if is_counter(sequence) and sequence >= newest else None,
            changes if is_counter(changes) else None,
            known_after if is_counter(known_after) else None,
        )

    def check_counters(self) -> Iterator[Finding]:
        """Verify the identity and the counters of the store. Raises sqlite3.Error."""
        counters = self.counters()
        if wrong := [name for name in ("store_id", "sequence", "changes", "poison_known_after") if getattr(counters, name) is None]:
            yield Finding("wrong", "store", f"counters are corrupt: {', '.join(wrong)}")

    # Decisions.

    def examine_decisions(self) -> Iterator[ExaminedDecision]:
        """Examine each decision, in order of sequence."""
        for first in self._windows():
            last = first + WINDOW - 1
            found, unread = self._table("decisions", rows.DECISION_COLUMNS, first, last)
            bodies, unread_bodies = self._table("bodies", rows.BODY_COLUMNS, first, last)
            known = found.keys() | bodies.keys()
            sound = not unread and not unread_bodies and all(_identity(found.get(one), bodies.get(one), None) for one in known)
            indexed = {} if sound else self._indexed(first, last)
            for sequence in sorted(known | indexed.keys()):
                examined = self._examine(sequence, found.get(sequence), bodies.get(sequence), indexed.get(sequence))
                if examined.row is None:
                    self.lost.append(sequence)
                    self.poison_unknown = True
                else:
                    self.decisions += 1
                yield examined
            unknown = (unread | unread_bodies) - known - indexed.keys()
            if unknown and not indexed:
                self.lost += sorted(unknown)
                self.poison_unknown = True
                detail = f"sequence {min(unknown)} to {max(unknown)} cannot be read"
                yield ExaminedDecision(min(unknown), None, None, (None, None), (Finding("lost", "decisions", detail, min(unknown)),))

    def _windows(self) -> Iterator[int]:
        """Return the first sequences of windows that may have decisions; purged ranges are skipped."""
        first = 1
        while (following := self._next_sequence(first)) is not None:
            yield following
            first = following + WINDOW

    def _next_sequence(self, first: int) -> int | None:
        """Return the first sequence from `first` on with a row or body, or that cannot be read."""
        candidates: list[int] = []
        newest = self._number("SELECT max(seq) FROM sqlite_sequence WHERE name = 'decisions'")
        for table in ("decisions", "bodies"):
            try:
                found = self._connection.execute(f"SELECT min(seq) FROM {table} NOT INDEXED WHERE seq >= ?", (first,)).fetchone()[0]
            except sqlite3.DatabaseError:
                found = first if newest is None or first <= newest else None
            candidates += [] if found is None else [found]
        return min(candidates, default=None)

    def _number(self, sql: str) -> int | None:
        try:
            found: int | None = self._connection.execute(sql).fetchone()[0]
        except sqlite3.DatabaseError:
            return None
        return found

    def _table(self, table: str, columns: str, first: int, last: int) -> tuple[dict[int, tuple[Any, ...]], set[int]]:
        """Return the rows of a window by sequence, and the unreadable sequences."""
        sql = f"SELECT {columns} FROM {table} NOT INDEXED WHERE seq BETWEEN ? AND ? ORDER BY seq"
        try:
            return {row[0]: row for row in self._connection.execute(sql, (first, last))}, set()
        except sqlite3.DatabaseError:
            if first == last:
                return {}, {first}
        middle = (first + last) // 2
        found, unread = self._table(table, columns, first, middle)
        more, unread_too = self._table(table, columns, middle + 1, last)
        return found | more, unread | unread_too

    def _indexed(self, first: int, last: int) -> dict[int, tuple[Any, Any]]:
        """Return id and time by sequence, from the indexes of a window."""
        ids = self._index("id", "sqlite_autoindex_decisions_1", first, last)
        times = self._index("at", "decisions_by_time", first, last)
        return {sequence: (ids.get(sequence), times.get(sequence)) for sequence in ids.keys() | times.keys()}

    def _index(self, column: str, index: str, first: int, last: int) -> dict[int, Any]:
        sql = f"SELECT seq, {column} FROM decisions INDEXED BY {index} WHERE +seq BETWEEN ? AND ?"
        try:
            return dict(self._connection.execute(sql, (first, last)).fetchall())
        except sqlite3.DatabaseError:
            return {}

    def _examine(
        self, sequence: int, found: tuple[Any, ...] | None, body: tuple[Any, ...] | None, indexed: tuple[Any, Any] | None
    ) -> ExaminedDecision:
        as_found = (found, body)
        identity = _identity(found, body, indexed)
        if identity is None:
            shown = _id_text((found[_PLACE["id"]] if found else None) or (indexed[0] if indexed else None))
            why = "the body is missing" if body is None else "checksum mismatch"
            return ExaminedDecision(
                sequence, None, None, as_found, (Finding("lost", "decisions", f"the decision is lost: {why}", sequence, shown),)
            )
        assert body is not None
        shown = _id_text(identity[0])
        findings: list[Finding] = []
        _, event, event_check, decision, check = body
        fields = None
        if event == rows.LOST_EVENT:
            event_check = 0  # its loss is on record already
        elif not rows.event_is_sound(event, event_check):
            findings.append(Finding("event_lost", "bodies", "the event is lost; the decision is sound", sequence, shown))
            event, event_check = rows.LOST_EVENT, 0
        else:
            fields = self._read_event(rows.body_text(event))
        expected = _expected(identity, decision, fields)
        row, wrong = _corrected(sequence, found, expected)
        self.poison_unknown = self.poison_unknown or "row" in wrong or "poisons" in wrong
        if wrong:
            findings.append(Finding("wrong", "decisions", f"columns differ from the decision: {', '.join(wrong)}", sequence, shown))
        if not _is_sound(row):
            findings.append(Finding("lost", "decisions", "the decision is lost: row and event are corrupt", sequence, shown))
            return ExaminedDecision(sequence, None, None, as_found, tuple(findings))
        return ExaminedDecision(sequence, row, (sequence, event, event_check, decision, check), as_found, tuple(findings))

    # Tables derived from decisions.

    def check_derived_tables(self) -> Iterator[Finding]:
        """Verify the tables of sections and addresses against the decisions."""
        for table, column, array in DERIVED:
            try:
                for sequence, entry in self._connection.execute(_MISSING.format(table=table, column=column, array=array)):
                    yield Finding("wrong", table, f"`{entry}` is missing", sequence)
                for sequence, entry in self._connection.execute(_EXTRA.format(table=table, column=column, array=array)):
                    yield Finding("wrong", table, f"`{entry}` belongs to no decision", sequence)
            except sqlite3.DatabaseError as error:
                yield Finding("wrong", table, str(error))

    def check_poisoned_pages(self) -> Iterator[Finding]:
        """Verify the poisoned pages against the decisions, if these can be determined."""
        try:
            table = {(source, start, shift): address for source, start, shift, address in self._connection.execute(_POISONED)}
            expected, complete = derive_poisoned_pages(self._connection)
        except (sqlite3.DatabaseError, RowDamaged) as error:
            yield Finding("wrong", "poisoned_pages", str(error))
            return
        for (source, start, shift), address in table.items():
            try:
                rows.poisoned((start, address, shift))
            except RowDamaged as error:
                yield Finding("wrong", "poisoned_pages", f"`{start}` of `{source}`: {error}")
                continue
            if not self.poison_unknown and source in complete and (source, start, shift) not in expected:
                yield Finding("wrong", "poisoned_pages", f"`{start}` of `{source}` was not poisoned by a decision")
        for source, start, _shift in () if self.poison_unknown else expected.keys() - table.keys():
            yield Finding("wrong", "poisoned_pages", f"`{start}` of `{source}` is missing")


DERIVED: Final = (("decision_sections", "section", "sections"), ("decision_addresses", "address", "addresses"))

_ARRAY: Final = "json_each(CASE WHEN json_valid(d.{array}) THEN d.{array} ELSE '[]' END)"
_MISSING: Final = (
    "SELECT d.seq, e.value FROM decisions d NOT INDEXED, " + _ARRAY + " e"
    " WHERE NOT EXISTS (SELECT 1 FROM {table} t WHERE t.{column} = e.value AND t.at = d.at AND t.seq = d.seq)"
)
_EXTRA: Final = (
    "SELECT t.seq, t.{column} FROM {table} t LEFT JOIN decisions d ON d.seq = t.seq"
    " WHERE d.seq IS NULL OR d.at <> t.at OR NOT EXISTS (SELECT 1 FROM " + _ARRAY + " e WHERE e.value = t.{column})"
)
_POISONED: Final = "SELECT source, start, shift, address FROM poisoned_pages"
_KNOWN_AFTER: Final = "SELECT max(poison_known_after, (SELECT coalesce(max(last_seq), 0) FROM purges)) FROM store"
_POISONING: Final = (
    "SELECT seq, source, poisons, forgets FROM decisions NOT INDEXED"
    " WHERE seq > ? AND source IS NOT NULL AND (forgets OR poisons IS NOT NULL) ORDER BY seq"
)


def derive_poisoned_pages(connection: sqlite3.Connection) -> tuple[dict[tuple[str, str, int], str], set[str]]:
    """Return the poisoned pages derived from decisions, and the sources for which they are complete. Raises RowDamaged, sqlite3.Error.

    Pages of purged decisions stay poisoned, so that other sources may have more.
    """
    known_after = connection.execute(_KNOWN_AFTER).fetchone()[0]
    forgotten = dict(connection.execute("SELECT source, seq FROM forgotten_pages WHERE typeof(seq) = 'integer'").fetchall())
    pages: dict[str, dict[tuple[str, int], str]] = {}
    complete: set[str] = set()
    for sequence, source, poisons, forgets in connection.execute(_POISONING, (known_after,)):
        if sequence <= forgotten.get(source, 0):
            continue
        if forgets:
            pages[source] = {}
            complete.add(source)
        for start, shift, address in _pages(poisons):
            pages.setdefault(source, {}).setdefault((start, shift), address)
    return {(source, *place): address for source, places in pages.items() for place, address in places.items()}, complete


def _pages(poisons: Any) -> list[tuple[str, int, str]]:
    """Parse the column `poisons`. Raises RowDamaged."""
    if poisons is None:
        return []
    try:
        if not isinstance(poisons, str):
            raise TypeError("wrong column type")
        pages = [(str(start), shift, str(address)) for start, shift, address in from_json(poisons)]
    except (TypeError, ValueError):
        raise RowDamaged("corrupt list of the pages that a decision poisoned") from None
    for start, shift, address in pages:
        rows.poisoned((start, address, shift))
    return pages


Identity = tuple[bytes, int, bytes]
"""Id, time and event key of a decision."""


def _identity(found: tuple[Any, ...] | None, body: tuple[Any, ...] | None, indexed: tuple[Any, Any] | None) -> Identity | None:
    """Return the identity for which the checksum matches, from the row or the indexes; None: neither matches."""
    if body is None:
        return None
    _, _, _, decision, check = body
    ids = ([found[_PLACE["id"]]] if found else []) + ([indexed[0]] if indexed else [])
    times = ([found[_PLACE["at"]]] if found else []) + ([indexed[1]] if indexed else [])
    keys = ([found[_PLACE["event_key"]]] if found else []) + _key_of(decision)
    candidates = ((identity, at, key) for identity in ids for at in times for key in keys)
    return next((candidate for candidate in candidates if rows.decision_is_sound(*candidate, decision, check)), None)


def _key_of(decision: Any) -> list[bytes]:
    try:
        return [rows.key_bytes(from_json(rows.body_text(decision))["event_key"])]
    except (AttributeError, KeyError, RowDamaged, TypeError, ValueError):
        return []


def _expected(identity: Identity, decision: bytes, fields: EventFields | None) -> dict[str, Any]:
    """Return the columns derived from a sound decision and its event. Raises RowDamaged: this release cannot decompress the decision."""
    content = from_json(rows.body_text(decision))
    expected: dict[str, Any] = dict(zip(("id", "at", "event_key"), identity, strict=True))
    expected |= {name: content[name] for name in ("source", "action", "certainty")}
    expected |= {"policy": content["policy"]["name"], "policy_digest": content["policy"]["digest"]}
    expected["forgets"] = int(content["action"] == "panic")
    if fields is not None:
        expected |= {
            "event_id": fields.event_id,
            "notification": fields.notification,
            "severity": fields.severity,
            "sections": rows.array(fields.sections),
            "addresses": rows.array(map(hex, fields.physical_addresses)),
        }
        if fields.repeat_key is not None:
            expected["repeat_key"] = fields.repeat_key
    return expected


def _corrected(sequence: int, found: tuple[Any, ...] | None, expected: dict[str, Any]) -> tuple[tuple[Any, ...], list[str]]:
    """Return a row with the expected columns, and the names of those that differed."""
    before = dict(zip(_COLUMNS, found, strict=True)) if found else dict.fromkeys(_COLUMNS)
    wrong = ["row"] if found is None else [name for name, right in expected.items() if before[name] != right]
    try:
        _pages(before["poisons"])
    except RowDamaged:
        wrong.append("poisons")
        before["poisons"] = None
    after = before | expected | {"seq": sequence}
    return tuple(after[name] for name in _COLUMNS), wrong


def _is_sound(row: tuple[Any, ...]) -> bool:
    """Return whether a row can be listed and stored."""
    after = dict(zip(_COLUMNS, row, strict=True))
    if not isinstance(after["repeat_key"], bytes | None):
        return False
    try:
        rows.summary(tuple(after[name.strip().removeprefix("d.")] for name in rows.SUMMARY_COLUMNS.split(",")))
    except RowDamaged:
        return False
    return True


def _id_text(identity: Any) -> str | None:
    return rows.id_text(identity) if isinstance(identity, bytes) and len(identity) == 16 else None


# The other tables.

OTHER_TABLES: Final = (
    "host_facts",
    "poisoned_pages",
    "forgotten_pages",
    "api_keys",
    "policies",
    "purges",
    "losses",
    "quarantine",
    "replays",
)

_ORDERED_BY: Final = {
    "host_facts": "source, version",
    "poisoned_pages": "source, start, shift",
    "forgotten_pages": "source",
    "api_keys": "rowid",
    "policies": "name, version",
    "purges": "purge",
    "losses": "loss",
    "quarantine": "item",
    "replays": "id",
}


def other_rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[tuple[Any, ...] | None, Finding | None]]:
    """Return each row of a table, or the finding about it. After an unreadable row, the table is read from the other end."""
    seen: set[int] = set()
    for direction in ("", " DESC"):
        order = ", ".join(f"{column}{direction}" for column in _ORDERED_BY[table].split(", "))
        try:
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}"):
                if direction and hash(row) in seen:
                    return
                if not direction:
                    seen.add(hash(row))
                yield _other(table, row)
        except sqlite3.DatabaseError as error:
            if not direction:
                yield None, Finding("lost", table, f"rows are lost: {error}")
        else:
            return


def _other(table: str, row: tuple[Any, ...]) -> tuple[tuple[Any, ...] | None, Finding | None]:
    try:
        if table == "host_facts":
            facts = rows.host(row).facts
            if facts is not None:
                from_json(facts)
        elif table == "replays":
            rows.replay(row)
        elif table == "api_keys":
            rows.api_key(row)
        elif table == "policies":
            from_json(rows.policy(row).definition)
        elif table == "poisoned_pages":
            return row, None  # verified against the decisions
        elif table != "quarantine" and any(isinstance(column, bytes) for column in row):
            raise RowDamaged("text is not UTF-8")
    except (RowDamaged, ValueError) as error:
        return None, Finding("lost", table, f"`{_name(row)}`: {error}")
    return row, None


def _name(row: Iterable[Any]) -> str:
    """Return text that identifies a row."""
    return " ".join(str(column) for column in row if isinstance(column, str | int))[:80]
