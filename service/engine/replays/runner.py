"""Replays of stored events in the background, which a restart resumes.

One runs at a time. It reads slices of decisions in a thread and has them decided in a worker process, so that others go first: a
worker has a lower priority than the event loop. Its counts are stored with its position every few seconds, so that no decision is
counted twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from uuid_utils import uuid7

from ras_triage.models.decision import PolicyRef
from ras_triage.models.frozen import frozen
from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import UnknownPolicy
from ras_triage.service.api.problems import Problem, ProblemError, busy, store_damaged, unknown_policy
from ras_triage.service.api.replays.changes import DecisionChanges
from ras_triage.service.api.replays.replays import Replay, ReplayEntry
from ras_triage.service.api.times import rfc3339
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.replays.differences import ChangeCounter
from ras_triage.service.engine.replays.replay_slice import count_failures, replay_slice
from ras_triage.service.engine.stored.cases import StoredCase, read_cases
from ras_triage.service.store.port import Cursor, Filter, Store, StoredReplay, StoreError
from ras_triage.service.store.writer import Writer
from ras_triage.service.telemetry import logs

T = TypeVar("T")

SLICE: Final = 128
"""Decisions that are replayed at a time."""
SLICE_BYTES: Final = 4 << 20
"""Events, decisions and facts of a slice above which it goes to a worker in parts."""
SAVE_S: Final = 5.0
"""Interval in which the counts of a running replay are stored, in seconds."""
MAX_WAITING: Final = 8
"""Replays that may wait."""
_ALL_TIME_MS: Final = 1 << 53

_FILTER: Final = TypeAdapter(Filter)
_CHANGES: Final = TypeAdapter(DecisionChanges)


class Read(Protocol):
    """Calls a query with the store in a thread."""

    def __call__(self, query: Callable[[Store], T], /) -> Awaitable[T]: ...


@frozen
class ReplayOrder:
    """What is to be replayed."""

    filter: Filter
    given: dict[str, Any]
    """The filter as it was requested."""
    before: PolicyRef | None
    """None: the stored decisions."""
    after: PolicyRef


class StoredSlice(NamedTuple):
    """Decisions to replay at a time."""

    cases: list[StoredCase]
    problems: list[tuple[str | None, Problem]]
    next: Cursor | None


def order_replay(settings: Settings, filter_: Filter, given: dict[str, Any], before: str | None, after: str) -> ReplayOrder:
    """Return an order for a replay. Raises ProblemError for an unknown policy."""
    return ReplayOrder(filter_, given, None if before is None else _policy(settings, before, "/before"), _policy(settings, after, "/after"))


def _policy(settings: Settings, name: str, pointer: str) -> PolicyRef:
    try:
        return find_policy(name, settings.custom_policies).reference
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error), pointer)) from None


class Replays:
    """The replays of a service."""

    def __init__(self, store: Store, writer: Writer, workers: Workers, read: Read, clock_ms: Callable[[], int]) -> None:
        self._store, self._writer, self._workers, self._read, self._clock_ms = store, writer, workers, read, clock_ms
        self._waiting: list[StoredReplay] = []
        self._running: StoredReplay | None = None
        self._cancelled = False
        """Whether the running replay is to end."""
        self._wake = asyncio.Event()
        self._ended = asyncio.Condition()

    async def create(self, order: ReplayOrder) -> str:
        """Store a replay and start it when those before it have ended. Return its id. Raises ProblemError, StoreError."""
        if len(self._waiting) >= MAX_WAITING:
            raise ProblemError(busy(f"{MAX_WAITING} replays wait already; retry when one of them has ended"))
        replay = StoredReplay(
            str(uuid7()), self._clock_ms(), "waiting", to_json(asdict(order)), None, None, to_json(DecisionChanges()), None
        )
        self._waiting.append(replay)
        try:
            await self._save(replay)
        except BaseException:
            self._waiting.remove(replay)
            raise
        self._wake.set()
        return replay.id

    async def wait(self, identity: str, seconds: float) -> None:
        """Wait until a replay has ended, at most some seconds."""
        try:
            async with asyncio.timeout(seconds), self._ended:
                await self._ended.wait_for(lambda: self._unfinished(identity) is None)
        except TimeoutError:
            return

    async def get(self, identity: str) -> Replay | None:
        """Return a replay; None: unknown. Raises StoreError."""
        found = self._unfinished(identity) or await self._read(lambda store: store.replay(identity))
        return None if found is None else replay_json(found)

    async def list(self) -> tuple[ReplayEntry, ...]:
        """Return all replays, newest first. Raises StoreError."""
        stored = await self._read(lambda store: store.replays())
        return tuple(entry_json(self._unfinished(replay.id) or replay) for replay in stored)

    async def remove(self, identity: str) -> bool:
        """Cancel a replay that has not ended, or delete one that has. Return whether there is one. Raises StoreError."""
        found = self._unfinished(identity)
        if found is None:
            return await self._writer.call(partial(self._store.delete_replay, identity))
        if found in self._waiting:
            self._waiting.remove(found)
            await self._save(replace(found, state="cancelled"))
        else:
            self._cancelled = True
            async with self._ended:
                await self._ended.wait_for(lambda: self._unfinished(identity) is None)
        return True

    async def run(self) -> None:
        """Run all replays, first those that were not finished when the service stopped."""
        stored = await self._read(lambda store: store.replays())
        self._waiting[:0] = [replay for replay in reversed(stored) if replay.state in ("waiting", "running")]
        while True:
            while self._waiting:
                await self._run(self._waiting.pop(0))
            self._wake.clear()
            await self._wake.wait()

    def _unfinished(self, identity: str) -> StoredReplay | None:
        known = self._waiting if self._running is None else (self._running, *self._waiting)
        return next((replay for replay in known if replay.id == identity), None)

    async def _run(self, replay: StoredReplay) -> None:
        """Run a replay to its end."""
        self._running, self._cancelled = replace(replay, state="running"), False
        state, error = "failed", None
        try:
            state = await self._replay(read_order(replay))
        except StoreError as failure:
            error = str(failure)
        except Exception as defect:
            logs.log(logging.ERROR, "replay failed", replay=replay.id, **logs.explain(defect))
            error = "internal error"
        ended = replace(self._running, state=state, error=error)
        try:
            await self._save(ended)
        except StoreError as failure:
            logs.log(logging.ERROR, "replay not stored", replay=replay.id, **logs.explain(failure))
        self._running = None
        async with self._ended:
            self._ended.notify_all()

    async def _replay(self, order: ReplayOrder) -> str:
        """Replay the rest of the running replay, and return how it ended. Raises StoreError."""
        assert self._running is not None
        if self._running.total is None:
            counts = await self._read(lambda store: store.stats(order.filter, (), _ALL_TIME_MS, 1))
            self._running = replace(self._running, total=sum(count.count for count in counts))
            await self._save(self._running)
        counter, saved = ChangeCounter(_CHANGES.validate_json(self._running.changes)), monotonic()
        following = asyncio.ensure_future(self._read(partial(read_slice, order.filter, self._running.position)))
        try:
            while not self._cancelled:
                part = await following
                if part.next is not None:  # read while the worker decides
                    following = asyncio.ensure_future(self._read(partial(read_slice, order.filter, part.next)))
                counter.merge(count_failures(part.problems))
                await self._decide(part.cases, order, counter)
                self._running = replace(self._running, position=part.next, changes=_CHANGES.dump_json(counter.result()))
                if part.next is None:
                    return "done"
                if monotonic() - saved > SAVE_S:
                    await self._save(self._running)
                    saved = monotonic()
            return "cancelled"
        finally:
            following.cancel()

    async def _decide(self, cases: Sequence[StoredCase], order: ReplayOrder, counter: ChangeCounter) -> None:
        """Decide cases in a worker process; those of a slice that a worker fails are decided one by one."""
        for some in _parts(cases):
            try:
                counter.merge(await self._workers.run_document(replay_slice, some, order.before, order.after))
            except ProblemError as refused:
                if len(some) == 1:
                    counter.add_failure(refused.problem, some[0].stored.id)
                else:
                    for case in some:
                        await self._decide([case], order, counter)

    async def _save(self, replay: StoredReplay) -> None:
        await self._writer.call(partial(self._store.put_replay, replay))


def read_slice(filter_: Filter, after: Cursor | None, store: Store) -> StoredSlice:
    """Return the next decisions to replay, newest first. Raises StoreError."""
    page = store.page(filter_, after, SLICE)
    cases: list[StoredCase] = []
    problems: list[tuple[str | None, Problem]] = [(None, store_damaged())] * page.damaged
    identities = [summary.id for summary in page.decisions]
    for identity, found in zip(identities, read_cases(store, identities), strict=True):
        if isinstance(found, Problem):
            problems.append((identity, found))
        else:
            cases.append(found)
    return StoredSlice(cases, problems, page.next)


def _parts(cases: Sequence[StoredCase]) -> list[list[StoredCase]]:
    """Return cases in parts of limited size."""
    parts: list[list[StoredCase]] = []
    size = SLICE_BYTES
    for case in cases:
        length = len(case.event) + len(case.stored.decision) + len(case.facts or b"")
        if size + length > SLICE_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(case)
        size += length
    return parts


def read_order(replay: StoredReplay) -> ReplayOrder:
    """Return the order of a stored replay."""
    order = from_json(replay.request)
    before, after = order["before"], order["after"]
    return ReplayOrder(
        _FILTER.validate_python(order["filter"]), order["given"], None if before is None else PolicyRef(**before), PolicyRef(**after)
    )


def entry_json(replay: StoredReplay) -> ReplayEntry:
    """Return a replay as in a list."""
    return ReplayEntry(*_columns(replay, _CHANGES.validate_json(replay.changes)))


def replay_json(replay: StoredReplay) -> Replay:
    """Return a replay with what changes."""
    changes = _CHANGES.validate_json(replay.changes)
    return Replay(*_columns(replay, changes), changes=changes)


def _columns(replay: StoredReplay, changes: DecisionChanges) -> tuple[Any, ...]:
    order = read_order(replay)
    about = replay.id, replay.state, rfc3339(replay.created_at_ms), order.given, order.before, order.after, replay.total
    return (*about, changes.compared, changes.changed, changes.failed, replay.error)
