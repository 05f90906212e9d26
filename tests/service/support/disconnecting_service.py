"""Test service that closes connections within batch responses."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread

from ras_triage.service.client.chunk_state import PLACEHOLDER


@dataclass
class Asked:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[bytes]:
        return [line for line in self.body.split(b"\n") if line.strip()]


@dataclass
class CutOff:
    """Decides by name: an event that comes again under its key and position has the decision it had."""

    cuts: list[int | None]
    """For each answer in turn: the bytes of its body after which the connection is reset; None, and when they run out: not at all."""
    bad: tuple[bytes, int] | None = None
    """A line that it does not bear, and what it does then: 0 hangs up before that answer, else the status that it answers with."""
    refuses_all: bool = False
    asked: list[Asked] = field(default_factory=list)
    decided: dict[tuple[str, int], tuple[bytes, str]] = field(default_factory=dict)

    def respond(self, asked: Asked) -> tuple[int, bytes, int | None]:
        """Status and body of an answer, and after how many bytes it is cut."""
        lines = asked.lines
        if self.bad is None or (self.bad[0] not in lines and not self.refuses_all):
            return 200, self._answer(asked, lines), self.cuts.pop(0) if self.cuts else None
        if self.bad[1]:
            return self.bad[1], b'{"type":"x","title":"no","status":%d,"detail":"no"}' % self.bad[1], None
        body = self._answer(asked, lines[: lines.index(self.bad[0])])
        return 200, body, len(body)

    def _answer(self, asked: Asked, lines: list[bytes]) -> bytes:
        return b"".join(self._decide(asked.headers["idempotency-key"], place, line) for place, line in enumerate(lines))

    def _decide(self, key: str, place: int, line: bytes) -> bytes:
        if line == PLACEHOLDER:
            return b'{"status":422,"type":"x"}\n'
        repeat = (key, place) in self.decided
        first, identity = self.decided.setdefault((key, place), (line, f"id-{len(self.decided)}"))
        assert first == line, "another event under the same key and position"
        return json.dumps({"id": identity, "action": "handled", "repeat": repeat, "said": json.loads(line)}).encode() + b"\n"


def _read(connection: socket.socket) -> Asked | None:
    stream = connection.makefile("rb")
    line = stream.readline().decode().strip()
    if not line:
        return None
    headers = {}
    while header := stream.readline().strip():
        name, _, value = header.decode().partition(":")
        headers[name.lower()] = value.strip()
    return Asked(line, headers, stream.read(int(headers.get("content-length", 0))))


def _serve(listener: socket.socket, service: CutOff) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            if (asked := _read(connection)) is None:
                continue
            service.asked.append(asked)
            status, body, cut = service.respond(asked)
            head = (
                b"HTTP/1.1 %d OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n" % status
            )
            connection.sendall(head + b"%x\r\n" % len(body) + body[:cut])
            if cut is None:
                connection.sendall(b"\r\n0\r\n\r\n")
            else:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0) if cut % 2 else struct.pack("ii", 0, 0))


@contextmanager
def serving(service: CutOff) -> Iterator[str]:
    """The service on a free loopback port; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=_serve, args=(listener, service), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
