"""Events in groups that are sent as one request each.

Grouping depends on nothing but the events, so that a run that is begun again makes the same groups, under the same keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, Final

from pydantic_core import from_json, to_json

from ras_triage.models.event import Event
from ras_triage.models.frozen import frozen

MAX_EVENTS: Final = 500
MAX_BYTES: Final = 1 << 20
"""Of a group; an event that is longer goes alone."""

AnyEvent = Event | Mapping[str, Any] | bytes
"""An event: as a model, as an object that JSON can write, or as its JSON."""


@frozen
class Chunk:
    """Consecutive events."""

    first: int
    """Place of the first among all events, from 0."""
    lines: tuple[bytes, ...]


def event_json(event: AnyEvent) -> bytes:
    """The event as JSON, its own bytes where it comes as bytes. What a model does not set is not sent."""
    if isinstance(event, bytes):
        return event
    return event.model_dump_json(exclude_unset=True).encode() if isinstance(event, Event) else to_json(event)


def line(event: AnyEvent) -> bytes:
    """The event as one line, without its end. What is no JSON stays so: the service is to refuse it in its place."""
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


class _Grouping:
    """A group that grows until it is full."""

    def __init__(self) -> None:
        self.first = self.size = 0
        self.lines: list[bytes] = []

    def add(self, line: bytes) -> Chunk | None:
        """Take one more; the group before it, where that was full."""
        full = len(self.lines) == MAX_EVENTS or (self.lines and self.size + len(line) > MAX_BYTES)
        chunk = self.take() if full else None
        self.lines.append(line)
        self.size += len(line) + 1
        return chunk

    def take(self) -> Chunk:
        """What was taken so far."""
        chunk = Chunk(self.first, tuple(self.lines))
        self.first += len(self.lines)
        self.lines, self.size = [], 0
        return chunk


def chunks(events: Iterable[AnyEvent]) -> Iterator[Chunk]:
    """The events in groups."""
    grouping = _Grouping()
    for event in events:
        if chunk := grouping.add(line(event)):
            yield chunk
    if grouping.lines:
        yield grouping.take()


async def chunks_async(events: AsyncIterable[AnyEvent] | Iterable[AnyEvent]) -> AsyncIterator[Chunk]:
    """The events in groups, as they come."""
    if not isinstance(events, AsyncIterable):
        for chunk in chunks(events):
            yield chunk
        return
    grouping = _Grouping()
    async for event in events:
        if full := grouping.add(line(event)):
            yield full
    if grouping.lines:
        yield grouping.take()
