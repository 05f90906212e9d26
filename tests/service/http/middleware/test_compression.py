"""Compression of responses: which ones, how they are read, and that streams are not held back."""

from __future__ import annotations

import asyncio
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from ras_triage.service.client import Client
from ras_triage.service.client.results import StreamedDecision
from ras_triage.service.http.middleware.compression import MIN_BYTES, PIECE, CompressionMiddleware, accepted_encoding
from tests.service.support.application import EVENT, NDJSON, ndjson
from tests.service.support.server_process import Service, serving

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BATCH = "/v1/decisions/batch"
ENCODINGS = pytest.mark.parametrize("encoding", ["gzip", "zstd"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder: Path = tmp_path_factory.mktemp("compression")
    with serving("--store", f"sqlite:///{folder / 'store.db'}") as service:
        events = [{**EVENT, "source": f"node-{number}", "id": f"e-{number}"} for number in range(100)]
        httpx.post(f"{service.url}{BATCH}", content=ndjson(events), headers=NDJSON).raise_for_status()
        yield service


def decompress(encoding: str, data: bytes) -> bytes:
    return zstd.decompress(data) if encoding == "zstd" else zlib.decompress(data, wbits=31)


def decoder(encoding: str) -> Any:
    return zstd.ZstdDecompressor() if encoding == "zstd" else zlib.decompressobj(wbits=31)


def raw(server: Service, method: str, path: str, encoding: str | None, **arguments: Any) -> tuple[httpx.Headers, bytes]:
    """The headers and the body of a response as they were sent."""
    headers = {**arguments.pop("headers", {}), "accept-encoding": encoding or ""}
    with httpx.stream(method, f"{server.url}{path}", headers=headers, timeout=60, **arguments) as answer:
        return answer.headers, b"".join(answer.iter_raw())


@ENCODINGS
@pytest.mark.parametrize(
    "path",
    [
        "/v1/decisions",
        "/v1/decisions?format=csv",
        "/v1/decisions/stats?bucket=1&group_by=source,physical_address&since=1d",
        "/openapi.json",
        "/v1/policies/uniform",
        "/metrics",
    ],
)
def test_a_long_response_is_compressed_where_the_client_accepts_it(server: Service, encoding: str, path: str) -> None:
    plain_headers, plain = raw(server, "GET", path, None)
    headers, packed = raw(server, "GET", path, encoding)

    assert "content-encoding" not in plain_headers
    assert headers["content-encoding"] == encoding
    assert "Accept-Encoding" in headers["vary"]
    assert headers["content-type"] == plain_headers["content-type"]
    assert len(plain) >= MIN_BYTES
    assert len(packed) < len(plain) / 2
    if path != "/metrics":
        assert decompress(encoding, packed) == plain


@ENCODINGS
def test_a_batch_is_compressed_and_has_the_same_results(server: Service, encoding: str) -> None:
    events = [{**EVENT, "source": "packed", "id": f"e-{number}"} for number in range(300)]
    path = f"{BATCH}?dry_run=true"
    _, plain = raw(server, "POST", path, None, content=ndjson(events), headers=NDJSON)
    headers, packed = raw(server, "POST", path, encoding, content=ndjson(events), headers=NDJSON)

    assert (headers["content-encoding"], headers["content-type"]) == (encoding, "application/x-ndjson")
    assert decompress(encoding, packed) == plain
    assert len(packed) < len(plain) / 5


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/healthz", None),
        ("POST", "/v1/decisions?dry_run=true", ndjson([EVENT])),
        ("GET", "/v1/nowhere", None),
    ],
)
def test_a_short_response_is_sent_as_it_is(server: Service, method: str, path: str, content: bytes | None) -> None:
    headers, body = raw(server, method, path, "gzip, zstd", content=content)

    assert "content-encoding" not in headers
    assert len(body) < MIN_BYTES


def test_a_response_with_a_tag_is_sent_as_it_is(server: Service) -> None:
    pages = [{"physical_address": hex(number << 12), "state": "free"} for number in range(200)]
    httpx.put(f"{server.url}/v1/hosts/tagged", json={"pages": pages}).raise_for_status()
    headers, body = raw(server, "GET", "/v1/hosts/tagged", "gzip, zstd")

    assert len(body) > MIN_BYTES
    assert headers["etag"]
    assert "content-encoding" not in headers


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        ("gzip", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0.1, gzip;q=0.2", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=x", None),
        ("br, deflate", None),
        ("*", None),
        ("", None),
        (";;,,", None),
    ],
)
def test_the_client_chooses_the_encoding(accept: str, encoding: str | None) -> None:
    assert accepted_encoding(accept) == encoding


@ENCODINGS
@pytest.mark.parametrize("size", [MIN_BYTES - 1, MIN_BYTES, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
@pytest.mark.parametrize("more", [False, True], ids=["whole", "in pieces"])
def test_any_body_reads_back_as_it_was(encoding: str, size: int, more: bool) -> None:
    body = bytes(number * number % 251 for number in range(size))
    length = [] if more else [(b"content-length", str(size).encode())]

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": length})
        if more:
            for start in range(0, size, 1 << 16):
                await send({"type": "http.response.body", "body": body[start : start + (1 << 16)], "more_body": True})
        await send({"type": "http.response.body", "body": b"" if more else body})

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "headers": [(b"accept-encoding", encoding.encode())]}
    asyncio.run(CompressionMiddleware(app)(scope, None, send))  # type: ignore[arg-type] # the application reads nothing
    start, *bodies = sent
    found = b"".join(message["body"] for message in bodies)

    packed = (b"content-encoding", encoding.encode()) in start["headers"]
    assert packed == (more or size >= MIN_BYTES)
    assert (decompress(encoding, found) if packed else found) == body
    assert [message.get("more_body", False) for message in bodies] == [True] * (len(bodies) - 1) + [False]


# Streams.


@ENCODINGS
def test_events_are_sent_at_once_under_compression(server: Service, encoding: str) -> None:
    headers = {"accept-encoding": encoding}
    with httpx.stream("GET", f"{server.url}/v1/decisions/stream?source=live", headers=headers, timeout=20) as stream:
        assert stream.headers["content-encoding"] == encoding
        assert stream.headers["content-type"].startswith("text/event-stream")
        parts, state, text = stream.iter_raw(), decoder(encoding), b""
        for number in range(3):
            httpx.post(f"{server.url}/v1/decisions", json={"source": "live", "id": f"{encoding} {number}", "notification": "polled"})
            while f'"event_id":"{encoding} {number}"'.encode() not in text:
                text += state.decompress(next(parts))


@ENCODINGS
def test_results_of_a_slow_sender_are_sent_at_once_under_compression(server: Service, encoding: str) -> None:
    url, state, text = httpx.URL(server.url), decoder(encoding), b""
    headers = [("Host", "127.0.0.1"), ("Accept-Encoding", encoding), ("Transfer-Encoding", "chunked"), *NDJSON.items()]
    http = h11.Connection(h11.CLIENT)
    with socket.create_connection((url.host, url.port or 0), timeout=20) as connection:
        connection.sendall(http.send(h11.Request(method="POST", target=BATCH, headers=headers)) or b"")
        for number in range(3):
            name = f"{encoding} {number}"
            connection.sendall(http.send(h11.Data(ndjson([{**EVENT, "source": "slow", "id": name}]))) or b"")
            while f'"event_id":"{name}"'.encode() not in text:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(connection.recv(1 << 16))
                elif isinstance(event, h11.Response):
                    assert (b"content-encoding", encoding.encode()) in list(event.headers)
                else:
                    assert isinstance(event, h11.Data)
                    text += state.decompress(bytes(event.data))


@ENCODINGS
def test_the_client_reads_compressed_lists_batches_and_streams(server: Service, encoding: str) -> None:
    with Client(server.url, headers={"accept-encoding": encoding}) as client:
        assert len({summary.id for summary in client.decisions(page_size=50, source="node-1*,node-2*")}) == 22
        assert len(list(client.decide_many([{**EVENT, "source": "client", "id": f"{encoding} {number}"} for number in range(20)]))) == 20
        first = next(iter(client.watch(last_event_id="0", source="client")))
    assert isinstance(first, StreamedDecision)
    assert first.decision.source == "client"
