"""Subscriptions to event streams, with reads shared per filter."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from time import monotonic
from typing import Final, Protocol, TypeVar

from ras_triage.service.api.problems import ProblemError, busy
from ras_triage.service.http.streaming.events import PurgeLog, StreamPage, read_page, render
from ras_triage.service.store.port import Filter, Store, StoreError
from ras_triage.service.telemetry import logs

T = TypeVar("T")

READ_DECISIONS: Final = 100
"""Decisions that are read at a time, which a subscriber that is behind buffers."""

HEARTBEAT_S: Final = 15.0
"""Seconds after which a heartbeat is sent: a comment with the current `id`."""

PAUSE_S: Final = 0.05
"""Seconds between two reads for one filter, unless a read was full."""

CHECK_S: Final = 1.0
"""Seconds between two checks of the permission of a client."""

STALLED_S: Final = 30.0
"""Seconds without reading after which a client with pending events is disconnected."""

STALLED_AT_STOP_S: Final = 1.0
"""The same during shutdown."""

PIECE_BYTES: Final = 32 << 10
"""Bytes that are sent to a subscriber at a time."""

CACHE_BYTES: Final = 16 << 20
"""Rendered events that are cached for subscribers a little behind; those further behind read the store themselves."""

READS: Final = 2
"""Concurrent store reads for streams: half of the reader threads."""

TURNS: Final = 16
"""Subscribers that are served in one pass of the event loop."""

RETRY_S: Final = 5
"""`Retry-After` of a refused subscriber, in seconds."""

Check = Callable[[], Awaitable[bool]]


class ReadStore(Protocol):
    """Function that reads the store in a thread."""

    def __call__(self, query: Callable[[Store], T], /) -> Awaitable[T]:
        """Return the result of `query`. Raises StoreError."""


class StreamAccess:
    """Read permission of one client, checked once for all its streams."""

    def __init__(self, client: Hashable, check: Check) -> None:
        self.client = client
        self._check = check
        self._allowed = True
        self._checked_at = monotonic()
        self._lock = asyncio.Lock()
        self.subscriptions: set[Subscription] = set()

    async def allowed(self) -> bool:
        """Return whether the client may read; the result is at most `CHECK_S` old."""
        if monotonic() - self._checked_at < CHECK_S:
            return self._allowed
        async with self._lock:
            if (now := monotonic()) - self._checked_at >= CHECK_S:
                self._allowed = await self._check()
                self._checked_at = now
        return self._allowed


class Feed:
    """Reader of the store for all subscribers of a filter, with a cache of rendered events."""

    def __init__(self, streams: Streams, filters: Filter, at: int) -> None:
        self._streams = streams
        self.filters = filters
        self.at = self.floor = at
        """Sequence numbers: events after `floor` up to `at` are cached."""
        self._pages: list[tuple[StreamPage, int]] = []
        """Pages with events or a purge, each with the number of the latest purge when it was read."""
        self._bytes = 0
        self._purges = 0
        self._committed = asyncio.Event()
        self.subscriptions: set[Subscription] = set()
        self.first_read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done after the first read; has its exception."""
        self.closed = False
        self._task = asyncio.create_task(self._run())

    def page(self, at: int) -> tuple[StreamPage, int] | None:
        """Return the first page with events after a sequence number, which is not below `floor`."""
        index = bisect_right(self._pages, at, key=lambda kept: kept[0].up_to)
        return self._pages[index] if index < len(self._pages) else None

    def notify(self) -> None:
        """Wake the reader after a commit."""
        self._committed.set()

    def close(self) -> None:
        """Stop reading; the streams end when they have sent the cached events."""
        self.closed = True
        self._task.cancel()
        for subscription in self.subscriptions:
            subscription.wake()

    async def _run(self) -> None:
        try:
            while True:
                self._committed.clear()
                pause = await self._read_new()
                if not self.first_read.done():
                    self.first_read.set_result(None)
                await (self._committed.wait() if pause is None else asyncio.sleep(pause))
        except Exception as error:  # defects too: subscribers must not wait for ever
            if not isinstance(error, StoreError):
                logs.log(logging.ERROR, "defect", **logs.explain(error))
            if not self.first_read.done():
                self.first_read.set_exception(error)
                self.first_read.exception()  # marks the exception as retrieved
            self._streams.drop(self)

    async def _read_new(self) -> float | None:
        """Read new decisions and return the seconds until the next read; None: after the next commit. Raises StoreError."""
        page, purges = await self._streams.read(self.filters, self.at)
        purged = self._streams.purges.purged(self._purges, purges, self.at)
        if page.up_to == self.at:
            return None
        self._purges, self.at = purges, page.up_to
        if page.sequences or purged:
            self._pages.append((page, purges))
            self._bytes += len(page.body)
            while len(self._pages) > 1 and self._bytes > self._streams.share:
                self._forget_oldest()
            for subscription in self.subscriptions:
                subscription.wake()
        return 0.0 if len(page.sequences) == READ_DECISIONS else PAUSE_S

    def forget_sent(self) -> None:
        """Remove the pages that all subscribers were sent."""
        reached = min((subscription.at for subscription in self.subscriptions), default=self.at)
        while self._pages and self._pages[0][0].up_to <= reached:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        page, _ = self._pages.pop(0)
        self._bytes -= len(page.body)
        self.floor = page.up_to


class Subscription:
    """One subscriber of a filter."""

    def __init__(self, streams: Streams, feed: Feed, access: StreamAccess, at: int) -> None:
        self._streams, self.feed, self.access = streams, feed, access
        self.at = at
        """Sequence number up to which everything was sent."""
        self._purges = 0
        """Number of the latest purge that was reported."""
        self._own: tuple[StreamPage, int] | None = None
        """Page that was read for this subscriber alone, and the number of the latest purge then."""
        self._woken = asyncio.Event()
        self._ended = False
        self._sent_at = monotonic()
        self.waiting_since: float | None = None
        """Since when a send has been blocked; None: it is not."""
        self.disconnect: Callable[[], None] | None = None
        """Closes its connection."""
        self.stalled = False
        """Whether the client was disconnected because it did not read."""

    @property
    def is_behind(self) -> bool:
        """Whether the next events are no longer in the cache of the feed."""
        return self._own is None and self.at < self.feed.floor

    async def catch_up(self) -> None:
        """Read the store for this subscriber alone. Raises StoreError."""
        self._own = await self._streams.read(self.feed.filters, self.at)

    async def events(self) -> AsyncIterator[bytes]:
        """Yield events until the service stops, the store fails, or the client loses its permission."""
        yield b": ras-triage\nid: %d\n\n" % self.at
        while True:
            self._woken.clear()
            if self._ended or not await self.access.allowed():
                return
            try:
                piece = await self._next()
            except StoreError:  # a client that reconnects gets the problem
                return
            if piece or self.is_silent():
                await self._streams.turn()
                yield piece or b": nothing new\nid: %d\n\n" % self.at
                self._sent_at = monotonic()
            elif piece is None:
                if self.feed.closed:
                    return
                await self._woken.wait()

    async def _next(self) -> bytes | None:
        """Return the next events; None if there are none yet. Raises StoreError."""
        if self.is_behind:
            await self.catch_up()
        page, purges = self._own or self.feed.page(self.at) or (None, 0)
        if page is None:
            self.at = max(self.at, self.feed.at)
            return None
        at = max(self.at, page.after)
        purged = self._streams.purges.purged(self._purges, purges, at)
        self._purges = max(self._purges, purges)
        events, self.at = page.piece(at, PIECE_BYTES)
        if self.at == page.up_to:
            self._own = None
        return (render("purged", at, {"decisions": purged}) if purged else b"") + events

    def is_silent(self) -> bool:
        """Return whether a heartbeat is due."""
        return monotonic() - self._sent_at >= HEARTBEAT_S

    def wake(self) -> None:
        """Wake the stream."""
        self._woken.set()

    def end(self) -> None:
        """End the stream."""
        self._ended = True
        self._woken.set()

    def disconnect_if_stalled(self, limit_s: float) -> None:
        """Close the connection of a client that has not read for so long."""
        if self.waiting_since is not None and monotonic() - self.waiting_since >= limit_s and not self.stalled:
            self.stalled = True
            self.end()
            if self.disconnect is not None:
                self.disconnect()

    def close(self) -> None:
        """Remove the subscription."""
        self._streams.leave(self)


class Streams:
    """All event streams of a service."""

    def __init__(self, read: ReadStore, max_subscriptions: int, max_filters: int) -> None:
        self._read = read
        self._max_subscriptions, self._max_filters = max_subscriptions, max_filters
        self._feeds: dict[Filter, Feed] = {}
        self._accesses: dict[Hashable, StreamAccess] = {}
        self._subscribed = 0
        """Number of subscriptions, including those that are being set up."""
        self._subscriptions: set[Subscription] = set()
        self._reads = asyncio.Semaphore(READS)
        self._turns: deque[asyncio.Future[None]] = deque()
        self._stopping = False
        self.purges = PurgeLog()

    @property
    def statistics(self) -> tuple[int, int]:
        """Number of subscriptions and of different filters."""
        return self._subscribed, len(self._feeds)

    @property
    def share(self) -> int:
        """Cache size of one filter in bytes."""
        return CACHE_BYTES // max(1, len(self._feeds))

    async def subscribe(self, filters: Filter, last: int | None, client: Hashable, check: Check) -> Subscription:
        """Return a subscription to events after sequence number `last`, or to new ones.

        `client` identifies the reader; `check` returns whether it may still read. Raises StoreError, and ProblemError at a limit.
        """
        if self._subscribed >= self._max_subscriptions:
            raise _too_many(f"limit of {self._subscribed} open event streams reached; retry later")
        self._subscribed += 1
        try:
            newest = await self._read(lambda store: store.last_sequence())
            access = self._accesses.setdefault(client, StreamAccess(client, check))
            feed = self._feed(filters, newest, access)
            subscription = Subscription(self, feed, access, newest if last is None else min(last, newest))
        except BaseException:
            self._subscribed -= 1
            self._forget_unused(client)
            raise
        for group in (self._subscriptions, feed.subscriptions, access.subscriptions):
            group.add(subscription)
        try:
            await (subscription.catch_up() if subscription.is_behind else asyncio.shield(feed.first_read))
        except BaseException:
            self.leave(subscription)
            raise
        if self._stopping:
            subscription.end()
        return subscription

    def _feed(self, filters: Filter, newest: int, access: StreamAccess) -> Feed:
        """Return the feed of a filter. Raises ProblemError at the limit of filters, of all clients or of one."""
        if (feed := self._feeds.get(filters)) is not None:
            return feed
        if len(self._feeds) >= self._max_filters:
            raise _too_many(f"limit of {len(self._feeds)} different filters of event streams reached; retry later")
        of_client = len({subscription.feed.filters for subscription in access.subscriptions})
        if of_client >= max(1, self._max_filters // 2):
            raise _too_many(f"limit of {of_client} different filters of event streams per client reached; retry later")
        feed = self._feeds[filters] = Feed(self, filters, newest)
        return feed

    def leave(self, subscription: Subscription) -> None:
        """Remove a subscription, and its filter and client with the last one."""
        feed, access = subscription.feed, subscription.access
        self._subscribed -= 1
        for group in (self._subscriptions, feed.subscriptions, access.subscriptions):
            group.discard(subscription)
        self._forget_unused(access.client)
        if not feed.subscriptions:
            self.drop(feed)

    def _forget_unused(self, client: Hashable) -> None:
        access = self._accesses.get(client)
        if access is not None and not access.subscriptions:
            del self._accesses[client]

    def drop(self, feed: Feed) -> None:
        """Remove a feed."""
        if self._feeds.get(feed.filters) is feed:
            del self._feeds[feed.filters]
        feed.close()

    async def read(self, filters: Filter, after: int) -> tuple[StreamPage, int]:
        """Return the next decisions, rendered, and the number of the latest purge then. Raises StoreError."""
        async with self._reads:
            known = self.purges.latest
            page, purges = await self._read(lambda store: read_page(store, filters, after, READ_DECISIONS, known))
        self.purges.add(purges)
        return page, self.purges.count

    async def turn(self) -> None:
        """Wait for a turn to send, so that the event loop can do other work in between."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if not self._turns:
            loop.call_soon(self._give_turns, loop)
        self._turns.append(turn)
        await turn

    def _give_turns(self, loop: asyncio.AbstractEventLoop) -> None:
        for _ in range(min(TURNS, len(self._turns))):
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._turns:
            loop.call_soon(self._give_turns, loop)

    def notify(self) -> None:
        """Wake all feeds after a commit."""
        for feed in self._feeds.values():
            feed.notify()

    def stop(self) -> None:
        """End all streams."""
        self._stopping = True
        for subscription in self._subscriptions:
            subscription.end()

    def close(self) -> None:
        """Close all feeds."""
        for feed in list(self._feeds.values()):
            self.drop(feed)

    async def supervise(self) -> None:
        """Check permissions, stalled clients and heartbeats until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            for access in list(self._accesses.values()):
                await self._check(access)
            for feed in self._feeds.values():
                feed.forget_sent()
            for subscription in list(self._subscriptions):
                subscription.disconnect_if_stalled(STALLED_AT_STOP_S if self._stopping else STALLED_S)
                if subscription.is_silent():
                    subscription.wake()

    async def _check(self, access: StreamAccess) -> None:
        try:
            allowed = await access.allowed()
        except Exception as error:  # a defect must end the streams of one client only
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            allowed = False
        if not allowed:
            for subscription in access.subscriptions:
                subscription.end()


def _too_many(detail: str) -> ProblemError:
    return ProblemError(busy(detail), {"Retry-After": str(RETRY_S)})
