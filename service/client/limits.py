"""Limits for responses that a client reads."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx
from httpx_sse import EventSource

from ras_triage.service.api.content_encoding import ContentDecoder, decoder_for
from ras_triage.service.client.errors import UnexpectedResponse

MAX_PROBLEM_BYTES: Final = 1 << 20
"""Bytes of the body of an error response. Of a longer one, such as the page of a proxy, only the status is used."""

_BLANK_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
"""Two line ends in a row, which end a server-sent event (WHATWG HTML 9.2.5)."""

_LONGEST_END: Final = 4
"""Bytes of the longest blank line."""


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """How much of a response is read before UnexpectedResponse is raised. Bytes are counted after decompression."""

    body_bytes: int = 64 << 20
    """Longest response body that is read as a whole."""
    line_bytes: int = 64 << 20
    """Longest line of a batch response, blank lines before it included, and longest server-sent event."""
    values: int = 4 << 20
    """JSON values of one document, counted by its commas: each needs much more memory than its bytes."""

    def require_values(self, document: bytes) -> None:
        """Raise UnexpectedResponse for a document that may have more values."""
        if document.count(b",") > self.values:
            raise UnexpectedResponse(f"more than {self.values} JSON values in a response")


def no_cookies() -> CookieJar:
    """Return a cookie jar that stores nothing: any response could set cookies for all later requests."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def decoded_body(response: httpx.Response) -> Iterator[bytes]:
    """Return the body in pieces of at most 256 KiB. Raises httpx.DecodingError."""
    if response.is_stream_consumed:  # a transport that responds from memory, as in tests, has decoded it
        yield from response.iter_bytes()
        return
    pieces = _unpacker_of(response)
    for chunk in response.iter_raw():
        yield from _pieces(pieces, chunk)
    _require_end(pieces)


async def decoded_body_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """Return the body in pieces of at most 256 KiB. Raises httpx.DecodingError."""
    if response.is_stream_consumed:
        async for chunk in response.aiter_bytes():
            yield chunk
        return
    pieces = _unpacker_of(response)
    async for chunk in response.aiter_raw():
        for piece in _pieces(pieces, chunk):
            yield piece
    _require_end(pieces)


def _unpacker_of(response: httpx.Response) -> ContentDecoder | None:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None
    found = decoder_for(encoding)
    if found is None:
        raise httpx.DecodingError(f"unexpected content encoding `{encoding}`")
    return found


def _pieces(decoder: ContentDecoder | None, chunk: bytes) -> Iterator[bytes]:
    if decoder is None:
        yield chunk
        return
    pieces = decoder.pieces(chunk)
    while True:
        try:
            piece = next(pieces, None)
        except ValueError as error:
            raise httpx.DecodingError(f"the response body does not match its content encoding: {error}") from error
        if piece is None:
            return
        yield piece


def _require_end(decoder_for: ContentDecoder | None) -> None:
    if decoder_for is not None and not decoder_for.complete:
        raise httpx.RemoteProtocolError("the response ended within its compressed data")


class _EventGuard:
    """Limit for the bytes of a server-sent event."""

    def __init__(self, limits: ResponseLimits) -> None:
        self._limit = limits.line_bytes
        self._size = 0
        self._end = b""

    def check(self, part: bytes) -> bytes:
        """Return the part. Raises UnexpectedResponse if an event is longer than the limit."""
        known = self._end + part
        ends = [found.end() for found in _BLANK_LINE.finditer(known)]
        self._size = len(known) - ends[-1] if ends else self._size + len(part)
        self._end = known[-_LONGEST_END:]
        if self._size > self._limit:
            raise UnexpectedResponse(f"server-sent event longer than {self._limit} bytes")
        return part


class _EventStream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The body of a stream of server-sent events, checked by _EventGuard."""

    def __init__(self, parts: Iterator[bytes] | AsyncIterator[bytes], limits: ResponseLimits) -> None:
        self._parts = parts
        self._guard = _EventGuard(limits)

    def __iter__(self) -> Iterator[bytes]:
        assert isinstance(self._parts, Iterator)
        return map(self._guard.check, self._parts)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._parts, AsyncIterator)
        async for part in self._parts:
            yield self._guard.check(part)


def event_source(parts: Iterator[bytes] | AsyncIterator[bytes], limits: ResponseLimits) -> EventSource:
    """Return the events in a decoded body, which is UTF-8 whatever its media type says (WHATWG HTML 9.2.5)."""
    return EventSource(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_EventStream(parts, limits)))
