"""Server process: listening, malformed requests, log."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Thread
from urllib.parse import urlsplit

import httpx
import pytest

from tests.paths import ROOT
from tests.service.support.application import EVENT


class Server:
    """`ras-triage serve` as its own process, on a port of its choice."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "ras_triage.service.cli.main", "serve", "--port", "0", "--store", "memory:"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self.url = self._wait()
        Thread(target=self._collect, daemon=True).start()

    def _wait(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if running := re.search(r"http://[\d.]+:\d+", line):
                return running[0]
        raise AssertionError("".join(self.log))

    def _collect(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)

    def logged(self, text: str) -> bool:
        """Whether a line says this, or soon does."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if any(text in line for line in self.log):
                return True
            time.sleep(0.02)
        return False


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.wait()


def test_it_listens_on_loopback_and_decides(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    answer = httpx.post(f"{server.url}/v1/decisions", json=EVENT)
    assert answer.status_code == 201
    assert answer.json()["action"] == "signal"
    assert "server" not in answer.headers


def test_it_refuses_a_chunked_body_over_the_limit(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/decisions", content=(b" " * 65536 for _ in range(100)))

    assert answer.status_code == 413
    assert answer.json()["type"].endswith("payload-too-large")


def test_a_client_that_goes_away_while_it_sends_is_one_line_of_the_log(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        client.sendall(b"POST /v1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: gone-1\r\nContent-Length: 1000\r\n\r\n{")

    assert server.logged("request_id=gone-1 principal=anonymous method=POST route=/v1/decisions status=499 ")
    assert "Traceback" not in "".join(server.log)


def connected(server: Server) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def said(connection: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    pieces = []
    while piece := connection.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 nonsense\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/decisions/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_answered_as_everything_is_and_hung_up_on(server: Server, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        head, _, body = said(connection).partition(b"\r\n\r\n")

    status, *headers = head.decode().split("\r\n")
    given = dict(header.split(": ", 1) for header in headers)
    assert status == "HTTP/1.1 400 Bad Request"
    assert json.loads(body)["type"] == "urn:ras-triage:problem:not-http"
    assert given["content-type"] == "application/problem+json"
    assert (given["x-content-type-options"], given["referrer-policy"], given["connection"]) == ("nosniff", "no-referrer", "close")
    assert server.logged(f"malformed request request_id={given['x-request-id']} ")


def test_uvicorn_adds_no_lines_of_its_own_for_malformed_requests_and_upgrades(server: Server) -> None:
    for sent in (b"nonsense\r\n\r\n", b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"):
        with connected(server) as connection:
            connection.sendall(sent)
            said(connection)

    assert server.logged("route=/healthz")
    assert "Invalid HTTP request" not in "".join(server.log)
    assert "pgrade" not in "".join(server.log)


def test_what_stops_being_http_while_it_is_answered_is_hung_up_on_and_no_defect(server: Server) -> None:
    line = json.dumps(EVENT).encode()
    with connected(server) as connection:
        connection.sendall(
            b"POST /v1/decisions/batch HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: broke-off\r\nContent-Type: application/x-ndjson\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\n\r\n" % (len(line) + 1, line)
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")  # a sender that pauses gets what there is
        connection.sendall(b"zz\r\n")
        assert b"not-http" not in said(connection)

    assert server.logged("request_id=broke-off principal=anonymous method=POST route=/v1/decisions/batch status=499 ")
    assert "Fatal error" not in "".join(server.log)


def test_the_log_has_no_bytes_of_an_event_and_standard_output_has_nothing(server: Server) -> None:
    httpx.post(f"{server.url}/v1/decisions", json={**EVENT, "status_block": "%%%"})
    httpx.post(f"{server.url}/v1/decisions", json=EVENT)
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(15)

    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""
    assert EVENT["status_block"][:20] not in "".join(server.log)
    assert "%%%" not in "".join(server.log)
    assert "Traceback" not in "".join(server.log)
