"""Raw connections to a service, for clients that violate HTTP."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 20.0

_CLIENT = httpx.Client(headers={"connection": "close"})
"""Made once: each client reads the machine's certificates."""


def address(url: str) -> tuple[str, int]:
    """Return host and port of a service."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def connect(url: str, source: str = "127.0.0.1", receive_buffer: int | None = None) -> socket.socket:
    """Open a connection, from an address of choice."""
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE_S)
    connection.bind((source, 0))
    connection.connect(address(url))
    return connection


def head(path: str, *headers: str, method: str = "POST") -> bytes:
    """Return a request head."""
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "")).encode()


def received(connection: socket.socket) -> bytes:
    """Return what comes until the connection is closed or reset."""
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def read_until(connection: socket.socket, ending: bytes) -> bytes:
    """Return what comes up to some bytes."""
    data = b""
    while ending not in data:
        piece = connection.recv(1 << 16)
        assert piece, f"closed after {data!r}"
        data += piece
    return data


def is_closed(connection: socket.socket) -> bool:
    """Return whether the other side has closed the connection by now."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)


def responses(answer: bytes) -> int:
    """Return how many responses there are in what was received."""
    return len(re.findall(rb"^HTTP/1\.1 ", answer, re.MULTILINE))


def problem(answer: bytes) -> tuple[int, str, dict[str, Any]]:
    """Return status, type and document of a problem that is the only answer in these bytes."""
    lines, _, body = answer.partition(b"\r\n\r\n")
    assert responses(answer) == 1, answer
    assert b"content-type: application/problem+json" in lines
    document = json.loads(body)
    assert int(lines.split()[1]) == document["status"]
    return document["status"], document["type"].rpartition(":")[2], document


def metric(url: str, name: str, **labels: str) -> float:
    """Return a sample of the service's metrics; 0 where nothing was counted."""
    for family in text_string_to_metric_families(_CLIENT.get(f"{url}/metrics").text):
        for sample in family.samples:
            if sample.name == f"ras_triage_{name}" and sample.labels == labels:
                return sample.value
    return 0.0


def wait_until(holds: Any, seconds: float = PATIENCE_S) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)
