"""SQLite file: creation, migration, locks, concurrent readers, damage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from time import sleep

import pytest

from ras_triage.service.store.files import database, write_ahead_log
from ras_triage.service.store.files.database import APPLICATION_ID, migrations
from ras_triage.service.store.opening import open_store
from ras_triage.service.store.port import (
    ApiKey,
    Cursor,
    Filter,
    HostFacts,
    RowDamaged,
    StoreDamaged,
    StoreError,
    StoreUnavailable,
    StoreUnusable,
)
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.stored_decisions import NOON, entry, identity, name, page

ANY = Filter()


def filled(path: Path, count: int = 300, size: int = 0) -> None:
    """A file with decisions, closed as it should be."""
    store = SqliteStore(path)
    store.append([entry(number, repeat_key=name(str(number)), size=size) for number in range(1, count + 1)])
    store.close()


def pragma(path: Path, what: str) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute(f"PRAGMA {what}").fetchone()[0]
    connection.close()
    return found


# Opening.


def test_a_new_file_gets_todays_schema_and_says_whose_it_is(path: Path) -> None:
    SqliteStore(path).close()
    assert pragma(path, "user_version") == len(migrations())
    assert pragma(path, "application_id") == APPLICATION_ID
    assert path.stat().st_mode & 0o077 == 0


def test_an_empty_file_is_a_new_one(path: Path) -> None:
    path.touch()
    SqliteStore(path).close()
    assert pragma(path, "user_version") == len(migrations())


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    store = SqliteStore(path)
    assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_file_of_a_later_release_is_refused_and_left_alone(path: Path) -> None:
    filled(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnusable, match=r"schema 99 of a later release; expected at most \d"):
        SqliteStore(path)
    assert pragma(path, "user_version") == 99


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="a database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("not a database, however long it goes on\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="not a store, or is damaged"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_step_that_fails_leaves_nothing_of_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "migrations", lambda: [*migrations(), "CREATE TABLE half (a);\nINSERT INTO nowhere VALUES (1);"])
    with pytest.raises(StoreError, match="no such table: nowhere"):
        SqliteStore(path)
    monkeypatch.undo()
    assert pragma(path, "user_version") == len(migrations())
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    connection.close()
    filled(path, 1)


def test_an_older_file_is_taken_forward_with_what_it_holds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 3)
    monkeypatch.setattr(database, "migrations", lambda: [*migrations(), "CREATE TABLE more (a);"])
    store = SqliteStore(path)
    assert store.size().decisions == 3
    store.close()
    assert pragma(path, "user_version") == len(migrations()) + 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"`.*nowhere/store.db` cannot be opened for writing: no such file or directory"):
        SqliteStore(tmp_path / "nowhere" / "store.db")


def test_a_path_may_hold_what_an_address_would_not(tmp_path: Path) -> None:
    odd = tmp_path / "50% of #2? yes.db"
    filled(odd, 1)
    assert pragma(odd, "user_version") == len(migrations())


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "postgres://host/db", "store.db", ""])
def test_an_address_of_nothing_is_refused(address: str) -> None:
    with pytest.raises(StoreUnusable, match="expected `memory:` or `sqlite:///PATH`"):
        open_store(address)


# The lock.


def test_a_second_service_is_refused_while_the_first_runs(path: Path) -> None:
    first = SqliteStore(path)
    (other_name := path.parent / "link.db").symlink_to(path)
    for called in (path, other_name):
        with pytest.raises(StoreUnusable, match="in use by another service"):
            SqliteStore(called)
    command = [
        sys.executable,
        "-c",
        f"from pathlib import Path\nfrom ras_triage.service.store.sqlite import SqliteStore\nSqliteStore(Path({str(path)!r}))",
    ]
    other = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "in use by another service" in other.stderr
    first.close()
    SqliteStore(path).close()


def test_a_file_that_could_not_be_opened_is_not_locked(path: Path) -> None:
    path.write_text("no database " * 100)
    with pytest.raises(StoreDamaged):
        SqliteStore(path)
    path.unlink()
    SqliteStore(path).close()


def test_a_command_reads_and_writes_beside_the_service(path: Path) -> None:
    service = SqliteStore(path)
    command = SqliteStore(path, exclusive=False)
    command.put_host(HostFacts("node-1", 1, NOON, b"{}"))
    assert service.host("node-1") is not None
    command.close()
    service.append([entry(1)])
    service.close()


# Reading while it is written.


def test_readers_see_what_was_committed_and_nothing_else(path: Path) -> None:
    store = SqliteStore(path)
    seen: list[int] = []

    def look() -> None:
        seen.append(store.size().decisions)

    with store._transaction() as connection:
        connection.execute("DELETE FROM purges")
        connection.execute("INSERT INTO api_keys VALUES ('k', 'n', 'read', '', 0, NULL)")
        assert store.api_keys() == []
        reader = Thread(target=look)
        reader.start()
        reader.join()
    assert len(store.api_keys()) == 1
    store.append([entry(1)])
    look()
    assert seen == [0, 1]
    store.close()


def test_a_write_that_failed_in_the_middle_left_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1, repeat_key=name("a"))])
    with pytest.raises(StoreUnavailable):
        store.append([entry(2, poisons=(page(0x5000),)), entry(3, repeat_key=name("a"))])
    assert store.size().decisions == 1
    assert store.poisoned("node-1", 9) == ()
    store.append([entry(4)])
    assert [found.sequence for found in store.after_sequence(0, ANY, 9)[0]] == [1, 2]
    store.close()


def test_a_reader_cannot_write(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="readonly"):
        store._rows("INSERT INTO api_keys VALUES ('k', 'n', 'read', '', 0, NULL)")
    store.close()


def test_sequences_go_on_after_a_restart_also_when_everything_was_purged(path: Path) -> None:
    filled(path, 5)
    store = SqliteStore(path)
    store.append([entry(6)])
    assert store.size().last_sequence == 6
    assert store.purge_older(NOON + 99, NOON + 99, 99) == 6
    store.close()
    store = SqliteStore(path)
    assert store.size().last_sequence == 6
    store.append([entry(7)])
    assert [found.sequence for found in store.after_sequence(0, ANY, 9)[0]] == [7]
    store.close()


def test_what_was_not_closed_is_there_after_the_next_start(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1)])
    copied = tmp_path / "copy.db"
    shutil.copy(path, copied)
    shutil.copy(f"{path}-wal", f"{copied}-wal")
    store.close()
    again = SqliteStore(copied)
    assert again.decision(identity(1)) is not None
    assert again.check() == []
    again.close()


def test_a_purge_gives_the_disk_its_room_back(path: Path) -> None:
    filled(path, 200, size=10_000)
    before = path.stat().st_size
    store = SqliteStore(path)
    assert store.purge_larger(0, NOON, 150) == 150
    store.close()
    assert path.stat().st_size < before / 2


def test_a_question_that_takes_too_long_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(path, 2000)
    monkeypatch.setattr("ras_triage.service.store.sqlite.QUERY_SECONDS", -1.0)
    store = SqliteStore(path)
    with pytest.raises(Exception, match="time limit of the query"):
        store.stats(ANY, ("section", "physical_address"), 1000, 10)
    monkeypatch.undo()
    assert store.stats(ANY, ("source",), 1 << 40, 10)[0].count == 2000
    store.close()


SLOW = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
    SELECT count(*), (SELECT count(*) FROM decisions) FROM n"""


def test_readers_without_a_gap_do_not_keep_the_log_from_being_emptied(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(0)])
    done = Event()

    def ask() -> None:
        while not done.is_set():
            store._rows(SLOW, quick=False)

    readers = [Thread(target=ask) for _ in range(3)]
    for reader in readers:
        reader.start()
    longest = 0
    for group in range(80):
        store.append([entry(1 + group * 20 + number, size=10_000) for number in range(20)])
        store.maintain(1 << 20)
        longest = max(longest, os.stat(f"{path}-wal").st_size)
        sleep(0.005)
    done.set()
    while any(reader.is_alive() for reader in readers):
        store.maintain(1 << 20)
        sleep(0.01)
    assert store.size().bytes > 16 << 20
    assert longest < 10 << 20, longest
    store.close()


def test_a_reader_of_another_process_keeps_nobody_waiting_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_ahead_log, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(write_ahead_log, "_ATTEMPT_S", 0.0)
    store = SqliteStore(path)
    other = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM decisions").fetchone()
    store.append([entry(number, size=10_000) for number in range(200)])
    for _ in range(20):
        store.maintain(1 << 20)
        sleep(0.02)
    assert store.page(ANY, None, 1).decisions, "a question is answered"
    other.close()
    store._log._next_attempt = 0.0
    store._log.grow_unknown()
    store.maintain(1 << 20)
    assert os.stat(f"{path}-wal").st_size == 0
    store.close()


# No room.


def test_a_full_disk_fails_the_write_and_nothing_else(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1)])
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        store.append([entry(number, size=4000) for number in range(2, 50)])
    assert store.size().decisions == 1
    assert store.decision(identity(1)) is not None
    with pytest.raises(StoreUnavailable, match="full"):
        store.probe()
    store._writer.execute("PRAGMA max_page_count = 1073741823")
    store.probe()
    store.append([entry(number, size=4000) for number in range(2, 50)])
    assert store.size().decisions == 49
    assert store.check() == []
    store.close()


# Damage.


def test_a_flipped_byte_is_an_error_and_never_a_wrong_decision(path: Path, tmp_path: Path) -> None:
    filled(path, 60, size=200)
    sound = SqliteStore(path)
    expected = {number: (sound.decision(identity(number)), sound.event(identity(number))) for number in range(1, 61)}
    sound.close()
    whole = path.read_bytes()
    noticed = 0
    for place in range(0, len(whole), 997):
        damaged = tmp_path / f"damaged-{place}.db"
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        noticed += _answers_rightly_or_not_at_all(damaged, expected)
        damaged.unlink()
    assert noticed > 10


def _answers_rightly_or_not_at_all(path: Path, expected: dict[int, object]) -> bool:
    """Whether anything was noticed; asserts that what was answered is what was kept."""
    noticed = False
    try:
        store = SqliteStore(path)
    except (StoreDamaged, StoreUnusable):
        return True
    for number, right in expected.items():
        try:
            answer = (store.decision(identity(number)), store.event(identity(number)))
        except StoreDamaged:
            noticed = True
            continue
        if answer == (None, None):  # the index lost it: SQLite finds that when it is asked to check
            noticed = True
            assert store.check() != []
        else:
            assert answer == right
    store.close()
    return noticed


def change(path: Path, sql: str, *values: object) -> None:
    """Change the file behind the store's back."""
    connection = sqlite3.connect(path)
    connection.execute(sql, values)
    connection.commit()
    connection.close()


def test_a_list_leaves_out_a_summary_that_is_damaged_and_says_so(path: Path) -> None:
    filled(path, 3)
    change(path, """UPDATE decisions SET sections = '["memory' WHERE seq = 2""")
    store = SqliteStore(path)
    page = store.page(ANY, None, 9)
    assert ([summary.event_id for summary in page.decisions], page.damaged) == (["event-3", "event-1"], 1)
    first = store.page(ANY, None, 2)
    assert (len(first.decisions), first.damaged, first.next) == (1, 1, Cursor(NOON + 2, 2)), "the next page begins behind it"
    followed, up_to = store.after_sequence(0, ANY, 2)
    assert ([streamed.sequence for streamed in followed], up_to) == ([1], 2), "and so does the stream"
    assert store.after_sequence(2, ANY, 2)[0][0].sequence == 3
    assert sum(count.count for count in store.stats(ANY, ("section",), 1000, 10)) == 3
    store.close()


def test_text_that_is_not_utf8_any_more_takes_its_own_row_only(path: Path) -> None:
    filled(path, 3)
    change(path, "UPDATE decisions SET event_id = CAST(x'ff31' AS TEXT) WHERE seq = 2")
    store = SqliteStore(path)
    page = store.page(ANY, None, 9)
    assert ([summary.event_id for summary in page.decisions], page.damaged) == (["event-3", "event-1"], 1)
    change(path, "UPDATE decisions SET action = CAST(x'ff31' AS TEXT) WHERE seq = 3")
    assert [count.group for count in store.stats(ANY, ("action",), 1 << 40, 10)] == [("signal",), ("\ufffd1",)]
    store.close()


def test_a_damaged_api_key_shuts_nobody_else_out(path: Path) -> None:
    store = SqliteStore(path)
    for number in (1, 2):
        store.add_api_key(ApiKey(f"k{number}", "a key", ("read",), "ab" * 32, NOON))
    change(path, "UPDATE api_keys SET name = CAST(x'ff' AS TEXT) WHERE id = 'k1'")
    assert [key.id for key in store.api_keys()] == ["k2"]
    store.close()


def test_facts_and_poisoned_pages_that_were_damaged_are_an_error_and_never_used(path: Path) -> None:
    store = SqliteStore(path)
    store.put_host(HostFacts("node-1", 1, NOON, b'{"kernel":"6.1"}'))
    store.append([entry(1, source="node-2", poisons=(page(0x5000),)), entry(2, source="node-3", poisons=(page(0x5000),))])
    change(path, """UPDATE host_facts SET facts = CAST('{"kernel":"6.9"}' AS BLOB)""")
    change(path, "UPDATE poisoned_pages SET address = '0x7000' WHERE source = 'node-2'")
    with pytest.raises(RowDamaged):
        store.host("node-1")
    with pytest.raises(RowDamaged):
        store.poisoned("node-2", 9)
    assert store.poisoned("node-3", 9) == (page(0x5000),)
    store.close()


def test_a_damaged_row_does_not_keep_retention_from_deleting_it(path: Path) -> None:
    filled(path, 3)
    change(path, """UPDATE decisions SET sections = '["memory', addresses = '[' WHERE seq = 1""")
    store = SqliteStore(path)
    assert store.purge_older(NOON + 3, NOON + 9, 9) == 2
    assert [streamed.sequence for streamed in store.after_sequence(0, ANY, 9)[0]] == [3]
    store.close()


@pytest.mark.parametrize("left", [1, 50, 99, 100, 4096, 0.5, 0.9])
def test_a_file_that_was_cut_off_is_refused(path: Path, left: float) -> None:
    filled(path, 100)
    size = path.stat().st_size
    with path.open("r+b") as handle:
        handle.truncate(int(size * left) if left < 1 else int(left))
    with pytest.raises(StoreDamaged, match="damaged"):
        SqliteStore(path)


def test_a_file_whose_header_is_gone_is_refused(path: Path) -> None:
    filled(path, 10)
    data = path.read_bytes()
    path.write_bytes(bytes(100) + data[100:])
    with pytest.raises(StoreDamaged, match="not a store, or is damaged"):
        SqliteStore(path)
