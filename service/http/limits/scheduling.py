"""Fair scheduling of requests and batches in the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

STARTS: Final = 8
"""Requests that start in one pass of the event loop, of about a millisecond each."""


class StartLimiter:
    """Limit for requests that start in one pass of the event loop: a burst is spread over several passes, with probes in between.

    Single requests have priority over batches, imports and streams, of which at least one starts in each pass.
    """

    def __init__(self) -> None:
        self._started = 0
        self._singles: deque[asyncio.Future[None]] = deque()
        self._long_running: deque[asyncio.Future[None]] = deque()

    async def turn(self, *, long_running: bool = False) -> None:
        """Wait until the request may start."""
        if self._started < STARTS and not self._singles and not (long_running and self._long_running):
            self._count()
            return
        waiting = asyncio.get_running_loop().create_future()
        (self._long_running if long_running else self._singles).append(waiting)
        await waiting

    def _count(self) -> None:
        if not self._started:
            asyncio.get_running_loop().call_soon(self._next_pass)
        self._started += 1

    def _next_pass(self) -> None:
        self._started = 0
        self._start(self._long_running, 1)
        self._start(self._singles, STARTS)
        self._start(self._long_running, STARTS)

    def _start(self, waiting: deque[asyncio.Future[None]], most: int) -> None:
        while waiting and self._started < most:
            first = waiting.popleft()
            if not first.done():
                self._count()
                first.set_result(None)


class RoundRobin:
    """Semaphore that is granted in rotation between clients, however many turns each of them waits for.

    A turn that ends is granted to the next waiter in the next pass of the event loop, so that other work runs in between.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._free = at_once
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Waiters by client; the client whose turn is next comes first."""

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Hold a turn for the duration of the context."""
        await self._acquire(client)
        try:
            yield
        finally:
            self._end()

    async def _acquire(self, client: str) -> None:
        if self._free:
            self._free -= 1
            return
        waiting = asyncio.get_running_loop().create_future()
        self._queues.setdefault(client, deque()).append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self._end()
            raise

    def _end(self) -> None:
        asyncio.get_running_loop().call_soon(self._grant_next)

    def _grant_next(self) -> None:
        while self._queues:
            client = next(iter(self._queues))
            queue = self._queues.pop(client)
            waiting = queue.popleft()
            if queue:
                self._queues[client] = queue
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1
