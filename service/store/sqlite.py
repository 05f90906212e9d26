"""The store in one SQLite file.

One connection writes, in WAL mode with `synchronous=FULL`, so what was committed survives a loss of power. Readers have read-only
connections of their own and see what was committed. A lock beside the file keeps a second service away.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from models.poison import PoisonedPage
from service.store import questions, rows
from service.store.file import StoreLock, committed, connect, explain, is_undecodable, open_writer, refusal, text_or_bytes
from service.store.identity import OpenFiles, log_path
from service.store.log import WriteAheadLog
from service.store.mark import Mark, MarkFile
from service.store.port import (
    PURGES,
    ApiKey,
    Count,
    Cursor,
    Entry,
    Field,
    Filter,
    HostFacts,
    Kept,
    Loss,
    Page,
    Purge,
    RowDamaged,
    Size,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
    Streamed,
    Usage,
)
from service.store.readable import ReadCheck
from service.store.room import Room, commit_bytes

T = TypeVar("T")

QUERY_SECONDS: Final = 10.0
"""How long one question may take."""

_CHUNKS: Final = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows that one statement inserts. Every statement gives the interpreter away once, so fewer are quicker."""
_FOLLOWED_AT_ONCE: Final = 20_000
PAGE_SHIFTS: Final = (12, 49)
"""log2 of the sizes that a poisoned page can have, from and below (`models.host.Page.shift`)."""

_REPEAT: Final = f"SELECT {rows.KEPT_COLUMNS} FROM decisions d JOIN bodies b ON b.seq = d.seq WHERE d.repeat_key = ?"
PROBE_BYTES: Final = 64 << 10
"""What a probe writes: about as much as a large event, so that a disk with a last few bytes does not pass for one with room."""

_LAST_EVER: Final = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'decisions'"
_SERIALIZED: Final = 3
"""Connections may be used by several threads at once (DB-API 2.0, `threadsafety`)."""
_CHECK_EVERY: Final = 10_000
"""Virtual machine steps between two looks at the clock."""

_TIGHT: Final = 16
"""Decisions that one purge takes away on a full disk."""

_SHRINK_PAGES: Final = 1024
_TIGHT_PAGES: Final = 32
"""Pages that are given back at a time; on a full disk."""

_CHECK_S: Final = 1.0
_QUICK_CHECK_S: Final = 0.01
_START_CHECK_S: Final = 10.0
"""Seconds to wait for whether the disk failed or the content is damaged: for a question, in the event loop, and at the start."""


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error) from error
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged schema
        raise StoreDamaged("the schema is not UTF-8") from error


class SqliteStore:
    """A store in a file; see `service.store.port.Store` for what its methods promise."""

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        """Open or create. `exclusive`: be the only service on this file. Raises StoreUnusable, StoreDamaged."""
        self.path = path
        self._lock = StoreLock(path) if exclusive else None
        self._readers: list[sqlite3.Connection] = []
        self._reading = threading.local()
        self._readers_lock = threading.Lock()
        self._open_lock = threading.Lock()
        """Held while connections are used by a thread that is not theirs, or closed."""
        self._closed = False
        self._mark: MarkFile | None = None
        self._room = Room(path)
        try:
            self._writer = self._open_writer()
            try:
                self._begin()
            except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError):
                self._writer.close()
                raise
        except (OSError, UnicodeDecodeError, sqlite3.Error, StoreError) as error:
            found = self._why_not_opened(refusal(path, error))
            self._unlock()
            raise found from None

    def _open_writer(self) -> sqlite3.Connection:
        """On a full disk with the reserve's room: a log and its index have to be made."""
        try:
            return open_writer(self.path)
        except StoreUnusable:
            if not self._room.give_way():
                raise
        return open_writer(self.path)

    def _why_not_opened(self, error: StoreError) -> StoreError:
        """The error; instead of damage a failure of the disk, where that is what looks like it."""
        if self._lock is not None and isinstance(error, StoreDamaged):
            check = ReadCheck(self._lock.database, log_path(self.path))
            if (why := check.failure(_START_CHECK_S)) is not None:
                error = StoreUnusable(f"`{self.path}` cannot be read: {why}")
            check.close()
        return error

    def _begin(self) -> None:
        """What goes along with the connection that writes."""
        found = committed(self._writer)
        assert found is not None, "the schema is up to date"
        self._store_id, self._sequence, self._changes = found.store_id, found.sequence, found.changes
        self._files = OpenFiles(self.path)
        self._log = WriteAheadLog(self._writer, self._files.log_path)
        self._read_check: ReadCheck | None = None
        if self._lock is None:
            self._mark = MarkFile.existing(self.path, found.store_id)
            return
        if not self._lock.names(self.path):
            raise StoreUnusable(f"`{self.path}` was replaced while it was opened")
        with suppress(OSError):  # on a full disk it may come later
            self._mark = MarkFile.create(self.path, found)
        self._room.take_reserve()
        self._read_check = ReadCheck(self._lock.database, self._files.log_path)

    # Writing: by one thread.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. What comes after it checks the files before anything is acknowledged."""
        self._files.check_sometimes()
        try:
            with _explained():
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except StoreDamaged as error:
            if (why := self._unreadable(_CHECK_S)) is not None:
                raise StoreUnavailable(why) from error
            raise

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction of anything but new decisions, counted."""
        with self._transaction() as connection:
            yield connection
            changes = connection.execute("UPDATE store SET changes = changes + 1 RETURNING changes").fetchone()[0]
        self._changes = changes
        self._files.check_quickly()
        if self._mark is not None:
            self._mark.set_changes(self._changes)

    def append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        first = self._sequence + 1
        numbered = list(enumerate(entries, first))
        size = sum(len(entry.event) + len(entry.decision) for entry in entries)
        self._require_room(commit_bytes(len(entries), size))
        with self._transaction() as connection:
            _insert(connection, "decisions", rows.DECISION_COLUMNS, [rows.decision_row(number, entry) for number, entry in numbered])
            _insert(connection, "bodies", rows.BODY_COLUMNS, [rows.body_row(number, entry) for number, entry in numbered])
        self._sequence += len(entries)
        self._files.check_quickly()
        if self._mark is not None:
            self._mark.set_sequence(self._sequence)

    def _require_room(self, needed: int) -> None:
        """Raises StoreUnavailable where a commit that adds so much to the log would leave no room for a checkpoint of all of it."""
        self._log.grow(needed)
        if self._room.surely_has(2 * needed) or self._room.has(2 * needed + self._log.size()):
            return
        with _explained():
            self._log.empty()
        self._room.require(2 * needed + self._log.size())

    def probe(self) -> None:
        self._require_room(commit_bytes(1, PROBE_BYTES))
        with self._transaction() as connection:
            connection.execute("UPDATE probe SET room = randomblob(?)", (PROBE_BYTES,))
        self._files.check()

    def upkeep(self, log_bytes: int) -> None:
        if self._files.check_sometimes():
            self._keep_mark()
            self._room.take_reserve()
        with _explained():
            self._log.keep_within(0 if self._room.short else log_bytes)

    def _keep_mark(self) -> None:
        """Make the mark again where somebody removed it."""
        if self._lock is None or (self._mark is not None and self._mark.is_there()):
            return
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        with suppress(OSError):
            self._mark = MarkFile.create(self.path, Mark(self._store_id, self._sequence, self._changes))

    def put_host(self, facts: HostFacts) -> None:
        with self._change() as connection:
            connection.execute(f"INSERT INTO host_facts ({rows.HOST_COLUMNS}) VALUES (?, ?, ?, ?, ?)", rows.host_row(facts))

    def forget_poisoned(self, source: str) -> int:
        with self._change() as connection:
            connection.execute(f"INSERT OR REPLACE INTO forgotten_pages VALUES (?, ({_LAST_EVER}))", (source,))
            return connection.execute("DELETE FROM poisoned_pages WHERE source = ?", (source,)).rowcount

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        return self._purge("age", "WHERE at < ?", (than_ms,), limit, at_ms)

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        with _explained():
            live = _live_bytes(self._writer)
        count = self._purge("size", "", (), limit, at_ms) if live > than_bytes else 0
        self._shrink(than_bytes)
        return count

    def _purge(self, reason: str, where: str, values: tuple[int, ...], limit: int, at_ms: int) -> int:
        """Purge; on a full disk with what was kept back for it, and a few at a time."""
        try:
            return self._delete(reason, where, values, limit, at_ms)
        except StoreUnavailable:
            self._files.check()
            self._room.release_reserve()
        with _explained():
            self._log.empty()
            count = self._delete(reason, where, values, min(limit, _TIGHT), at_ms)
            self._log.empty()
        return count

    def _delete(self, reason: str, where: str, values: tuple[int, ...], limit: int, at_ms: int) -> int:
        self._log.suspect()
        with self._change() as connection:
            chosen = f"SELECT seq FROM decisions {where} ORDER BY at, seq LIMIT ?"
            going = f"SELECT count(*), min(seq), max(seq), min(at), max(at) FROM decisions WHERE seq IN ({chosen})"
            count, *bounds = connection.execute(going, (*values, limit)).fetchone()
            if count:
                connection.execute(f"DELETE FROM decisions WHERE seq IN ({chosen})", (*values, limit))
                record = "INSERT INTO purges (at, reason, count, first_seq, last_seq, oldest, newest) VALUES (?, ?, ?, ?, ?, ?, ?)"
                connection.execute(record, (at_ms, reason, count, *bounds))
                connection.execute("DELETE FROM purges WHERE purge <= (SELECT max(purge) FROM purges) - ?", (PURGES,))
        if count and reason == "age":
            self._shrink(0)
        return int(count)

    def _shrink(self, to_bytes: int) -> None:
        """Give freed pages back to the file system as far as the file is larger; in steps, of which each takes room first."""
        with _explained():
            page_size = _pragma(self._writer, "page_size")
            while (pages := min(_pragma(self._writer, "freelist_count"), _pragma(self._writer, "page_count") - to_bytes // page_size)) > 0:
                tight = not self._room.has(2 * _SHRINK_PAGES * page_size + self._log.size())
                if not self._room.has(4 * _TIGHT_PAGES * page_size):
                    self._room.release_reserve()
                # `execute` would take one step of it, which frees one page
                self._writer.executescript(f"PRAGMA incremental_vacuum({min(pages, _TIGHT_PAGES if tight else _SHRINK_PAGES)})")
                if tight and not self._log.empty():
                    return  # somebody reads from the log; the next call goes on

    def disk_bytes(self) -> int:
        return sum(_size(path) for path in (self.path, self._files.log_path, self._room.path))

    def usage(self) -> Usage:
        with _explained():
            first, last = self._writer.execute("SELECT (SELECT min(seq) FROM decisions), (SELECT max(seq) FROM decisions)").fetchone()
            return Usage(_live_bytes(self._writer), self._room.reserve, 0 if first is None else last - first + 1)

    def add_api_key(self, key: ApiKey) -> None:
        row = (key.id, key.name, " ".join(key.scopes), key.secret_hash, key.created_at_ms, key.revoked_at_ms)
        with self._change() as connection:
            connection.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", row)

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        with self._change() as connection:
            revoked = connection.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at_ms, identity))
            return revoked.rowcount > 0

    # Reading: by any thread, each with a connection of its own.

    def _reader(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._reading, "connection", None)
        if found is None:
            self._files.check()
            found = connect(self.path, "ro")
            try:
                found.execute(_LAST_EVER).fetchone()
                self._files.check()  # it must not be another file that was opened now
            except (sqlite3.Error, StoreUnavailable):
                found.close()
                raise
            with self._readers_lock:
                self._readers.append(found)
            self._reading.connection = found
        return found

    def _read(self, ask: Callable[[sqlite3.Connection], T], *, quick: bool = True) -> T:
        """Ask; what looks like damage, twice. `quick`: without waiting for others, in the event loop too."""
        if not quick:
            self._log.wait()
        try:
            return self._ask(ask)
        except RowDamaged:
            raise
        except StoreDamaged:
            pass
        try:
            return self._ask(ask)
        except RowDamaged:
            raise
        except StoreDamaged as error:
            if (why := self._unreadable(_QUICK_CHECK_S if quick else _CHECK_S)) is not None:
                raise StoreUnavailable(why) from error
            raise

    def _unreadable(self, patience_s: float) -> str | None:
        return None if self._read_check is None else self._read_check.failure(patience_s)

    def _ask(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        with _explained():
            connection = self._reader()
            deadline = monotonic() + QUERY_SECONDS
            connection.set_progress_handler(lambda: monotonic() > deadline, _CHECK_EVERY)
            try:
                return ask(connection)
            finally:
                connection.set_progress_handler(None, 0)

    def last_sequence(self) -> int:
        return int(self._rows(_LAST_EVER)[0][0])

    def _rows(self, sql: str, values: Sequence[Any] = (), *, quick: bool = True) -> list[tuple[Any, ...]]:
        return self._read(lambda connection: _fetch(connection, sql, values), quick=quick)

    def repeat(self, key: bytes) -> Kept | None:
        try:
            with _explained():
                row = self._reader().execute(_REPEAT, (key,)).fetchone()
        except StoreDamaged:
            row = self._read(lambda connection: connection.execute(_REPEAT, (key,)).fetchone())
        if row is None:
            return None
        self._files.check_quickly()  # a repeat is an acknowledgement as well
        return rows.kept(row)

    def _body(self, columns: str, identity: str) -> tuple[Any, ...] | None:
        key = rows.id_bytes(identity)
        found = self._rows(f"SELECT {columns} FROM decisions d JOIN bodies b ON b.seq = d.seq WHERE d.id = ?", (key,)) if key else []
        return found[0] if found else None

    def decision(self, identity: str) -> Kept | None:
        row = self._body(rows.KEPT_COLUMNS, identity)
        return None if row is None else rows.kept(row)

    def event(self, identity: str) -> bytes | None:
        row = self._body("b.event, b.event_check", identity)
        return None if row is None else rows.event(row)

    def page(self, asked: Filter, after: Cursor | None, limit: int) -> Page:
        found = self._rows(*questions.page(asked, after, limit + 1), quick=False)
        decisions = tuple(summary for row in found[:limit] if (summary := _sound(rows.summary, row[1:])) is not None)
        more = _cursor(found[:limit]) if len(found) > limit else None
        return Page(decisions, more, min(len(found), limit) - len(decisions))

    def stats(self, asked: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[Count]:
        try:
            found = self._rows(*questions.stats(asked, group_by, bucket_ms, limit), quick=False)
        except StoreDamaged:
            found = self._rows(*questions.stats(asked, group_by, bucket_ms, limit, guarded=True), quick=False)
        return [Count(row[0], tuple(map(_shown, row[1:-1])), row[-1]) for row in found]

    def following(self, sequence: int, asked: Filter, limit: int) -> tuple[list[Streamed], int]:
        def ask(connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], int]:
            newest = connection.execute(_LAST_EVER).fetchone()[0]
            up_to = min(newest, sequence + _FOLLOWED_AT_ONCE)
            return _fetch(connection, *questions.following(asked, sequence, up_to, limit)), max(up_to, sequence)

        found, up_to = self._read(ask, quick=False)
        streamed = [Streamed(row[0], summary) for row in found if (summary := _sound(rows.summary, row[1:])) is not None]
        return streamed, found[-1][0] if len(found) == limit else up_to

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        which = "version = ?" if version is not None else "? IS NULL"
        sql = f"SELECT {rows.HOST_COLUMNS} FROM host_facts WHERE source = ? AND {which} ORDER BY version DESC LIMIT 1"
        found = self._rows(sql, (source, version))
        return rows.host(found[0]) if found else None

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        sql = "SELECT start, address, shift FROM poisoned_pages WHERE source = ? ORDER BY start, shift LIMIT ?"
        return tuple(map(rows.poisoned, self._rows(sql, (source, limit))))

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        candidates = {(rows.start_text(address >> shift << shift), shift) for address in addresses for shift in range(*PAGE_SHIFTS)}
        marks = ", ".join(["(?, ?)"] * len(candidates))
        sql = f"SELECT start, address, shift FROM poisoned_pages WHERE source = ? AND (start, shift) IN (VALUES {marks})"
        found = self._rows(sql, [source, *chain.from_iterable(candidates)]) if candidates else []
        return tuple(map(rows.poisoned, found))

    def purges(self, limit: int) -> list[Purge]:
        sql = "SELECT at, reason, count, first_seq, last_seq, oldest, newest FROM purges ORDER BY purge DESC LIMIT ?"
        return [Purge(*row) for row in self._rows(sql, (limit,))]

    def losses(self) -> list[Loss]:
        sql = "SELECT at, reason, decisions, first_seq, last_seq, changes FROM losses ORDER BY loss DESC"
        return [Loss(*row) for row in self._rows(sql)]

    def size(self) -> Size:
        def ask(connection: sqlite3.Connection) -> Size:
            figures = ("count(*)", "min(at)", "max(at)")
            count, oldest, newest = (connection.execute(f"SELECT {figure} FROM decisions").fetchone()[0] for figure in figures)
            ever = connection.execute(_LAST_EVER).fetchone()[0]
            lost = connection.execute("SELECT coalesce(sum(decisions), 0) FROM losses").fetchone()[0]
            return Size(count, _live_bytes(connection), oldest, newest, ever, self._log.size(), lost)

        return self._read(ask)

    def api_key(self, identity: str) -> ApiKey | None:
        found = self._rows("SELECT * FROM api_keys WHERE id = ?", (identity,))
        return rows.api_key(found[0]) if found else None

    def api_keys(self) -> list[ApiKey]:
        found = self._rows("SELECT * FROM api_keys ORDER BY created_at, id")
        return [key for row in found if (key := _sound(rows.api_key, row)) is not None]

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; nothing if it is sound. Reads all of it."""
        with _explained():
            found = [str(row[0]) for row in self._writer.execute("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def release_memory(self) -> None:
        if sqlite3.threadsafety != _SERIALIZED:
            return
        with self._open_lock, _explained():
            for connection in self._connections():
                connection.execute("PRAGMA shrink_memory")

    def _connections(self) -> list[sqlite3.Connection]:
        """Return all, the writer last: only a connection that may write empties the log when it is the last to close."""
        with self._readers_lock:
            return [] if self._closed else [*self._readers, self._writer]

    def close(self) -> None:
        if self._read_check is not None:
            self._read_check.close()
        with self._open_lock:
            for connection in self._connections():
                connection.close()
            self._closed = True
        if self._mark is not None:
            self._mark.close()
            self._mark = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def _size(path: str | Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _live_bytes(connection: sqlite3.Connection) -> int:
    return (_pragma(connection, "page_count") - _pragma(connection, "freelist_count")) * _pragma(connection, "page_size")


def _fetch(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows, with bytes in the place of text that is not UTF-8 any more: else one such row would take all others with it."""
    try:
        return connection.execute(sql, values).fetchall()
    except sqlite3.OperationalError as error:
        if not is_undecodable(error):
            raise
    connection.text_factory = text_or_bytes
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.text_factory = str


def _shown(group: Any) -> Any:
    return group.decode(errors="replace") if isinstance(group, bytes) else group


def _sound(read: Callable[[tuple[Any, ...]], T], row: tuple[Any, ...]) -> T | None:
    """What a row says; None where it is damaged."""
    try:
        return read(row)
    except RowDamaged:
        return None


def _cursor(shown: list[tuple[Any, ...]]) -> Cursor | None:
    """Where a page ends: behind its last row whose time can be read."""
    places = (Cursor(row[2], row[0]) for row in reversed(shown) if type(row[2]) is int)
    return next(places, None)


def _insert(connection: sqlite3.Connection, table: str, columns: str, values: list[tuple[Any, ...]]) -> None:
    """Insert rows with as few statements as there are chunks."""
    one = "(" + ", ".join("?" * len(values[0])) + ")"
    start = 0
    for size in _CHUNKS:
        sql = f"INSERT INTO {table} ({columns}) VALUES " + ", ".join([one] * size)
        while len(values) - start >= size:
            flat = [column for row in values[start : start + size] for column in row]
            connection.execute(sql, flat)
            start += size
