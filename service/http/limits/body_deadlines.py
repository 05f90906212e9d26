"""Deadlines for request bodies."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from starlette.types import Message, Receive

from ras_triage.service.api.problems import ProblemError, request_timeout
from ras_triage.service.config.settings import Settings

GRACE_S: Final = 10.0
"""Seconds before the minimum rate of a body counts."""

_CLOSE: Final = {"Connection": "close"}
"""Where the next request would begin is unknown (RFC 9110 15.5.9)."""


class BodySource(Protocol):
    """The connection that a request comes from."""

    @property
    def has_whole_body(self) -> bool:
        """Whether the request's body has been received to its end."""


class BodyClock:
    """Time that the service waits for one request body.

    Only waiting counts, not the time that the service needs itself: a client that the service slows down is not late.
    """

    __slots__ = (
        "_by_item",
        "_bytes",
        "_complete",
        "_connection",
        "_expected",
        "_interrupted",
        "_receive",
        "_settings",
        "_timeout",
        "_waited",
        "waiting_since",
    )

    def __init__(self, receive: Receive, settings: Settings, connection: BodySource | None = None, *, expected: bool = True) -> None:
        """`expected`: whether the request is one that has a body. A client that stalls in another one counts as disconnected."""
        self._expected = expected
        self._receive = receive
        self._connection = connection
        self._settings = settings
        self._by_item = False
        self._complete = self._interrupted = False
        self._timeout: asyncio.Timeout | None = None
        self._bytes = 0
        self._waited = 0.0
        """Since the body, or its current item, began."""
        self.waiting_since: float | None = None
        """Since when the body is waited for, in the event loop's time; None while it is not."""

    def expect_items(self) -> None:
        """Apply the deadline to each item: the body may take any time as long as events or lines come."""
        self._by_item = True

    def item_complete(self) -> None:
        """Note that an item is complete."""
        self._bytes, self._waited = 0, 0.0

    def interrupt(self) -> None:
        """End the wait, because another request needs the place."""
        if self._timeout is not None:
            self._interrupted = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def receive(self) -> Message:
        """Return the next ASGI message. Raises ProblemError if the body does not come in time."""
        if self._complete or (self._connection is not None and self._connection.has_whole_body):
            return await self._receive()  # a timer would cost more than the rest of this method
        loop = asyncio.get_running_loop()
        began = self.waiting_since = loop.time()
        try:
            async with asyncio.timeout(self._allowed_s() - self._waited) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            if not self._expected:
                return {"type": "http.disconnect"}
            raise ProblemError(request_timeout(self._detail()), _CLOSE) from None
        finally:
            self._timeout = self.waiting_since = None
        self._waited += loop.time() - began
        self._bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    def _allowed_s(self) -> float:
        at_rate = self._bytes / self._settings.min_body_rate
        if self._by_item:
            return self._settings.line_timeout_s + at_rate
        return min(GRACE_S + at_rate, self._settings.body_timeout_s)

    def _detail(self) -> str:
        if self._interrupted:
            return "request body stalled while other requests were waiting"
        what = "next event or line" if self._by_item else "request body"
        rate = self._settings.min_body_rate
        return f"received {self._bytes} bytes of the {what} in {self._allowed_s():.1f} s; expected {rate} bytes per second"
