"""Chunks of events, each sent as one batch request.

Chunks depend on the events and on FLUSH between them only, so that a run that is repeated has the same chunks with the same
idempotency keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, Final

from pydantic_core import from_json, to_json

from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 1 << 20
"""Limits of a chunk; a longer event has a chunk of its own."""

AnyEvent = Event | Mapping[str, Any] | bytes
"""An event: a model, a JSON object, or JSON as bytes."""


class Flush(Enum):
    """Marker among events."""

    FLUSH = "flush"


FLUSH: Final = Flush.FLUSH
"""Among events: those before it are sent at once, in a chunk that may have room left."""

SentEvent = AnyEvent | Flush
"""What an iterable of events may have."""


@frozen
class Chunk:
    """Consecutive events."""

    first: int
    """Index of the first among all events, from 0."""
    lines: tuple[bytes, ...]


def event_json(event: AnyEvent) -> bytes:
    """Return an event as JSON; bytes are unchanged. Fields that a model does not set are not sent."""
    if isinstance(event, bytes):
        return event
    return event.model_dump_json(exclude_unset=True).encode() if isinstance(event, Event) else to_json(event)


def event_line(event: AnyEvent) -> bytes:
    """Return an event as one line without its end. Invalid JSON stays invalid, so that the service refuses it in its place."""
    document = event_json(event).strip()
    if not document:
        return b"\0"
    if b"\n" not in document:
        return document
    return document.replace(b"\n", b" " if _is_json(document) else b"\0")


def _is_json(document: bytes) -> bool:
    try:
        from_json(document)
    except ValueError:
        return False
    return True


class _ChunkBuilder:
    """A chunk that grows until it is full."""

    def __init__(self) -> None:
        self.first = self.size = 0
        self.lines: list[bytes] = []

    def add(self, event: SentEvent) -> Chunk | None:
        """Add an event. Return the chunk before it if that was full, or is to be sent."""
        if event is FLUSH:
            return self.take() if self.lines else None
        line = event_line(event)
        full = len(self.lines) == MAX_EVENTS or (self.lines and self.size + len(line) > MAX_BYTES)
        chunk = self.take() if full else None
        self.lines.append(line)
        self.size += len(line) + 1
        return chunk

    def take(self) -> Chunk:
        """Return the chunk and begin the next."""
        chunk = Chunk(self.first, tuple(self.lines))
        self.first += len(self.lines)
        self.lines, self.size = [], 0
        return chunk


def chunks(events: Iterable[SentEvent]) -> Iterator[Chunk]:
    """Yield the events as chunks."""
    builder = _ChunkBuilder()
    for event in events:
        if chunk := builder.add(event):
            yield chunk
    if builder.lines:
        yield builder.take()


async def chunks_async(events: AsyncIterable[SentEvent] | Iterable[SentEvent]) -> AsyncIterator[Chunk]:
    """Yield the events as chunks as they come."""
    if not isinstance(events, AsyncIterable):
        for chunk in chunks(events):
            yield chunk
        return
    builder = _ChunkBuilder()
    async for event in events:
        if full := builder.add(event):
            yield full
    if builder.lines:
        yield builder.take()
