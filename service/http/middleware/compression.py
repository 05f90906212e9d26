"""Compression of long responses and streams: gzip, zstd (ASGI middleware)."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ras_triage.service.http.negotiation import qualities

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIN_BYTES: Final = 4096
"""A response that is shorter is sent as it is: compressing a decision would take a tenth of the time in which it is made."""

PIECE: Final = 128 << 10
"""Bytes compressed in one pass of the event loop, in at most 2 ms."""

_GZIP_LEVEL: Final = 4
_ZSTD_LEVEL: Final = 1
"""Levels that compress at 100 and 300 MB/s."""

_GZIP_WINDOW, _GZIP_MEMORY = zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL
_STREAM_GZIP_WINDOW, _STREAM_GZIP_MEMORY = 13, 6
"""log2 of the window, and memory level; of an event stream, which is open for long: 64 KiB instead of 256 KiB each."""

_ZSTD_WINDOW: Final = 17
_STREAM_ZSTD_WINDOW: Final = 15
"""log2 of the window."""

_EVENTS: Final = "text/event-stream"


class _Encoder(Protocol):
    """Encoder of one response."""

    def encode(self, data: bytes, *, flush: bool, end: bool) -> bytes:
        """Return compressed bytes; with `flush` all that can be read from `data` on."""


class _Gzip:
    """gzip (RFC 1952)."""

    def __init__(self, *, for_events: bool) -> None:
        window, memory = (_STREAM_GZIP_WINDOW, _STREAM_GZIP_MEMORY) if for_events else (_GZIP_WINDOW, _GZIP_MEMORY)
        self._state = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + window, memory)

    def encode(self, data: bytes, *, flush: bool, end: bool) -> bytes:
        found = self._state.compress(data)
        return found + self._state.flush(zlib.Z_FINISH if end else zlib.Z_SYNC_FLUSH) if flush or end else found


class _Zstd:
    """Zstandard (RFC 8878)."""

    def __init__(self, *, for_events: bool) -> None:
        parameter = zstd.CompressionParameter
        window = _STREAM_ZSTD_WINDOW if for_events else _ZSTD_WINDOW
        self._state = zstd.ZstdCompressor(options={parameter.compression_level: _ZSTD_LEVEL, parameter.window_log: window})

    def encode(self, data: bytes, *, flush: bool, end: bool) -> bytes:
        state = self._state
        return state.compress(data, state.FLUSH_FRAME if end else state.FLUSH_BLOCK if flush else state.CONTINUE)


_ENCODERS: Final[dict[str, Callable[..., _Encoder]]] = {"zstd": _Zstd, "gzip": _Gzip}
"""The faster one first."""


@lru_cache(maxsize=64)
def accepted_encoding(accept: str) -> str | None:
    """Return the encoding that an `Accept-Encoding` prefers; None: no compression."""
    wanted = qualities(accept)
    best = max(_ENCODERS, key=lambda name: wanted.get(name, 0.0))
    quality = wanted.get(best, 0.0)
    return best if quality > 0 and quality >= wanted.get("identity", 0.0) else None


class CompressionMiddleware:
    """ASGI middleware that compresses responses for clients that accept it. Each piece of a stream is sent at once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoding = _encoding_for(scope) if scope["type"] == "http" else None
        await self.app(scope, receive, send if encoding is None else _Response(send, encoding).send)


def _encoding_for(scope: Scope) -> str | None:
    accepted = next((value for name, value in scope["headers"] if name == b"accept-encoding"), None)
    return None if accepted is None else accepted_encoding(accepted.decode("latin-1"))


class _Response:
    """One response, compressed if that is worth it."""

    def __init__(self, send: Send, encoding: str) -> None:
        self._send = send
        self._encoding = encoding
        self._encoder: _Encoder | None = None

    async def send(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            if _is_worth_it(message["status"], headers):
                self._encoder = _ENCODERS[self._encoding](for_events=headers.get("content-type", "").startswith(_EVENTS))
                del headers["content-length"]
                headers["content-encoding"] = self._encoding
                headers.add_vary_header("Accept-Encoding")
                message = {**message, "headers": headers.raw}
            await self._send(message)
        elif message["type"] == "http.response.body" and self._encoder is not None:
            await self._send_body(self._encoder, message.get("body", b""), more=message.get("more_body", False))
        else:
            await self._send(message)

    async def _send_body(self, encoder: _Encoder, body: bytes, *, more: bool) -> None:
        last = max(len(body) - 1, 0) // PIECE * PIECE
        for start in range(0, last, PIECE):
            piece = encoder.encode(body[start : start + PIECE], flush=False, end=False)
            if piece:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await self._send({"type": "http.response.body", "body": encoder.encode(body[last:], flush=True, end=not more), "more_body": more})


def _is_worth_it(status: int, headers: MutableHeaders) -> bool:
    """Return whether to compress a response. An `ETag` names its exact bytes, and `If-Match` compares it as it is."""
    if status in (204, 206, 304) or any(name in headers for name in ("content-encoding", "etag")):
        return False
    length = headers.get("content-length")
    return length is None or int(length) >= MIN_BYTES
