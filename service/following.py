"""Decisions as server-sent events (WHATWG HTML 9.2): a reader that was cut off goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, Final

from pydantic_core import to_json

from service.runtime import Runtime
from service.store.port import Filter, Store, StoreError
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


def _event(kind: str, sequence: int, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (sequence, kind.encode(), to_json(data))


async def follow(runtime: Runtime, asked: Filter, last: int | None, welcome: Welcome) -> AsyncIterator[bytes]:
    """Events behind `last`, or from now on, until the service stops, the store fails, or the reader is not welcome any more.

    Raises StoreError where they cannot begin.
    """
    newest = await runtime.read(lambda store: store.last_sequence())
    at = newest if last is None else min(last, newest)
    gone = 0 if last is None else await runtime.read(partial(_gone, at))
    return _events(runtime, asked, at, gone, welcome)


async def _events(runtime: Runtime, asked: Filter, at: int, gone: int, welcome: Welcome) -> AsyncIterator[bytes]:
    yield b": ras-triage\nid: %d\n\n" % at
    if gone:
        yield _event("purged", at, {"decisions": gone})
    with suppress(StoreError):  # a reader that comes again is told so
        async for event in _decided(runtime, asked, at, welcome):
            yield event


async def _decided(runtime: Runtime, asked: Filter, at: int, welcome: Welcome) -> AsyncIterator[bytes]:
    spoke = admitted = monotonic()
    while not runtime.stopping.is_set():
        if monotonic() - admitted >= ASK_AGAIN_S:
            if not await welcome():
                return
            admitted = monotonic()
        news = runtime.news
        found, up_to = await runtime.read(partial(_following, at, asked))
        for streamed in found:
            yield _event("decision", streamed.sequence, summary_json(streamed.summary))
        moved, at = up_to > at, up_to
        if found:
            spoke = monotonic()
        elif monotonic() - spoke > HEARTBEAT_S:
            yield b": nothing new\nid: %d\n\n" % at
            spoke = monotonic()
        await (asyncio.sleep(PAUSE_S) if moved else _heard(news))


def _following(at: int, asked: Filter, store: Store) -> Any:
    return store.following(at, asked, AT_ONCE)


def _gone(at: int, store: Store) -> int:
    """How many decisions behind a place were purged, at most."""
    return sum(min(purge.count, purge.last_sequence - at) for purge in store.purges(AT_ONCE) if purge.last_sequence > at)


async def _heard(news: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), HEARTBEAT_S)
