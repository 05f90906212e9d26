from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx
import pytest
from calling import EVENT

ROOT = Path(__file__).parents[2]


class Server:
    """`ras-triage serve` as its own process, on a port of its choice."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", "0", "--store", "memory:"]
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


def say(server: Server, *said: bytes) -> bytes:
    """What a connection hears that says this, pausing in between, until the server hangs up."""
    address = urlsplit(server.url)
    heard = b""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as client:
        for piece in said:
            client.sendall(piece)
            time.sleep(1.5 if len(said) > 1 else 0)
        while data := client.recv(1 << 16):
            heard += data
    return heard


CHUNKED = (
    b"POST /v1/decisions/batch HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: broken-1\r\nContent-Type: application/x-ndjson\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.mark.parametrize(
    "said",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"POST /v1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        CHUNKED + b"nonsense\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_a_problem_too(server: Server, said: bytes) -> None:
    head, _, body = say(server, said).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert (json.loads(body)["type"], json.loads(body)["status"]) == ("urn:ras-triage:problem:malformed-request", 400)


def test_an_answer_under_way_is_broken_off_where_its_request_turns_out_to_be_no_http(server: Server) -> None:
    event = b'{"notification": "polled"}\n'
    heard = say(server, CHUNKED + b"%x\r\n%s\r\n" % (len(event), event), b"nonsense\r\n")

    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"action":"handled"' in heard
    assert not heard.endswith(b"0\r\n\r\n")
    assert server.logged("request_id=broken-1 principal=anonymous method=POST route=/v1/decisions/batch status=499 ")
    assert "LocalProtocolError" not in "".join(server.log)


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
