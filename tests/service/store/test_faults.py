"""Faults of disk, file and clock: clear refusal, recovery, no lost decision."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.store.port import Filter, RowDamaged, StoreDamaged, StoredDecision, StoreError
from ras_triage.service.store.temporary import TemporaryStore
from tests.paths import ROOT
from tests.service.support.application import EVENT, client, run
from tests.service.support.server_process import Service, serving


def named(name: str) -> dict[str, Any]:
    return {**EVENT, "id": name}


def decide(url: str, name: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/decisions", json=named(name), timeout=20)


def kind(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"]).rpartition(":")[2]


def logged(service: Service, *parts: str) -> bool:
    """Whether a line of its log says all of this, or soon does."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if any(all(part in line for part in parts) for line in service.log):
            return True
        time.sleep(0.02)
    return False


AS_NOBODY = (
    "import os, sys, ras_triage.service.http.server.run\n"
    "from ras_triage.service.cli.main import main\n"
    "os.setuid(65534)\n"
    "sys.exit(main(sys.argv[1:]))"
)
"""The interpreter may be out of reach for somebody else, so it is loaded first."""


def refuses_to_start(*options: str) -> str:
    return refusal(run("serve", "--port", "0", *options))


def refusal(ended: subprocess.CompletedProcess[bytes]) -> str:
    """Return what a service that did not start says."""
    said = ended.stderr.decode()
    assert ended.returncode == 2, said
    assert "Traceback" not in said
    return said


def test_a_full_disk_refuses_what_is_new_keeps_what_was_answered_and_is_recovered_from(tmp_path: Path) -> None:
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service:
        answered = {"before": decide(service.url, "before").json()}
        full = (256 << 10, resource.RLIM_INFINITY)
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, full)
        for number in range(400):
            answer = decide(service.url, f"e-{number}")
            if answer.status_code != 201:
                break
            answered[f"e-{number}"] = answer.json()
        assert (answer.status_code, kind(answer)) == (503, "store-unavailable")
        assert answer.headers["retry-after"]
        ready = httpx.get(f"{service.url}/readyz")
        assert (ready.status_code, kind(ready)) == (503, "not-ready")
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        assert logged(service, "store failed", "StoreUnavailable", "reason=")
        batch = httpx.post(f"{service.url}/v1/decisions/batch", json=[named("batch")], timeout=20)
        assert (batch.status_code, batch.json()[0]["status"]) == (207, 503)
        for decision in answered.values():
            assert httpx.get(f"{service.url}/v1/decisions/{decision['id']}").json() == decision

        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert decide(service.url, "after").status_code == 201
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        listed = httpx.get(f"{service.url}/v1/decisions", params={"limit": 1000}).json()["decisions"]
        assert sorted(decision["event_id"] for decision in listed) == sorted([*answered, "after"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_store_that_cannot_be_written_is_no_store_to_start_with() -> None:
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to everybody else
        path = Path(folder) / "store.db"
        with serving("--store", f"sqlite:///{path}"):
            pass
        for file in path.parent.iterdir():
            file.chmod(0o444)
        path.parent.chmod(0o555)

        command = [sys.executable, "-c", AS_NOBODY, "serve", "--port", "0", "--store", f"sqlite:///{path}"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=30, check=False)
        assert "cannot be opened for writing" in refusal(ended)


def test_a_store_in_a_folder_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "store.db"

    assert str(path) in refuses_to_start("--store", f"sqlite:///{path}")


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 1000)

    assert "damaged" in refuses_to_start("--store", f"sqlite:///{path}")
    assert path.read_bytes() == b"not a database" * 1000


def test_a_second_service_on_a_store_is_refused(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    with serving("--store", store):
        assert "in use by another service" in refuses_to_start("--store", store)


def test_a_page_that_was_overwritten_gives_an_error_and_never_a_wrong_answer(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with serving("--store", f"sqlite:///{path}") as service:
        answered = [decide(service.url, f"e-{number}").json() for number in range(100)]
        service.process.terminate()
        service.process.wait(20)
    data = bytearray(path.read_bytes())
    for page in range(42, len(data) // 4096, 3):
        data[page * 4096 + 200 : page * 4096 + 3000] = bytes(2800)
    path.write_bytes(data)

    with serving("--store", f"sqlite:///{path}") as service:
        outcomes = set()
        for decision in answered:
            answer = httpx.get(f"{service.url}/v1/decisions/{decision['id']}", timeout=20)
            outcomes.add(answer.status_code)
            assert answer.json() == decision if answer.status_code == 200 else kind(answer) in ("store-damaged", "not-found")
        assert 500 in outcomes
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        again = [decide(service.url, f"e-{number}") for number in range(100)]
        assert "store-damaged" in {kind(answer) for answer in again if answer.is_error}
        assert logged(service, "store failed", "StoreDamaged", "malformed", "request_id=")
        assert 'ras_triage_store_failures_total{error="StoreDamaged"}' in httpx.get(f"{service.url}/metrics").text
        assert httpx.get(f"{service.url}/healthz").status_code == 200


def change(path: Path, sql: str) -> None:
    """Change the file behind the store's back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(sql)
        connection.commit()


def test_a_damaged_row_answers_for_itself_only_and_the_service_stays_ready(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        ids = [call("POST", "/v1/decisions", json=named(f"e-{number}")).json()["id"] for number in range(5)]
    change(path, "UPDATE bodies SET decision = x'7b7d' WHERE seq = 3")
    change(path, "UPDATE decisions SET sections = '[' WHERE seq = 4")
    with client(create_app(Settings(store=f"sqlite:///{path}"))) as call:
        assert [call("GET", f"/v1/decisions/{identity}").status_code for identity in ids] == [200, 200, 500, 200, 200]
        again = [call("POST", "/v1/decisions", json=named(f"e-{number}")) for number in range(5)]
        assert [answer.status_code for answer in again] == [200, 200, 500, 200, 200]
        assert kind(again[2]) == "store-damaged"
        assert call("GET", "/readyz").status_code == 200
        batch = call("POST", "/v1/decisions/batch", json=[named(f"e-{number}") for number in range(7)]).json()
        assert [item.get("status") for item in batch] == [None, None, 500, None, None, None, None]
        assert call("GET", "/readyz").status_code == 200
        listed = call("GET", "/v1/decisions").json()
        assert (len(listed["decisions"]), listed["damaged"]) == (6, 1)


def test_a_store_in_which_no_repeat_can_be_recognised_is_not_ready_and_one_that_answers_again_is() -> None:
    class Failing(TemporaryStore):
        error: StoreError | None = None

        def repeat(self, key: bytes) -> StoredDecision | None:
            if self.error is not None:
                raise self.error
            return super().repeat(key)

    store = Failing()
    with client(create_app(Settings(), store)) as call:
        store.error = StoreDamaged("database disk image is malformed")
        assert kind(call("POST", "/v1/decisions", json=named("e-1"))) == "store-damaged"
        ready = call("GET", "/readyz")
        assert (ready.status_code, kind(ready)) == (503, "not-ready")
        assert "not readable" in ready.json()["detail"]
        store.error = None
        assert call("POST", "/v1/decisions", json=named("e-1")).status_code == 201
        assert call("GET", "/readyz").status_code == 200
        store.error = RowDamaged("a decision is not what was kept")
        assert kind(call("POST", "/v1/decisions", json=named("e-1"))) == "store-damaged"
        assert call("GET", "/readyz").status_code == 200, "the fault of one row"


def test_a_clock_that_jumps_back_loses_nothing_and_repeats_no_id() -> None:
    readings = [5000, 6000, 1000, 2000, 7000]
    shown = [0]
    app = create_app(Settings(), clock_ms=lambda: shown[0])
    with client(app) as call:
        runtime: Runtime = app.state.runtime
        answers = []
        for number, shown[0] in enumerate(readings):
            answers.append(call("POST", "/v1/decisions", json=named(f"e-{number}")).json())
        listed = call("GET", "/v1/decisions").json()["decisions"]
        followed, _ = runtime.store.after_sequence(0, Filter(), 100)

    assert len({answer["id"] for answer in answers}) == 5
    assert [streamed.summary.event_id for streamed in followed] == [f"e-{number}" for number in range(5)]
    assert [decision["event_id"] for decision in listed] == ["e-4", "e-1", "e-0", "e-3", "e-2"]
