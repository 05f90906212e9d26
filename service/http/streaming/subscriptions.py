"""Event streams of decisions: one store read and one rendering for all subscribers with the same filter."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from time import monotonic
from typing import Final, Protocol, TypeVar

from ras_triage.service.api.problems import ProblemError, busy
from ras_triage.service.http.streaming.events import Page, PurgeLog, read_page, render
from ras_triage.service.store.port import Filter, Store, StoreError
from ras_triage.service.telemetry import logs

T = TypeVar("T")

AT_ONCE: Final = 100
"""Decisions that are read at a time. A subscriber that is behind holds as many until its client took them."""

HEARTBEAT_S: Final = 15.0
"""Seconds of silence after which an event without data shows that the connection lives, and how far it has come."""

PAUSE_S: Final = 0.05
"""Seconds between two reads for one filter, unless there is more than one of them takes."""

CHECK_S: Final = 1.0
"""Seconds between two checks whether a client may still read."""

STALLED_S: Final = 30.0
"""Seconds that a client may take nothing of what waits for it before its connection is cut."""

STALLED_AT_STOP_S: Final = 1.0
"""The same while the service stops."""

PIECE_BYTES: Final = 32 << 10
"""Bytes that one subscriber is sent at a time."""

KEPT_BYTES: Final = 16 << 20
"""Rendered events of all filters that are kept for subscribers a little behind; those further behind read for themselves."""

READS: Final = 2
"""Store reads for streams at one time: half of the threads that read."""

TURNS: Final = 16
"""Subscribers that are sent something in one turn of the event loop."""

RETRY_S: Final = 5
"""Seconds after which a subscriber that was refused should try again."""

Check = Callable[[], Awaitable[bool]]


class ReadStore(Protocol):
    """Reads the store in a thread."""

    def __call__(self, ask: Callable[[Store], T], /) -> Awaitable[T]:
        """Return what `ask` returns. Raises StoreError."""


class StreamAccess:
    """Permission of one client to read, checked once for all its streams."""

    def __init__(self, client: Hashable, check: Check) -> None:
        self.client = client
        self._check = check
        self._allowed = True
        self._checked_at = monotonic()
        self._lock = asyncio.Lock()
        self.subscriptions: set[Subscription] = set()

    async def allowed(self) -> bool:
        """Return whether the client may read, as of `CHECK_S` ago or later."""
        if monotonic() - self._checked_at < CHECK_S:
            return self._allowed
        async with self._lock:
            if (now := monotonic()) - self._checked_at >= CHECK_S:
                self._allowed = await self._check()
                self._checked_at = now
        return self._allowed


class Feed:
    """Reads the store for all subscribers of a filter, and keeps what they may still need."""

    def __init__(self, streams: Streams, asked: Filter, at: int) -> None:
        self._streams = streams
        self.asked = asked
        self.at = self.floor = at
        """Sequences: what is behind `floor` and up to `at` was read and is kept."""
        self._pages: list[tuple[Page, int]] = []
        """Those with events or news of a purge, each with the number of the latest purge when it was read."""
        self._bytes = 0
        self._purges = 0
        self._news = asyncio.Event()
        self.subscriptions: set[Subscription] = set()
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done after the first read; raises what that raised."""
        self.closed = False
        self._task = asyncio.create_task(self._run())

    def page(self, at: int) -> tuple[Page, int] | None:
        """Return the first page that reaches beyond a sequence, which is not below `floor`."""
        index = bisect_right(self._pages, at, key=lambda kept: kept[0].up_to)
        return self._pages[index] if index < len(self._pages) else None

    def tell(self) -> None:
        """Have it look whether there is more in the store."""
        self._news.set()

    def close(self) -> None:
        """Read no more; the streams end when they have sent what was read."""
        self.closed = True
        self._task.cancel()
        for subscription in self.subscriptions:
            subscription.wake()

    async def _run(self) -> None:
        try:
            while True:
                self._news.clear()
                pause = await self._look()
                if not self.began.done():
                    self.began.set_result(None)
                await (self._news.wait() if pause is None else asyncio.sleep(pause))
        except Exception as error:  # a defect too: those who wait for events must not wait for ever
            if not isinstance(error, StoreError):
                logs.log(logging.ERROR, "defect", **logs.explain(error))
            if not self.began.done():
                self.began.set_exception(error)
                self.began.exception()  # nobody may be left to retrieve it
            self._streams.drop(self)

    async def _look(self) -> float | None:
        """Read what is new, and return the seconds until the next read; None: not before there is news. Raises StoreError."""
        page, purges = await self._streams.read(self.asked, self.at)
        gone = self._streams.purges.gone(self._purges, purges, self.at)
        if page.up_to == self.at:
            return None
        self._purges, self.at = purges, page.up_to
        if page.sequences or gone:
            self._pages.append((page, purges))
            self._bytes += len(page.body)
            while len(self._pages) > 1 and self._bytes > self._streams.share:
                self._forget_oldest()
            for subscription in self.subscriptions:
                subscription.wake()
        return 0.0 if len(page.sequences) == AT_ONCE else PAUSE_S

    def forget_sent(self) -> None:
        """Forget what all subscribers have."""
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
        """The sequence up to which everything was sent."""
        self._purges = 0
        """Number of the latest purge that was taken into account."""
        self._own: tuple[Page, int] | None = None
        """What was read for this subscriber alone, and the number of the latest purge then."""
        self._woken = asyncio.Event()
        self._ended = False
        self._sent_at = monotonic()
        self.waiting_since: float | None = None
        """Since when its client has taken nothing of what waits for it; None: nothing waits."""
        self.cut: Callable[[], None] | None = None
        """Cuts its connection."""
        self.stalled = False
        """Whether the connection was cut because the client took nothing."""

    @property
    def is_behind(self) -> bool:
        """Whether the feed does not keep any more what comes next."""
        return self._own is None and self.at < self.feed.floor

    async def catch_up(self) -> None:
        """Read for this subscriber alone. Raises StoreError."""
        self._own = await self._streams.read(self.feed.asked, self.at)

    async def events(self) -> AsyncIterator[bytes]:
        """Yield events until the stream ends: the service stops, the store fails, or the client may not read any more."""
        yield b": ras-triage\nid: %d\n\n" % self.at
        while True:
            self._woken.clear()
            if self._ended or not await self.access.allowed():
                return
            try:
                piece = await self._next()
            except StoreError:  # a client that comes again is told
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
        """Return the next events; None where there are none now. Raises StoreError."""
        if self.is_behind:
            await self.catch_up()
        page, purges = self._own or self.feed.page(self.at) or (None, 0)
        if page is None:
            self.at = max(self.at, self.feed.at)
            return None
        at = max(self.at, page.after)
        gone = self._streams.purges.gone(self._purges, purges, at)
        self._purges = max(self._purges, purges)
        events, self.at = page.piece(at, PIECE_BYTES)
        if self.at == page.up_to:
            self._own = None
        return (render("purged", at, {"decisions": gone}) if gone else b"") + events

    def is_silent(self) -> bool:
        """Return whether a heartbeat is due."""
        return monotonic() - self._sent_at >= HEARTBEAT_S

    def wake(self) -> None:
        """Have it look for more."""
        self._woken.set()

    def end(self) -> None:
        """End the stream."""
        self._ended = True
        self._woken.set()

    def cut_if_stalled(self, limit_s: float) -> None:
        """Cut the connection of a client that has taken nothing for so long."""
        if self.waiting_since is not None and monotonic() - self.waiting_since >= limit_s and not self.stalled:
            self.stalled = True
            self.end()
            if self.cut is not None:
                self.cut()

    def close(self) -> None:
        """Forget the subscriber."""
        self._streams.leave(self)


class Streams:
    """All event streams of a service."""

    def __init__(self, read: ReadStore, max_subscriptions: int, max_filters: int) -> None:
        self._read = read
        self._max_subscriptions, self._max_filters = max_subscriptions, max_filters
        self._feeds: dict[Filter, Feed] = {}
        self._accesses: dict[Hashable, StreamAccess] = {}
        self._subscribed = 0
        """Those that are about to be, too."""
        self._subscriptions: set[Subscription] = set()
        self._reads = asyncio.Semaphore(READS)
        self._turns: deque[asyncio.Future[None]] = deque()
        self._stopping = False
        self.purges = PurgeLog()

    @property
    def figures(self) -> tuple[int, int]:
        """Subscribers, and the different filters that they ask with."""
        return self._subscribed, len(self._feeds)

    @property
    def share(self) -> int:
        """Bytes that one filter may keep."""
        return KEPT_BYTES // max(1, len(self._feeds))

    async def subscribe(self, asked: Filter, last: int | None, client: Hashable, check: Check) -> Subscription:
        """Return a subscription to what comes behind sequence `last`, or from now on.

        `client` tells who reads, and `check` whether they may still. Raises StoreError; Refused where there are too many.
        """
        if self._subscribed >= self._max_subscriptions:
            raise _too_many(f"{self._subscribed} event streams are open")
        self._subscribed += 1
        try:
            newest = await self._read(lambda store: store.last_sequence())
            access = self._accesses.setdefault(client, StreamAccess(client, check))
            feed = self._feed(asked, newest, access)
            subscription = Subscription(self, feed, access, newest if last is None else min(last, newest))
        except BaseException:
            self._subscribed -= 1
            self._forget_unused(client)
            raise
        for group in (self._subscriptions, feed.subscriptions, access.subscriptions):
            group.add(subscription)
        try:
            await (subscription.catch_up() if subscription.is_behind else asyncio.shield(feed.began))
        except BaseException:
            self.leave(subscription)
            raise
        if self._stopping:
            subscription.end()
        return subscription

    def _feed(self, asked: Filter, newest: int, access: StreamAccess) -> Feed:
        """Return the feed of a filter. Raises Refused where one more is too many, or too many of one client."""
        if (found := self._feeds.get(asked)) is not None:
            return found
        if len(self._feeds) >= self._max_filters:
            raise _too_many(f"event streams with {len(self._feeds)} different filters are open")
        of_client = len({subscription.feed.asked for subscription in access.subscriptions})
        if of_client >= max(1, self._max_filters // 2):
            raise _too_many(f"event streams with {of_client} different filters are open with this key")
        found = self._feeds[asked] = Feed(self, asked, newest)
        return found

    def leave(self, subscription: Subscription) -> None:
        """Forget a subscriber, and its filter and client with the last one."""
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
        """Forget a filter."""
        if self._feeds.get(feed.asked) is feed:
            del self._feeds[feed.asked]
        feed.close()

    async def read(self, asked: Filter, after: int) -> tuple[Page, int]:
        """Return the next decisions, rendered, and the number of the latest purge then. Raises StoreError."""
        async with self._reads:
            known = self.purges.latest
            page, purges = await self._read(lambda store: read_page(store, asked, after, AT_ONCE, known))
        self.purges.add(purges)
        return page, self.purges.count

    async def turn(self) -> None:
        """Wait until it is one's turn to send: the event loop does other work between those of many subscribers."""
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

    def tell(self) -> None:
        """Decisions were kept."""
        for feed in self._feeds.values():
            feed.tell()

    def stop(self) -> None:
        """End all streams."""
        self._stopping = True
        for subscription in self._subscriptions:
            subscription.end()

    def close(self) -> None:
        """Read no more."""
        for feed in list(self._feeds.values()):
            self.drop(feed)

    async def supervise(self) -> None:
        """End what must not go on, and send heartbeats, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            for access in list(self._accesses.values()):
                await self._check(access)
            for feed in self._feeds.values():
                feed.forget_sent()
            for subscription in list(self._subscriptions):
                subscription.cut_if_stalled(STALLED_AT_STOP_S if self._stopping else STALLED_S)
                if subscription.is_silent():
                    subscription.wake()

    async def _check(self, access: StreamAccess) -> None:
        try:
            allowed = await access.allowed()
        except Exception as error:  # a defect ends the streams of one client, and not the supervision of all
            logs.log(logging.ERROR, "defect", **logs.explain(error))
            allowed = False
        if not allowed:
            for subscription in access.subscriptions:
                subscription.end()


def _too_many(detail: str) -> ProblemError:
    return ProblemError(busy(detail), {"Retry-After": str(RETRY_S)})
