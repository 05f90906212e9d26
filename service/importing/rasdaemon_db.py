"""rasdaemon's SQLite file, opened as what it is: somebody else's.

A database can hold far more than rows: views and triggers that run code, generated columns, virtual tables, rows of a gibibyte, pages that
point at each other. Here nothing runs but `SELECT` over ordinary tables, within bounds on time, on the length of a value and on columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from urllib.parse import quote

from ras_triage.models.formats.items import Position, UnreadableRecord
from ras_triage.models.formats.ras.rasdaemon import FORMAT, read_rows
from ras_triage.models.formats.ras.traced_event import TraceItem
from ras_triage.models.notification import Notification

MAGIC = b"SQLite format 3\0"
"""The first 16 bytes of every SQLite 3 database."""

MAX_VALUE_BYTES = 4 << 20
"""Longest value, and longest row; an arm_event keeps a record, and a record is 64 KiB at most."""
MAX_TABLES = 256
MAX_COLUMNS = 256
"""The widest table of rasdaemon 0.8.5 has 40."""
MAX_SECONDS = 60.0
"""Of SQLite's own work, for all tables of one file; the time that the caller takes between rows is not counted."""
_SMALLEST_ROW = 4
"""Bytes that a row takes at least (https://www.sqlite.org/fileformat2.html, table b-tree leaf); a file with more has pages in a circle."""
_STEPS = 4096
"""Virtual machine instructions between two looks at the clock."""
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY", "cache_size=-2048")
"""Set before the first statement that looks at the schema."""
_MAX_OWN_TABLES = 8
"""More than SQLite keeps of its own: sequences and statistics."""
_OWN = b"sqlite_"
"""How the names of SQLite's own tables begin."""
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
"""What https://www.sqlite.org/security.html advises for files from strangers, tighter where rasdaemon needs less."""
_FAILURES = (sqlite3.Error, UnicodeDecodeError, MemoryError)
"""What the `sqlite3` module raises for a damaged file. It decodes as UTF-8 what SQLite says, which may quote any bytes of the schema."""


class UnreadableDatabase(ValueError):
    """The file cannot be opened, or is no SQLite database that can be read; its text says why."""


class _Unreadable(ValueError):
    """A table that is not read, or not any further."""


class _Clock:
    """Stops SQLite when its own work has taken too long; the time between two rows is the caller's and does not count."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._since = monotonic()

    def start(self) -> None:
        self._since = monotonic()

    def stop(self) -> None:
        self._left -= monotonic() - self._since

    def is_over(self) -> bool:
        return monotonic() - self._since > self._left


class _Allowance:
    """How many rows there may be in all."""

    def __init__(self, rows: int) -> None:
        self._left = rows

    def take(self) -> None:
        """Raises _Unreadable where there are more."""
        self._left -= 1
        if self._left < 0:
            raise _Unreadable("it has more rows than the file has room for")


def read_database(path: str, *, notification: Notification | None = None, seconds: float = MAX_SECONDS) -> Iterator[TraceItem]:
    """Every row of every ordinary table, tables by name and rows in the order of the file.

    Holds one row at a time. A table that cannot be read, or not to its end, is one Unread that names it, and reading goes on with the
    next one; a view or virtual table is never read. Raises NotADatabase before the first row.
    """
    clock = _Clock(seconds)
    connection = _open(path, clock)
    try:
        yield from _beside(path)
        rows = _Allowance(Path(path).stat().st_size // _SMALLEST_ROW)
        clock.start()
        tables = _tables(connection)
        if len(tables) > MAX_TABLES:
            yield _unread("sqlite_schema", f"has more than {MAX_TABLES} tables, and the rest was not read")
        for name, is_plain in tables[:MAX_TABLES]:
            if is_plain:
                yield from _read_table(connection, name, clock, rows, notification)
            else:
                yield _unread(name, "is no ordinary table and was not read")
    except _FAILURES as error:
        yield UnreadableRecord(Position(item="sqlite_schema"), f"the list of tables cannot be read: {_reason(error)}", FORMAT)
    finally:
        connection.close()


def _open(path: str, clock: _Clock) -> sqlite3.Connection:
    """A connection that can do nothing but read. Raises NotADatabase."""
    try:
        with open(path, "rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise UnreadableDatabase((error.strerror or "cannot be read").lower()) from None
    except ValueError:
        raise UnreadableDatabase("its name is not one of a file") from None
    if magic != MAGIC:
        raise UnreadableDatabase("an SQLite database begins with `SQLite format 3`")
    # Immutable: no locks are taken, no journal beside the file is rolled back, nothing is ever written.
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro&immutable=1"
    # One reader at a time, though not always the same thread: a web server takes the rows in whichever is free.
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        _restrict(connection, clock)
        connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
    except _FAILURES as error:
        connection.close()
        raise UnreadableDatabase(_reason(error)) from None
    return connection


def _restrict(connection: sqlite3.Connection, clock: _Clock) -> None:
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.text_factory = bytes
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(clock.is_over, _STEPS)


def _authorize(action: int, first: str | None, _second: str | None, _database: str | None, inner: str | None) -> int:
    """Reading columns of tables and asking for their names; nothing at all on behalf of a view or trigger."""
    is_allowed = action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    return sqlite3.SQLITE_OK if is_allowed and inner is None else sqlite3.SQLITE_DENY


def _beside(path: str) -> Iterator[UnreadableRecord]:
    """What a writer that was not finished has left beside the file."""
    for suffix in ("-wal", "-journal"):
        other = Path(path + suffix)
        if other.is_file() and other.stat().st_size:
            yield _unread(other.name, "lies beside the database and was not read: its last rows may be missing or half written")


def _tables(connection: sqlite3.Connection) -> list[tuple[bytes, bool]]:
    """Names of tables and views, and whether it is a table with rows of its own. Raises sqlite3.Error."""
    query = "SELECT type, name, rootpage, sql FROM sqlite_master WHERE type = 'table' OR type = 'view' ORDER BY name LIMIT ?"
    found: list[tuple[bytes, bool]] = []
    for kind, name, root, sql in connection.execute(query, (_MAX_OWN_TABLES + MAX_TABLES,)):
        if isinstance(name, bytes) and not name.startswith(_OWN):
            is_table = kind == b"table" and isinstance(root, int) and root > 0 and isinstance(sql, bytes)
            found.append((name, is_table and sql[: len(_CREATE)].upper() == _CREATE))
    return found


def _read_table(
    connection: sqlite3.Connection, name: bytes, clock: _Clock, rows: _Allowance, notification: Notification | None
) -> Iterator[TraceItem]:
    try:
        table = name.decode()
        clock.start()
        columns = _columns(connection, table)
        cursor = connection.execute(_query(connection, table, columns))
        yield from read_rows(table, _rows(cursor, columns, clock, rows), notification=notification)
    except (*_FAILURES, _Unreadable) as error:
        yield _unread(name, f"cannot be read to its end: {_reason(error)}")


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """The columns that are stored: one that is generated would run an expression of the file's. Raises _Unreadable."""
    found = connection.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
    columns = [str(column[1], "utf-8") for column in found if column[6] == 0]
    if not columns:
        raise _Unreadable("it has no stored column")
    return columns


def _query(connection: sqlite3.Connection, table: str, columns: list[str]) -> str:
    """The stored columns, and before them what SQLite orders the rows by, where that is a number (https://www.sqlite.org/rowidtable.html)."""
    selected, source = ", ".join(_quoted(column) for column in columns), _quoted(table)
    numbered, plain = f"SELECT _rowid_, {selected} FROM {source}", f"SELECT NULL, {selected} FROM {source}"
    if any(column.lower() == "_rowid_" for column in columns):
        return plain
    try:
        connection.execute(f"{numbered} LIMIT 0")
    except sqlite3.OperationalError:
        return plain
    return numbered


def _rows(cursor: sqlite3.Cursor, columns: list[str], clock: _Clock, rows: _Allowance) -> Iterator[Mapping[str, object]]:
    last: int | None = None
    while True:
        clock.start()
        row = cursor.fetchone()
        clock.stop()
        if row is None:
            return
        number, *values = row
        if isinstance(number, int):
            if last is not None and number <= last:
                raise _Unreadable("its rows come in circles")
            last = number
        rows.take()
        yield dict(zip(columns, values, strict=True))


def _quoted(name: str) -> str:
    """A name as SQL. Raises _Unreadable where it cannot be written."""
    if "\0" in name:
        raise _Unreadable("a name has a NUL in it")
    return '"' + name.replace('"', '""') + '"'


def _unread(name: bytes | str, why: str) -> UnreadableRecord:
    text = name if isinstance(name, str) else name.decode("utf-8", "replace")
    shown = "".join(character if character.isprintable() and character != "`" else "?" for character in text[:80])
    return UnreadableRecord(Position(item=shown), f"`{shown}` {why}", FORMAT)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "a name in its schema is not UTF-8"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    text = str(error).lower().rstrip(".") or "sqlite cannot read it"
    return "it takes too long" if text == "interrupted" else text
