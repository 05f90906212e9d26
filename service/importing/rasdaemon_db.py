"""Reader of rasdaemon's SQLite database, treated as untrusted.

A hostile database may have views and triggers that run code, generated columns, virtual tables, rows of a gibibyte, and cycles of pages.
Only `SELECT` on ordinary tables is allowed here, with limits on time, length of values and number of columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from ras_triage.models.formats.ras.page_failures import TABLE, FailureRows
from ras_triage.models.formats.ras.rasdaemon import FORMAT, read_rows
from ras_triage.models.formats.ras.traced_event import TraceItem
from ras_triage.models.formats.results import Position, UnreadableRecord
from ras_triage.models.notification import Notification
from ras_triage.service.importing.signatures import SQLITE

MAX_VALUE_BYTES = 4 << 20
"""Longest value and longest row. An `arm_event` row has a record of at most 64 KiB."""
MAX_TABLES = 256
MAX_COLUMNS = 256
"""Columns of a table; the widest of rasdaemon 0.8.5 has 40."""
MAX_SECONDS = 60.0
"""Time limit for SQLite, for all tables of one file; time of the caller between rows is not counted."""
_SMALLEST_ROW = 4
"""Smallest row in bytes (https://www.sqlite.org/fileformat2.html, table b-tree leaf); a file with more rows has a cycle of pages."""
_STEPS = 4096
"""Virtual machine instructions between two checks of the time limit."""
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY", "cache_size=-2048")
"""Set before the first statement that reads the schema."""
_MAX_OWN_TABLES = 8
"""Upper limit for the number of SQLite's internal tables (sequences, statistics)."""
_OWN = b"sqlite_"
"""Name prefix of SQLite's internal tables."""
_CREATE = b"CREATE TABLE"

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ}
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 64 << 10,
    sqlite3.SQLITE_LIMIT_COLUMN: MAX_COLUMNS,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 20,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 3,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 8,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 50,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 10,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
"""Limits after https://www.sqlite.org/security.html for untrusted files, lower where rasdaemon needs less."""
_FAILURES = (sqlite3.Error, UnicodeDecodeError, MemoryError)
"""Exceptions of the `sqlite3` module for a damaged file. It decodes messages as UTF-8, and they may quote any bytes of the schema."""


class UnreadableDatabase(ValueError):
    """The file cannot be opened, or is not a readable SQLite database; the text has the reason."""


class _Unreadable(ValueError):
    """A table cannot be read, or not to its end."""


class _TimeLimit:
    """Time limit for SQLite; time of the caller between rows does not count."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._since = monotonic()

    def start(self) -> None:
        self._since = monotonic()

    def stop(self) -> None:
        self._left -= monotonic() - self._since

    def is_over(self) -> bool:
        return monotonic() - self._since > self._left


class _RowLimit:
    """Limit for the number of rows in the file."""

    def __init__(self, rows: int) -> None:
        self._left = rows

    def take(self) -> None:
        """Count a row. Raises _Unreadable over the limit."""
        self._left -= 1
        if self._left < 0:
            raise _Unreadable("more rows than the size of the file allows")


def read_database(path: str, *, notification: Notification | None = None, seconds: float = MAX_SECONDS) -> Iterator[TraceItem]:
    """Return every row of every ordinary table: tables by name, rows in the order of the file.

    Only one row is in memory at a time. A table that cannot be read to its end gives one UnreadableRecord with its name, and reading
    continues with the next one; views and virtual tables are never read. Raises UnreadableDatabase before the first row.
    """
    time_limit = _TimeLimit(seconds)
    connection = _open(path, time_limit)
    try:
        yield from _beside(path)
        rows = _RowLimit(Path(path).stat().st_size // _SMALLEST_ROW)
        time_limit.start()
        tables = _tables(connection)
        if len(tables) > MAX_TABLES:
            yield _unread("sqlite_schema", f"has more than {MAX_TABLES} tables; the rest was not read")
        failures = FailureRows()
        if (TABLE.encode(), True) in tables[:MAX_TABLES]:
            _index_failures(connection, time_limit, rows, failures)
        for name, is_plain in tables[:MAX_TABLES]:
            if is_plain:
                yield from _read_table(connection, name, time_limit, rows, notification, failures)
            else:
                yield _unread(name, "is not an ordinary table and was not read")
    except _FAILURES as error:
        yield UnreadableRecord(Position(item="sqlite_schema"), f"the list of tables cannot be read: {_reason(error)}", FORMAT)
    finally:
        connection.close()


def _open(path: str, time_limit: _TimeLimit) -> sqlite3.Connection:
    """Return a read-only, restricted connection. Raises UnreadableDatabase."""
    try:
        with open(path, "rb") as file:
            magic = file.read(len(SQLITE))
    except OSError as error:
        raise UnreadableDatabase((error.strerror or "cannot be read").lower()) from None
    except ValueError:
        raise UnreadableDatabase("invalid file name") from None
    if magic != SQLITE:
        raise UnreadableDatabase("not an SQLite database; expected `SQLite format 3` as the first bytes")
    # immutable: SQLite takes no locks, rolls no journal back and writes nothing
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro&immutable=1"
    # one reader at a time, but not always in the same thread: a web server reads rows in a thread pool
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        _restrict(connection, time_limit)
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    except _FAILURES as error:
        connection.close()
        raise UnreadableDatabase(_reason(error)) from None
    return connection


def _restrict(connection: sqlite3.Connection, time_limit: _TimeLimit) -> None:
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.text_factory = bytes
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(time_limit.is_over, _STEPS)


def _authorize(action: int, first: str | None, _second: str | None, _database: str | None, inner: str | None) -> int:
    """Allow reading columns of tables and their names, but nothing on behalf of a view or trigger."""
    is_allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    return sqlite3.SQLITE_OK if is_allowed and inner is None else sqlite3.SQLITE_DENY


def _beside(path: str) -> Iterator[UnreadableRecord]:
    """Report journal files of an unfinished writer."""
    for suffix in ("-wal", "-journal"):
        other = Path(path + suffix)
        if other.is_file() and other.stat().st_size:
            yield _unread(other.name, "exists next to the database and was not read: the last rows may be missing or incomplete")


def _tables(connection: sqlite3.Connection) -> list[tuple[bytes, bool]]:
    """Return the names of tables and views, and whether each is an ordinary table. Raises sqlite3.Error."""
    query = "SELECT type, name, rootpage, sql FROM sqlite_master WHERE type = 'table' OR type = 'view' ORDER BY name LIMIT ?"
    found: list[tuple[bytes, bool]] = []
    for kind, name, root, sql in connection.execute(query, (_MAX_OWN_TABLES + MAX_TABLES,)):
        if isinstance(name, bytes) and not name.startswith(_OWN):
            is_table = kind == b"table" and isinstance(root, int) and root > 0 and isinstance(sql, bytes)
            found.append((name, is_table and sql[: len(_CREATE)].upper() == _CREATE))
    return found


def _index_failures(connection: sqlite3.Connection, time_limit: _TimeLimit, rows: _RowLimit, failures: FailureRows) -> None:
    """Read what the kernel did with pages, which is attached to the errors. Whatever cannot be read is reported with its table."""
    try:
        columns = _columns(connection, TABLE)
        cursor = connection.execute(_query(connection, TABLE, columns))
        for number, row in enumerate(_rows(cursor, columns, time_limit, rows), 1):
            failures.add(number, row)
    except (*_FAILURES, _Unreadable):
        return


def _read_table(
    connection: sqlite3.Connection,
    name: bytes,
    time_limit: _TimeLimit,
    rows: _RowLimit,
    notification: Notification | None,
    failures: FailureRows,
) -> Iterator[TraceItem]:
    try:
        table = name.decode()
        time_limit.start()
        columns = _columns(connection, table)
        cursor = connection.execute(_query(connection, table, columns))
        yield from read_rows(table, _rows(cursor, columns, time_limit, rows), notification=notification, failures=failures)
    except (*_FAILURES, _Unreadable) as error:
        yield _unread(name, f"cannot be read to its end: {_reason(error)}")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Return the stored columns; a generated one would evaluate an expression of the file. Raises _Unreadable."""
    found = connection.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
    columns = [str(column[1], "utf-8") for column in found if column[6] == 0]
    if not columns:
        raise _Unreadable("no stored column")
    return columns


def _query(connection: sqlite3.Connection, table: str, columns: list[str]) -> str:
    """Return the query for the row id, if there is one (https://www.sqlite.org/rowidtable.html), and the stored columns."""
    selected, source = ", ".join(_quoted(column) for column in columns), _quoted(table)
    numbered, plain = f"SELECT _rowid_, {selected} FROM {source}", f"SELECT NULL, {selected} FROM {source}"
    if any(column.lower() == "_rowid_" for column in columns):
        return plain
    try:
        connection.execute(f"{numbered} LIMIT 0")
    except sqlite3.OperationalError:
        return plain
    return numbered


def _rows(cursor: sqlite3.Cursor, columns: list[str], time_limit: _TimeLimit, rows: _RowLimit) -> Iterator[Mapping[str, object]]:
    last: int | None = None
    while True:
        time_limit.start()
        row = cursor.fetchone()
        time_limit.stop()
        if row is None:
            return
        number, *values = row
        if isinstance(number, int):
            if last is not None and number <= last:
                raise _Unreadable("row ids do not increase: the pages form a cycle")
            last = number
        rows.take()
        yield dict(zip(columns, values, strict=True))


def _quoted(name: str) -> str:
    """Return a quoted SQL identifier. Raises _Unreadable for a name with a NUL."""
    if "\0" in name:
        raise _Unreadable("a column or table name contains a NUL character")
    return '"' + name.replace('"', '""') + '"'


def _unread(name: bytes | str, why: str) -> UnreadableRecord:
    text = name if isinstance(name, str) else name.decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() and character != "`" else "?" for character in text[:80])
    return UnreadableRecord(Position(item=shown), f"`{shown}` {why}", FORMAT)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a name in the schema is not UTF-8"
    if isinstance(error, MemoryError):
        return "out of memory"
    text = str(error).lower().rstrip(".") or "unknown error"
    return "time limit exceeded" if text == "interrupted" else text
