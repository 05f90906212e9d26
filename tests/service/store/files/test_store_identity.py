"""Store files that are deleted, replaced or linked under a running service."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.store.files.identity import CHECK_S
from ras_triage.service.store.port import Filter, StoreUnavailable, StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore
from tests.paths import ROOT
from tests.service.support.application import EVENT, Call, client, run
from tests.service.support.server_process import serving
from tests.service.support.stored_decisions import entry, identity, name


def named(identity: str) -> dict[str, Any]:
    return {**EVENT, "id": identity}


def kind(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition(":")[2]


def delete(path: Path) -> None:
    path.unlink()


def delete_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace_folder(path: Path) -> None:
    shutil.copytree(path.parent, path.parent.with_name("copy"))
    shutil.rmtree(path.parent)
    path.parent.with_name("copy").rename(path.parent)


def replace(path: Path) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.replace(path)


def delete_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def replace_log(path: Path) -> None:
    log = Path(f"{path}-wal")
    shutil.copy(log, copy := path.with_name("copy"))
    copy.replace(log)


def delete_shared_memory(path: Path) -> None:
    Path(f"{path}-shm").unlink()


def link(path: Path) -> None:
    path.with_name("second.db").hardlink_to(path)


HARMS = [
    (delete, "the database file was deleted"),
    (replace, "the database file was replaced"),
    (delete_folder, "the database file was deleted"),
    (replace_folder, "the database file was replaced"),
    (delete_log, "the write-ahead log was deleted"),
    (replace_log, "the write-ahead log was replaced"),
    (delete_shared_memory, "the shared memory file was deleted"),
    (link, "the database file has a second name"),
]


@pytest.mark.parametrize(("harm", "reason"), HARMS)
def test_nothing_is_acknowledged_once_the_file_at_the_path_is_not_the_one_that_is_written(
    harm: Callable[[Path], None], reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "store.db"
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        first = call("POST", "/v1/decisions", json=named("before")).json()
        harm(path)
        for event in ("before", "after", "before"):  # a repeat is an acknowledgement as well
            answer = call("POST", "/v1/decisions", json=named(event))
            assert (answer.status_code, kind(answer)) == (503, "store-unavailable"), event
            assert answer.headers["retry-after"]
        batch = call("POST", "/v1/decisions/batch", json=[named("in a batch"), named("before")])
        assert {(item["status"], item["type"].rpartition(":")[2]) for item in batch.json()} == {(503, "store-unavailable")}
        ready = call("GET", "/readyz")
        assert (ready.status_code, kind(ready)) == (503, "not-ready")
        assert reason in ready.json()["detail"]
        assert str(tmp_path) not in answer.text + ready.text, "paths are for the log"
        assert call("GET", f"/v1/decisions/{first['id']}").status_code in (200, 503), "never another file's content"
    assert any(reason in getattr(record, "facts", {}).get("reason", "") for record in caplog.records)


@pytest.mark.parametrize(("harm", "reason"), HARMS)
def test_a_commit_right_after_a_check_finds_what_changed_since(harm: Callable[[Path], None], reason: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "store.db"
    store = SqliteStore(path)
    store.append([entry(1, repeat_key=name("1"))])
    os.utime(path.parent, (0, 0))  # as when it has not changed for long
    store._files.check()
    assert store._files._folder_state is not None, "now one look at the folder stands for all files"
    store.append([entry(2)])
    harm(path)
    with pytest.raises(StoreUnavailable, match=reason):
        store.append([entry(3)])
    store.close()


def test_a_link_from_elsewhere_is_found_a_moment_later(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "store.db"
    store = SqliteStore(path)
    os.utime(path.parent, (0, 0))
    store._files.check()
    (tmp_path / "second.db").hardlink_to(path)
    time.sleep(CHECK_S + 0.05)
    with pytest.raises(StoreUnavailable, match="second name"):
        store.append([entry(1)])
    store.close()


def move_away_and_back(path: Path, call: Call) -> None:
    path.rename(path.with_name("away"))
    assert call("POST", "/v1/decisions", json=named("meanwhile")).status_code == 503
    path.with_name("away").rename(path)


def link_and_unlink(path: Path, call: Call) -> None:
    link(path)
    assert call("POST", "/v1/decisions", json=named("meanwhile")).status_code == 503
    path.with_name("second.db").unlink()


@pytest.mark.parametrize("passing", [move_away_and_back, link_and_unlink])
def test_a_file_that_is_what_it_was_again_is_written_again(passing: Callable[[Path, Call], None], tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        call("POST", "/v1/decisions", json=named("before"))
        passing(path, call)
        assert call("POST", "/v1/decisions", json=named("meanwhile")).status_code in (200, 201)  # it may have been kept, unacknowledged
        assert call("GET", "/readyz").status_code == 200
    store = SqliteStore(path)
    assert [summary.event_id for summary in store.page(Filter(), None, 9).decisions] == ["meanwhile", "before"]
    store.close()


def test_a_commit_during_which_the_file_was_deleted_is_not_acknowledged_and_kept_once_where_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    check = store._files.check_quickly

    def delete_first() -> None:  # it is called after the commit
        path.rename(tmp_path / "away")
        check()

    store._files.check_quickly = delete_first  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable, match="deleted"):
        store.append([entry(1, repeat_key=name("1"))])
    store._files.check_quickly = check  # type: ignore[method-assign]
    (tmp_path / "away").rename(path)
    kept = store.repeat(name("1"))
    assert kept is not None, "what comes again is recognised"
    assert kept.id == identity(1)
    store.append([entry(2)])
    assert [streamed.sequence for streamed in store.after_sequence(0, Filter(), 9)[0]] == [1, 2]
    store.close()


def test_a_service_that_nobody_asks_says_within_a_second_that_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with serving("--store", f"sqlite:///{path}") as service:
        assert "ras_triage_ready 1.0" in httpx.get(f"{service.url}/metrics").text
        path.unlink()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not any("store failed" in line for line in service.log):
            time.sleep(0.02)
        assert [line for line in service.log if "store failed" in line and "the database file was deleted" in line]
        time.sleep(0.8)
        assert len([line for line in service.log if "store failed" in line]) == 1, "once, not twice a second"
        assert "ras_triage_ready 0.0" in httpx.get(f"{service.url}/metrics").text


def remove_lock(path: Path) -> Path:
    Path(f"{path}.lock").unlink()
    return path


def second_name(path: Path) -> Path:
    link(path)
    return path.with_name("second.db")


def symbolic_link(path: Path) -> Path:
    path.with_name("link.db").symlink_to(path)
    return path.with_name("link.db")


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [(remove_lock, "in use by another service"), (symbolic_link, "in use by another service"), (second_name, "has 2 names (hard links)")],
)
def test_a_second_process_does_not_open_a_store_that_is_in_use(meanwhile: Callable[[Path], Path], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    other = meanwhile(path)
    opening = f"from pathlib import Path\nfrom ras_triage.service.store.sqlite import SqliteStore\nSqliteStore(Path({str(other)!r}))"
    opened = subprocess.run([sys.executable, "-c", opening], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert reason in opened.stderr
    if meanwhile is second_name:
        other.unlink()
    store.append([entry(1)])
    store.close()


def test_two_services_started_at_once_on_a_store_without_its_lock_file_are_one_service(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with serving("--store", f"sqlite:///{path}"):
        Path(f"{path}.lock").unlink()
        second = run("serve", "--port", "0", "--store", f"sqlite:///{path}")
        assert second.returncode == 2
        assert b"in use by another service" in second.stderr


def test_a_store_with_two_names_is_not_opened_by_either(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    SqliteStore(path).close()
    link(path)
    for called in (path, path.with_name("second.db")):
        for exclusive in (True, False):
            with pytest.raises(StoreUnusable, match="hard links"):
                SqliteStore(called, exclusive=exclusive)


def test_a_command_that_ends_beside_the_service_leaves_the_log_alone(tmp_path: Path) -> None:
    """Closing a descriptor of the database drops the locks of the process on it, and then the next who closes deletes the log."""
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    store.append([entry(1)])
    inode = os.stat(f"{path}-wal").st_ino
    keys = run("keys", "create", "--name", "n", "--scope", "read", "--store", f"sqlite:///{path}")
    assert keys.returncode == 0, keys.stderr
    assert os.stat(f"{path}-wal").st_ino == inode
    store.append([entry(2)])
    store.close()


# What docs/operations.md says an operator should do.


@pytest.mark.parametrize("harm", [delete_log, delete_shared_memory])
def test_without_its_log_a_service_that_is_stopped_in_order_writes_everything_into_the_database(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    store.append([entry(number) for number in range(50)])
    harm(path)
    store.close()
    store = SqliteStore(path)
    assert store.size().decisions == 50
    store.close()


def test_a_deleted_database_can_be_copied_from_the_process_that_has_it_open(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    store.append([entry(number) for number in range(50)])
    for file in ("store.db", "store.db-wal", "store.db-shm"):
        (tmp_path / file).unlink()
    held = {os.readlink(handle): handle for handle in Path("/proc/self/fd").iterdir() if handle.is_symlink()}
    for file in ("store.db", "store.db-wal"):
        shutil.copy(held[f"{tmp_path}/{file} (deleted)"], tmp_path / file)
    store.close()
    for file in ("store.db", "store.db-wal"):
        assert (tmp_path / file).exists(), "the service does not delete what was put there"
    store = SqliteStore(path)
    assert store.size().decisions == 50
    store.close()
