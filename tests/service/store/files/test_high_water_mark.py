"""Committed data that is missing at the next start."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ras_triage.service.cli.commands.store import read_stored_event
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.store.files.high_water_mark import Mark, MarkFile, mark_path, read_mark
from ras_triage.service.store.maintenance.offline import accept_loss, check
from ras_triage.service.store.port import ApiKey, Filter, HostFacts, StoreIncomplete
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support.application import client, run
from tests.service.support.stored_decisions import NOON, entry, name

WRITE_AND_DIE = """
import os, signal
from tests.service.support.stored_decisions import NOON, entry
from ras_triage.service.store.port import HostFacts
from ras_triage.service.store.sqlite import SqliteStore
from pathlib import Path
store = SqliteStore(Path({path!r}))
for number in range(1, 6):
    store.append([entry(number)])
store.put_host(HostFacts("node-1", 1, NOON, b"{{}}"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(path: Path) -> Path:
    """A store whose process was killed after five commits of decisions and one of facts."""
    program = WRITE_AND_DIE.format(path=str(path))
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, timeout=60)
    assert os.stat(f"{path}-wal").st_size > 0
    return path


def test_what_was_killed_has_everything_at_the_next_start(killed: Path) -> None:
    store = SqliteStore(killed)
    assert store.size().decisions == 5
    assert store.host("node-1") is not None
    assert store.losses() == []
    store.close()


def remove_log(path: Path) -> None:
    os.unlink(f"{path}-wal")


def empty_log(path: Path) -> None:
    os.truncate(f"{path}-wal", 0)


@pytest.mark.parametrize("harm", [remove_log, empty_log])
def test_a_log_that_is_missing_is_told_at_every_start_until_it_is_accepted(killed: Path, harm: object) -> None:
    assert callable(harm)
    harm(killed)
    for exclusive in (True, False, True):  # a command must not write over what can be put back either
        with pytest.raises(StoreIncomplete, match="lacks committed data"):
            SqliteStore(killed, exclusive=exclusive)
    loss = accept_loss(killed, NOON)
    assert loss is not None
    assert (loss.reason, loss.decisions) in {("replaced", 5), ("incomplete", 5)}
    store = SqliteStore(killed)
    assert store.losses() == [loss]
    store.append([entry(9)])
    assert [streamed.sequence for streamed in store.after_sequence(0, Filter(), 9)[0]] == [6], "no sequence is given twice"
    store.close()
    assert accept_loss(killed, NOON) is None


def test_a_log_that_is_put_back_loses_nothing(killed: Path, tmp_path: Path) -> None:
    log = Path(f"{killed}-wal")
    log.rename(tmp_path / "away")
    with pytest.raises(StoreIncomplete):
        SqliteStore(killed)
    (tmp_path / "away").rename(log)
    store = SqliteStore(killed)
    assert store.size().decisions == 5
    store.close()


@pytest.mark.parametrize("left", [0.5, 0.9, 0.999])
def test_a_log_that_was_cut_off_is_told_with_what_is_missing(killed: Path, left: float) -> None:
    log = f"{killed}-wal"
    os.truncate(log, int(os.stat(log).st_size * left))
    with pytest.raises(StoreIncomplete, match="missing"):
        SqliteStore(killed)
    loss = accept_loss(killed, NOON)
    assert loss is not None
    assert (loss.changes, loss.last_sequence) in {(1, None), (1, 5)}
    store = SqliteStore(killed)
    assert store.size().decisions == 5 - loss.decisions
    store.close()


def test_a_log_whose_content_changed_is_told(killed: Path) -> None:
    log = Path(f"{killed}-wal")
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(StoreIncomplete):
        SqliteStore(killed)


def test_a_log_that_another_program_wrote_into_the_database_is_no_loss(killed: Path) -> None:
    with closing(sqlite3.connect(killed)) as other:
        assert other.execute("SELECT count(*) FROM decisions").fetchone() == (5,)
    assert not os.path.exists(f"{killed}-wal"), "the last that closes a database deletes its log"
    store = SqliteStore(killed)
    assert store.size().decisions == 5
    store.close()


def test_an_older_copy_in_the_place_of_the_store_is_told(path: Path, tmp_path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1)])
    store.close()
    shutil.copy(path, tmp_path / "older")
    store = SqliteStore(path)
    store.append([entry(2)])
    store.close()
    shutil.copy(tmp_path / "older", path)
    with pytest.raises(StoreIncomplete, match=r"1 decisions \(sequence 2 to 2\) are missing"):
        SqliteStore(path)


def test_a_store_that_was_deleted_between_two_starts_is_told(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1)])
    store.close()
    path.unlink()
    with pytest.raises(StoreIncomplete, match="another store"):
        SqliteStore(path)
    os.unlink(mark_path(path))  # as docs/operations.md says: whoever deletes a store deletes its mark
    SqliteStore(path).close()


def test_other_changes_are_told_as_decisions_are(path: Path) -> None:
    store = SqliteStore(path)
    store.add_api_key(ApiKey("k1", "a key", ("read",), "ab" * 32, NOON))
    store.close()
    copy = path.read_bytes()
    command = SqliteStore(path, exclusive=False)  # as `ras-triage keys revoke` does
    command.revoke_api_key("k1", NOON)
    command.close()
    path.write_bytes(copy)
    with pytest.raises(StoreIncomplete, match="1 changes of host facts, API keys or retention are missing"):
        SqliteStore(path)


def test_a_failed_commit_is_nothing_that_could_be_missing(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1, repeat_key=name("a"))])
    store.put_host(HostFacts("node-1", 1, NOON, b"{}"))
    with pytest.raises(Exception, match="UNIQUE"):
        store.append([entry(2, repeat_key=name("a"))])
    with pytest.raises(Exception, match="UNIQUE"):
        store.put_host(HostFacts("node-1", 1, NOON, b"{}"))
    os.unlink(mark_path(path))
    store._files._checked = 0.0
    store.maintain(1 << 20)
    mark = read_mark(path)
    assert mark is not None, "it is made again"
    assert (mark.sequence, mark.changes) == (1, 1)
    store.close()
    SqliteStore(path).close()


def test_a_mark_that_cannot_be_read_says_nothing(path: Path) -> None:
    store = SqliteStore(path)
    store.append([entry(1)])
    store.close()
    mark = Path(mark_path(path))
    for damaged in (b"", mark.read_bytes()[:20], mark.read_bytes().replace(b"RASmark1", b"RASmark2"), os.urandom(2000)):
        mark.write_bytes(damaged)
        assert read_mark(path) is None
        SqliteStore(path).close()
    assert read_mark(path) is not None


COUNTS = st.integers(0, (1 << 63) - 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(store_id=st.binary(min_size=16, max_size=16), first=COUNTS, then=COUNTS, changes=COUNTS, flipped=st.integers(0, 555))
def test_a_mark_is_read_as_it_was_written_or_not_at_all(
    store_id: bytes, first: int, then: int, changes: int, flipped: int, path: Path
) -> None:
    mark = MarkFile.create(path, Mark(store_id, first, 0))
    mark.set_sequence(then)
    mark.set_changes(changes)
    mark.close()
    assert read_mark(path) == Mark(store_id, then, changes)
    assert os.stat(mark_path(path)).st_mode & 0o077 == 0
    data = bytearray(Path(mark_path(path)).read_bytes())
    data[flipped % len(data)] ^= 0x10
    Path(mark_path(path)).write_bytes(data)
    assert read_mark(path) in (None, Mark(store_id, then, changes))


def test_the_mark_of_another_store_is_left_alone(path: Path) -> None:
    MarkFile.create(path, Mark(b"0123456789abcdef", 7, 8)).close()
    assert MarkFile.open_existing(path, b"another store...") is None


def test_the_command_line_says_what_is_missing_and_takes_the_acceptance(killed: Path) -> None:
    remove_log(killed)
    store = f"sqlite:///{killed}"
    refused = run("serve", "--port", "0", "--store", store)
    assert refused.returncode == 2
    assert b"lacks committed data" in refused.stderr
    assert b"ras-triage store accept-loss" in refused.stderr
    found = check(killed, read_stored_event, repair=True, at_ms=NOON)
    assert ([finding.kind for finding in found.findings], found.set_aside) == (["incomplete"], None), "that is no matter of repair"
    accepted = run("store", "accept-loss", "--store", store)
    assert accepted.returncode == 0
    assert b"loss recorded: 5 decisions" in accepted.stdout
    assert check(killed, read_stored_event, repair=False, at_ms=NOON).findings == ()


def test_a_loss_that_was_accepted_stays_in_sight(path: Path) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO losses VALUES (1, ?, 'damaged', 2, 3, 4, 0)", (NOON,))
        connection.commit()
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        shown = call("GET", "/v1/store").json()
        assert [(loss["reason"], loss["decisions"]) for loss in shown["losses"]] == [("damaged", 2)]
        assert shown["wal_bytes"] >= 0
        assert "ras_triage_store_lost_decisions 2.0" in call("GET", "/metrics").text
