"""HTTP servers on loopback whose response a test writes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread

MOST = 8 << 20
"""Bytes after which an answer without end ends all the same, so that a client without limits fails a test and does not stall it."""


@dataclass
class Asked:
    """A request, and the connection that it came over."""

    connection: socket.socket
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.line.split(" ")[1].partition("?")[0]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def send_without_end(self, head: bytes, piece: bytes) -> None:
        self.send(head)
        for _ in range(MOST // len(piece)):
            self.send(piece)


Answer = Callable[[Asked], None]


def head(media_type: str = "application/json", status: str = "200 OK", **headers: str) -> bytes:
    """The head of an answer whose body ends with the connection."""
    fields = {"content-type": media_type, "connection": "close", **{name.replace("_", "-"): field for name, field in headers.items()}}
    return f"HTTP/1.1 {status}\r\n".encode() + b"".join(f"{name}: {field}\r\n".encode() for name, field in fields.items()) + b"\r\n"


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """A service that answers so, each connection once, for as long as the context lasts; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_accept, args=(listener, answer), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, answer: Answer) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            Thread(target=_answer, args=(connection, answer), daemon=True).start()


def _answer(connection: socket.socket, answer: Answer) -> None:
    with connection, suppress(OSError):  # the client may hang up at any time
        stream = connection.makefile("rb")
        line = stream.readline().decode().strip()
        if not line:
            return
        headers = {}
        while field := stream.readline().strip():
            name, _, content = field.decode("latin-1").partition(":")
            headers[name.lower()] = content.strip()
        answer(Asked(connection, line, headers, stream.read(int(headers.get("content-length", 0)))))
