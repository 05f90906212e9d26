"""HTTP/1.1 load over kept connections, each with one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import NamedTuple

Address = tuple[str, int]


class Load(NamedTuple):
    """What a load came to."""

    seconds: float
    latencies: list[float]
    """Seconds of each request, in ascending order."""

    def percentile(self, percent: int) -> float:
        return self.latencies[min(len(self.latencies) * percent // 100, len(self.latencies) - 1)]


def post_request(path: str, body: bytes, media_type: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def send_load(address: Address, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Send requests for so long; every request that was begun is finished. SystemExit for an answer that is not 2xx."""
    return asyncio.run(_send_load(address, requests, connections, seconds))


async def _send_load(address: Address, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    began = time.perf_counter()
    opened = [loop.create_connection(lambda: _Connection(requests, latencies, began + seconds), *address) for _ in range(connections)]
    protocols = [protocol for _, protocol in await asyncio.gather(*opened)]
    await asyncio.gather(*(protocol.ended for protocol in protocols))
    return Load(time.perf_counter() - began, sorted(latencies))


class _Connection(asyncio.Protocol):
    """A connection that sends the next request when it has the whole answer, until the time is over.

    Streams of asyncio take three times as long, and the load shares the machine with what it measures.
    """

    def __init__(self, requests: Iterator[bytes], latencies: list[float], until: float) -> None:
        self._requests, self._latencies, self._until = requests, latencies, until
        self._answer = bytearray()
        self._head = self._length = -1
        """Where the body begins, and its length; -1 as long as that is not known, or where the body is chunked."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if self._head < 0 and not self._read_head():
            return
        if self._length >= 0 and len(self._answer) < self._head + self._length:
            return
        if self._length < 0 and not self._answer.endswith(b"\r\n0\r\n\r\n"):
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self.ended.set_result(None)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(SystemExit(f"the server closed a connection: {exc or bytes(self._answer)!r}"))

    def _send(self) -> None:
        self._answer.clear()
        self._head = self._length = -1
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def _read_head(self) -> bool:
        """Return whether the head is there. SystemExit if it is a refusal."""
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._answer[:end]).lower()
        if not head.startswith(b"http/1.1 2"):
            self.ended.set_exception(SystemExit(self._answer.decode(errors="replace")))
            self._transport.close()
            return False
        self._head = end + 4
        _, found, length = head.partition(b"\r\ncontent-length:")
        self._length = int(length.partition(b"\r\n")[0]) if found else -1
        return True
