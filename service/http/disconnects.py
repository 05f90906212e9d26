"""Cancellation of a request whose client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from starlette.requests import ClientDisconnect
from starlette.types import Receive

WATCH_S: Final = 1.0
"""Seconds after which a request is watched for a disconnect: most are done long before, and need no task for it."""


class WhileConnected:
    """Context in which the current task is cancelled, and ClientDisconnect raised, when the client disconnects."""

    __slots__ = ("_body_ended", "_cancelling", "_is_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive, body_ended: asyncio.Event | None = None) -> None:
        """`receive`: that of the request; `body_ended`: set when its body has been read; None: it already has."""
        self._receive = receive
        self._body_ended = body_ended
        self._is_gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(WATCH_S, self._start)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._is_gone and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise ClientDisconnect from None

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        if self._body_ended is not None:
            await self._body_ended.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self._task.cancel()


async def until_ended(body: AsyncIterator[bytes], ended: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield the pieces of a body, and set `ended` after the last."""
    async for piece in body:
        yield piece
    ended.set()
