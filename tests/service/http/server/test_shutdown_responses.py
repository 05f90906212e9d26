"""Responses to requests that a shutdown refuses or interrupts."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from ras_triage.service.api.problems import URN
from ras_triage.service.config.settings import Settings
from ras_triage.service.http import batch_run
from ras_triage.service.http.server import run
from ras_triage.service.http.server.run import running
from ras_triage.service.store.port import NewDecision
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT
from tests.service.support.import_examples import TRACE

NDJSON = "application/x-ndjson"
STOPPING = f"{URN}stopping"


@pytest.fixture(autouse=True)
def little_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 0.3)
    monkeypatch.setattr(run, "LINGER_S", 0.2)
    monkeypatch.setattr(batch_run, "IDLE_S", 0.3)


class Stuck(TemporaryStore):
    """A store that keeps nothing more from a marked event on, until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = Event()
        self.reached = Event()

    def append(self, entries: Sequence[NewDecision]) -> None:
        if any(entry.summary.source == "stuck" for entry in entries):
            self.reached.set()
            self.let.wait(60)
        super().append(entries)


@pytest.fixture
def store() -> Iterator[Stuck]:
    store = Stuck()
    yield store
    store.let.set()


class Client:
    """One connection."""

    def __init__(self, url: str) -> None:
        address = httpx.URL(url)
        self.socket = socket.create_connection((address.host, address.port), timeout=20)

    def send(self, path: str, body: bytes, length: int | None = None, media_type: str = "application/json", method: str = "POST") -> None:
        """A request whose body may be announced to be longer than what is sent."""
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {media_type}\r\nContent-Length: {length or len(body)}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def read(self) -> httpx.Response:
        """One answer, whole."""
        stream = self.socket.makefile("rb")
        status = int(stream.readline().split()[1])
        headers = httpx.Headers()
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return httpx.Response(status, headers=headers, content=_body(stream, headers))


def _body(stream: Any, headers: httpx.Headers) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return bytes(stream.read(int(headers["content-length"])))
    content = b""
    while size := int(stream.readline(), 16):
        content += stream.read(size)
        assert stream.readline() == b"\r\n"
    return content


class Service:
    """The service in a thread."""

    def __init__(self, store: TemporaryStore | None = None) -> None:
        self._context = running(Settings(), store)
        self.url = self._context.__enter__()
        assert httpx.get(f"{self.url}/healthz", timeout=20).status_code == 200

    def client(self) -> Client:
        return Client(self.url)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """It is told to stop, and the block runs meanwhile."""
        stopping = Thread(target=self._context.__exit__, args=(None, None, None))
        stopping.start()
        try:
            yield
        finally:
            stopping.join()


def is_stopping(answer: httpx.Response) -> bool:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == STOPPING
    assert answer.json()["status"] == answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-request-id"]
    return True


def line(number: int, source: str = "s") -> bytes:
    return json.dumps({"source": source, "id": f"e-{number}", "notification": "polled"}).encode()


def test_a_request_whose_body_does_not_come_is_told_that_the_service_stops() -> None:
    service = Service()
    clients = {path: service.client() for path in ("/v1/decisions", "/v1/decode", "/v1/decisions/batch", "/v1/import")}
    for path, client in clients.items():
        client.send(path, b"[" if path.endswith("batch") else b'{"', length=1000)
    time.sleep(0.1)
    with service.stopping():
        assert all(is_stopping(client.read()) for client in clients.values())


def test_a_decision_that_is_not_kept_in_time_is_told_that_the_service_stops(store: Stuck) -> None:
    service = Service(store)
    client = service.client()
    client.send("/v1/decisions", json.dumps({**EVENT, "source": "stuck"}).encode())
    assert store.reached.wait(10)
    with service.stopping():
        assert is_stopping(client.read())
        store.let.set()


def test_a_client_that_goes_on_sending_can_read_that_the_service_stops() -> None:
    service = Service()
    client = service.client()
    client.send("/v1/decode", b"{", length=1 << 22)
    time.sleep(0.1)  # a connection that is not accepted yet is reset
    told: list[httpx.Response] = []
    reading = Thread(target=lambda: told.append(client.read()))
    with service.stopping():
        reading.start()
        while reading.is_alive():
            client.socket.sendall(b" " * 1000)
            time.sleep(0.002)
        reading.join()
    assert is_stopping(told[0])


@pytest.mark.parametrize("form", ["lines", "array"])
def test_each_event_of_a_batch_that_is_not_answered_has_a_problem_in_its_place(store: Stuck, form: str) -> None:
    """Three are kept, four wait for the store, and the rest was not read."""
    events = [line(0), line(1), line(2), line(3, "stuck"), line(4), line(5), line(6)]
    between, opening, media_type = (b"\n", b"", NDJSON) if form == "lines" else (b",", b"[", "application/json")
    service = Service(store)
    client = service.client()
    client.send("/v1/decisions/batch", opening + between.join([*events[:3], b""]), length=1 << 20, media_type=media_type)
    time.sleep(1.0)  # the answer begins when the sender has paused
    client.socket.sendall(between.join([*events[3:], b""]))
    assert store.reached.wait(10)
    with service.stopping():
        answer = client.read()
        store.let.set()
    results = [json.loads(text) for text in answer.text.splitlines()] if form == "lines" else answer.json()

    assert answer.status_code == 200
    assert [result.get("action") for result in results[:3]] == ["handled"] * 3
    assert [(result["type"], result["status"]) for result in results[3:]] == [(STOPPING, 503)] * 5


def test_a_batch_that_can_be_finished_is_answered_as_it_would_have_been(store: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 20)
    service = Service(store)
    client = service.client()
    client.send("/v1/decisions/batch", b"\n".join(line(number, "stuck") for number in range(20)), media_type=NDJSON)
    assert store.reached.wait(10)
    with service.stopping():
        time.sleep(0.2)
        store.let.set()
        answer = client.read()

    assert [json.loads(text)["repeat"] for text in answer.text.splitlines()] == [False] * 20


def test_an_import_that_is_broken_off_says_so_behind_what_it_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service()
    client = service.client()
    monkeypatch.setattr("ras_triage.service.http.import_run.HOLD_S", 0.3)
    client.send("/v1/import", TRACE * 3000, length=1 << 20)
    assert client.socket.recv(1, socket.MSG_PEEK)
    with service.stopping():
        answer = client.read()
    lines = [json.loads(text) for text in answer.text.splitlines()]

    assert answer.status_code == 200
    assert len(lines) > 1
    assert all("problem" not in one for one in lines[:-1])
    assert (lines[-1]["problem"]["type"], lines[-1]["problem"]["status"]) == (STOPPING, 503)


def test_connections_that_are_kept_are_answered_until_the_requests_under_way_are_done() -> None:
    service = Service()
    slow, kept, probing, asking = (service.client() for _ in range(4))
    for client in (kept, probing, asking):
        client.send("/healthz", b"", method="GET")
        assert client.read().status_code == 200
    slow.send("/v1/decisions", b'{"', length=1000)
    time.sleep(0.1)
    with service.stopping():
        time.sleep(0.2)
        kept.send("/v1/decisions", line(1))
        refused = kept.read()
        assert is_stopping(refused)
        assert refused.headers["connection"] == "close"
        probing.send("/healthz", b"", method="GET")
        assert (alive := probing.read()).status_code == 200
        assert alive.headers["connection"] == "close"
        asking.send("/readyz", b"", method="GET")
        assert asking.read().json()["detail"] == "the service is stopping"
        assert kept.socket.recv(1) == b""
        assert is_stopping(slow.read())


def test_a_service_without_requests_stops_at_once_although_connections_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "GRACE_S", 60)
    service = Service()
    kept = service.client()
    kept.send("/healthz", b"", method="GET")
    assert kept.read().status_code == 200
    begun = time.monotonic()
    with service.stopping():
        assert kept.socket.recv(1) == b""
    assert time.monotonic() - begun < 20
