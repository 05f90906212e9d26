"""The store in one SQLite file.

One connection writes, in WAL mode with `synchronous=FULL`, so what was committed survives a loss of power. Readers have read-only
connections of their own and see what was committed. A lock beside the file keeps a second service away.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, Final, TypeVar

from models.poison import PoisonedPage
from service.store import questions, rows
from service.store.file import connect, explain, lock, open_writer
from service.store.port import (
    ApiKey,
    Count,
    Cursor,
    Entry,
    Field,
    Filter,
    HostFacts,
    Kept,
    Page,
    Purge,
    Size,
    StoreError,
    Streamed,
)

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


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error) from error


class SqliteStore:
    """A store in a file; see `service.store.port.Store` for what its methods promise."""

    def __init__(self, path: Path, *, exclusive: bool = True) -> None:
        """Open or create. `exclusive`: be the only service on this file. Raises StoreUnusable, StoreDamaged."""
        self.path = path
        self._lock = lock(path) if exclusive else None
        self._readers: list[sqlite3.Connection] = []
        self._reading = threading.local()
        self._readers_lock = threading.Lock()
        self._open_lock = threading.Lock()
        """Held while connections are used by a thread that is not theirs, or closed."""
        self._closed = False
        try:
            self._writer = open_writer(path)
            with _explained():
                self._sequence = self._writer.execute(_LAST_EVER).fetchone()[0]
        except StoreError:
            self._unlock()
            raise

    # Writing: by one thread.

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _explained():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def append(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        first = self._sequence + 1
        numbered = list(enumerate(entries, first))
        with self._transaction() as connection:
            _insert(connection, "decisions", rows.DECISION_COLUMNS, [rows.decision_row(number, entry) for number, entry in numbered])
            _insert(connection, "bodies", rows.BODY_COLUMNS, [rows.body_row(number, entry) for number, entry in numbered])
        self._sequence += len(entries)

    def probe(self) -> None:
        with self._transaction() as connection:
            connection.execute("UPDATE probe SET room = randomblob(?)", (PROBE_BYTES,))

    def put_host(self, facts: HostFacts) -> None:
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO host_facts VALUES (?, ?, ?, ?)", (facts.source, facts.version, facts.changed_at_ms, facts.facts)
            )

    def forget_poisoned(self, source: str) -> int:
        with self._transaction() as connection:
            return connection.execute("DELETE FROM poisoned_pages WHERE source = ?", (source,)).rowcount

    def purge_older(self, than_ms: int, at_ms: int, limit: int) -> int:
        return self._purge("age", "SELECT seq FROM decisions WHERE at < ? ORDER BY at, seq LIMIT ?", (than_ms, limit), at_ms)

    def purge_larger(self, than_bytes: int, at_ms: int, limit: int) -> int:
        if self._bytes(self._writer) <= than_bytes:
            return 0
        return self._purge("size", "SELECT seq FROM decisions ORDER BY at, seq LIMIT ?", (limit,), at_ms)

    def _purge(self, reason: str, chosen: str, values: tuple[int, ...], at_ms: int) -> int:
        with self._transaction() as connection:
            going = f"SELECT count(*), min(seq), max(seq), min(at), max(at) FROM decisions WHERE seq IN ({chosen})"
            count, *bounds = connection.execute(going, values).fetchone()
            if count:
                connection.execute(f"DELETE FROM decisions WHERE seq IN ({chosen})", values)
                record = "INSERT INTO purges (at, reason, count, first_seq, last_seq, oldest, newest) VALUES (?, ?, ?, ?, ?, ?, ?)"
                connection.execute(record, (at_ms, reason, count, *bounds))
        if count:
            with _explained():
                self._writer.executescript("PRAGMA incremental_vacuum")  # `execute` would take one step of it, which frees one page
        return int(count)

    def add_api_key(self, key: ApiKey) -> None:
        row = (key.id, key.name, " ".join(key.scopes), key.secret_hash, key.created_at_ms, key.revoked_at_ms)
        with self._transaction() as connection:
            connection.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?)", row)

    def revoke_api_key(self, identity: str, at_ms: int) -> bool:
        with self._transaction() as connection:
            revoked = connection.execute("UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (at_ms, identity))
            return revoked.rowcount > 0

    # Reading: by any thread, each with a connection of its own.

    def _reader(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._reading, "connection", None)
        if found is None:
            found = self._reading.connection = connect(self.path, "ro")
            with self._readers_lock:
                self._readers.append(found)
        return found

    def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
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

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._read(lambda connection: connection.execute(sql, values).fetchall())

    def repeat(self, key: bytes) -> Kept | None:
        with _explained():
            row = self._reader().execute(_REPEAT, (key,)).fetchone()
        return None if row is None else rows.kept(row)

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
        found = self._rows(*questions.page(asked, after, limit + 1))
        decisions = tuple(rows.summary(row[1:]) for row in found[:limit])
        more = Cursor(decisions[-1].decided_at_ms, found[limit - 1][0]) if len(found) > limit else None
        return Page(decisions, more)

    def stats(self, asked: Filter, group_by: Sequence[Field], bucket_ms: int, limit: int) -> list[Count]:
        found = self._rows(*questions.stats(asked, group_by, bucket_ms, limit))
        return [Count(row[0], tuple(row[1:-1]), row[-1]) for row in found]

    def following(self, sequence: int, asked: Filter, limit: int) -> tuple[list[Streamed], int]:
        def ask(connection: sqlite3.Connection) -> tuple[list[tuple[Any, ...]], int]:
            newest = connection.execute(_LAST_EVER).fetchone()[0]
            up_to = min(newest, sequence + _FOLLOWED_AT_ONCE)
            return connection.execute(*questions.following(asked, sequence, up_to, limit)).fetchall(), max(up_to, sequence)

        found, up_to = self._read(ask)
        streamed = [Streamed(row[0], rows.summary(row[1:])) for row in found]
        return streamed, streamed[-1].sequence if len(streamed) == limit else up_to

    def host(self, source: str, version: int | None = None) -> HostFacts | None:
        which = "version = ?" if version is not None else "? IS NULL"
        sql = f"SELECT source, version, changed_at, facts FROM host_facts WHERE source = ? AND {which} ORDER BY version DESC LIMIT 1"
        found = self._rows(sql, (source, version))
        return HostFacts(*found[0]) if found else None

    def poisoned(self, source: str, limit: int) -> tuple[PoisonedPage, ...]:
        found = self._rows("SELECT address, shift FROM poisoned_pages WHERE source = ? ORDER BY start, shift LIMIT ?", (source, limit))
        return tuple(PoisonedPage(int(address, 16), shift) for address, shift in found)

    def poisoned_at(self, source: str, addresses: Sequence[int]) -> tuple[PoisonedPage, ...]:
        candidates = {(rows.start_text(address >> shift << shift), shift) for address in addresses for shift in range(*PAGE_SHIFTS)}
        marks = ", ".join(["(?, ?)"] * len(candidates))
        sql = f"SELECT address, shift FROM poisoned_pages WHERE source = ? AND (start, shift) IN (VALUES {marks})"
        found = self._rows(sql, [source, *chain.from_iterable(candidates)]) if candidates else []
        return tuple(PoisonedPage(int(address, 16), shift) for address, shift in found)

    def purges(self, limit: int) -> list[Purge]:
        sql = "SELECT at, reason, count, first_seq, last_seq, oldest, newest FROM purges ORDER BY purge DESC LIMIT ?"
        return [Purge(*row) for row in self._rows(sql, (limit,))]

    def size(self) -> Size:
        def ask(connection: sqlite3.Connection) -> Size:
            figures = ("count(*)", "min(at)", "max(at)")
            count, oldest, newest = (connection.execute(f"SELECT {figure} FROM decisions").fetchone()[0] for figure in figures)
            ever = connection.execute(_LAST_EVER).fetchone()[0]
            return Size(count, self._bytes(connection), oldest, newest, ever)

        return self._read(ask)

    def _bytes(self, connection: sqlite3.Connection) -> int:
        pages, free, page_size = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_size)

    def api_key(self, identity: str) -> ApiKey | None:
        found = self._rows("SELECT * FROM api_keys WHERE id = ?", (identity,))
        return rows.api_key(found[0]) if found else None

    def api_keys(self) -> list[ApiKey]:
        return [rows.api_key(row) for row in self._rows("SELECT * FROM api_keys ORDER BY created_at, id")]

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
        with self._readers_lock:
            return [] if self._closed else [self._writer, *self._readers]

    def close(self) -> None:
        with self._open_lock:
            for connection in self._connections():
                connection.close()
            self._closed = True
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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
