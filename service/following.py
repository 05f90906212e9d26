"""Decisions as server-sent events (WHATWG HTML 9.2): a reader that was cut off goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import takewhile
from time import monotonic
from typing import Any, Final

from pydantic_core import to_json

from models.value import value
from service.runtime import Runtime
from service.store.port import Filter, Purge, Store, StoreError, Streamed
from service.summaries import summary_json

AT_ONCE: Final = 500
"""Decisions that are read at a time."""

HEARTBEAT_S: Final = 15.0
"""Seconds of silence after which an event without data shows that the connection lives, and how far it has come."""

PAUSE_S: Final = 0.05
"""Seconds between two looks, however much is decided."""

ASK_AGAIN_S: Final = 1.0
"""Seconds between two questions whether the reader may still read, while there is something to tell."""

Welcome = Callable[[], Awaitable[bool]]


@value
class _Look:
    """What there is behind a place."""

    decisions: tuple[Streamed, ...]
    up_to: int
    """The sequence up to which that is all there are."""
    gone: int
    """How many were purged since the look before, at most."""
    purge: Purge | None
    """The latest that is known."""
    news: asyncio.Event
    """Set when there may be more."""


def _event(kind: str, sequence: int, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, kind.encode(), to_json(data))


async def follow(runtime: Runtime, asked: Filter, last: int | None, welcome: Welcome) -> AsyncIterator[bytes]:
    """Events behind `last`, or from now on, until the service stops, the store fails, or the reader is not welcome any more.

    Raises StoreError where they cannot begin.
    """
    newest = await runtime.read(lambda store: store.last_sequence())
    at = newest if last is None else min(last, newest)
    return _events(runtime, asked, at, await _look(runtime, asked, at, None), welcome)


async def _events(runtime: Runtime, asked: Filter, at: int, first: _Look, welcome: Welcome) -> AsyncIterator[bytes]:
    yield b": ras-triage\nid: %d\n\n" % at
    with suppress(StoreError):  # a reader that comes again is told so
        async for event in _decided(runtime, asked, at, first, welcome):
            yield event


async def _decided(runtime: Runtime, asked: Filter, at: int, look: _Look, welcome: Welcome) -> AsyncIterator[bytes]:
    spoke = admitted = monotonic()
    while not runtime.stopping.is_set():
        if monotonic() - admitted >= ASK_AGAIN_S:
            if not await welcome():
                return
            admitted = monotonic()
        if look.gone:
            yield _event("purged", at, {"decisions": look.gone})
        for streamed in look.decisions:
            yield _event("decision", streamed.sequence, summary_json(streamed.summary))
        moved, at = look.up_to > at, look.up_to
        if look.gone or look.decisions:
            spoke = monotonic()
        elif monotonic() - spoke > HEARTBEAT_S:
            yield b": nothing new\nid: %d\n\n" % at
            spoke = monotonic()
        await (asyncio.sleep(PAUSE_S) if moved else _heard(look.news))
        look = await _look(runtime, asked, at, look.purge)


async def _look(runtime: Runtime, asked: Filter, at: int, known: Purge | None) -> _Look:
    """Purges are looked for after the decisions: one in between may be told in vain, but none goes untold. Raises StoreError."""
    news = runtime.news
    (decisions, up_to), purges = await runtime.read(lambda store: (store.following(at, asked, AT_ONCE), _since(known, store)))
    gone = sum(min(purge.count, purge.last_sequence - at) for purge in purges if purge.last_sequence > at)
    return _Look(tuple(decisions), up_to, gone, purges[0] if purges else known, news)


def _since(known: Purge | None, store: Store) -> list[Purge]:
    """What was taken away after the purge that is known, latest first."""
    if store.purges(1) == [known]:
        return []
    return list(takewhile(lambda purge: purge != known, store.purges(AT_ONCE)))


async def _heard(news: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), HEARTBEAT_S)
