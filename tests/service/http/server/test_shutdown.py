"""Shutdown: requests in progress, durability, streams, exit status."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from threading import Thread

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server import run
from ras_triage.service.http.server.run import GRACE_S, running
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.server_process import Service, serving

EVENTS = 4000


def line(number: int) -> bytes:
    return json.dumps({"id": f"e-{number}", "source": "node-1", "notification": "polled"}).encode() + b"\n"


def stop(service: Service) -> float:
    """Seconds until it ended, which it says went well."""
    begun = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(GRACE_S + 5) == 0, "".join(service.log)
    return time.monotonic() - begun


def test_a_batch_that_was_taken_in_is_answered_whole_and_kept_when_the_service_is_told_to_stop(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with serving("--store", f"sqlite:///{path}") as service:
        body = b"".join(map(line, range(EVENTS)))
        answers: dict[str, bytes] = {}
        headers = {"content-type": "application/x-ndjson"}
        with httpx.stream("POST", f"{service.url}/v1/decisions/batch", content=body, headers=headers, timeout=30) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            taken: list[float] = []
            stopping = Thread(target=lambda: taken.append(stop(service)))
            stopping.start()
            for text in (first, *lines):
                answers[json.loads(text)["id"]] = text.encode()
        stopping.join()
    assert len(answers) == EVENTS
    assert max(taken) < GRACE_S
    store = SqliteStore(path)
    assert store.check() == []
    assert store.size().decisions == EVENTS
    for identity, told in answers.items():
        kept = store.decision(identity)
        assert kept is not None
        assert json.loads(told) == {**json.loads(kept.decision), **identifying(told)}
    store.close()


def identifying(text: bytes) -> dict[str, object]:
    """What the store keeps beside the decision."""
    content = json.loads(text)
    return {name: content[name] for name in ("index", "event_id", "id", "decided_at", "event_key", "repeat")}


def test_a_stream_of_decisions_ends_when_the_service_is_told_to_stop(tmp_path: Path) -> None:
    with (
        serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service,
        httpx.stream("GET", f"{service.url}/v1/decisions/stream", timeout=20) as answer,
    ):
        assert answer.status_code == 200
        assert stop(service) < GRACE_S
        assert b"error" not in b"".join(answer.iter_raw())


def test_a_batch_whose_sender_stalls_does_not_hold_the_service_beyond_its_grace_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    monkeypatch.setattr(run, "GRACE_S", 1)
    with running(Settings(store=f"sqlite:///{path}")) as url:
        head = (
            b"POST /v1/decisions/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-ndjson\r\nContent-Length: 100000\r\n\r\n"
        )
        sender = socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0))
        sender.sendall(head + b"".join(map(line, range(20))))
        time.sleep(0.5)
        begun = time.monotonic()
    assert time.monotonic() - begun < GRACE_S
    sender.close()
    store = SqliteStore(path)
    assert store.check() == []
    store.close()
