"""Where events come in: decided once each, recognised when they come again, and answered when they are durable.

All of this happens in the event loop, between two awaits, so that of two equal events that arrive at once one is first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from uuid_utils import uuid7

from models.value import value
from service import tracing
from service.answers import envelop
from service.deciding import Conclusion, Document, Foreseen, Gist, Understood, understand
from service.problems import Refused, conflict, store_failed
from service.settings import Settings
from service.sources import Sources
from service.store.port import Entry, Kept, RowDamaged, Store, StoreError, Summary
from service.times import rfc3339
from service.writer import Writer

EXPECTED_GROWTH: Final = 4
"""Bytes that are kept for each byte of an event, roughly: itself and its decision."""


UNREAD_S: Final = 30.0
"""Seconds for which a read that failed counts against the service: long enough for a probe to see it, and then events may try again."""


@value
class Answered:
    """What the sender hears of one event."""

    id: str
    body: bytes
    """JSON."""
    repeat: bool


@dataclass(slots=True, eq=False)
class New:
    """An event that was decided for the first time, and will be answered once that is durable."""

    entry: Entry
    durable: asyncio.Future[None]


@value
class Again:
    """An event that is decided already, but not durably."""

    first: New


Outcome = New | Again | Kept | Refused
"""What becomes of an event; `Kept` is its first decision, `Refused` the problem with it."""


Item = Document | Foreseen | Refused
"""An event as it came, or decided beforehand; or why it is not read."""


class Intake:
    """Takes events in."""

    def __init__(self, settings: Settings, store: Store, writer: Writer, sources: Sources, clock_ms: Callable[[], int]) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._sources = sources
        self._clock_ms = clock_ms
        self._pending: dict[bytes, New] = {}
        """What is not durable yet, by repeat key."""
        self.decided: list[Callable[[Summary], None]] = []
        """Called for each new decision once it is durable."""
        self.repeated: list[Callable[[], None]] = []
        """Called for each event that was decided before."""
        self._last_unread = -UNREAD_S, ""
        self.unread: list[Callable[[StoreError], None]] = []
        """Called with why, where the store gave no answer."""

    def use(self, settings: Settings) -> None:
        """Decide by other settings from now on."""
        self._settings = settings

    @property
    def gives_way(self) -> str | None:
        """Why events are turned away: a moment ago, the store could not be asked whether one is new; None where that works."""
        since, why = self._last_unread
        return why if monotonic() - since < UNREAD_S else None

    async def decide(self, document: Document) -> Answered:
        """One event's answer, durable. Raises Refused, Busy, StoreError."""
        self._writer.require_room(1, EXPECTED_GROWTH * len(document.data))
        with tracing.span("decide"):
            (outcome,) = self.admit([document])
        if isinstance(outcome, Refused):
            raise outcome
        with tracing.span("commit"):
            return await answer(outcome)

    def try_out(self, document: Document) -> bytes:
        """One event's answer, of which nothing is kept. Raises Refused, StoreError."""
        understood = understand(document)
        return envelop(understood.conclude(self._settings, self._sources.known(understood.gist)).decision)

    def admit(self, items: Sequence[Item]) -> list[Outcome]:
        """Decide what is new, and hand it over to be kept.

        One event after the other, because one that is done with makes room in the processor's caches for the next.
        """
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcomes = [self._take(item, durable) for item in items]
        entries = [outcome.entry for outcome in outcomes if isinstance(outcome, New)]
        if entries:
            self._writer.keep(entries, durable)
            durable.add_done_callback(partial(self._settled, entries))
        return outcomes

    def _take(self, item: Item, durable: asyncio.Future[None]) -> Outcome:
        try:
            if isinstance(item, Refused):
                return item
            document, read = (item.document, item) if isinstance(item, Foreseen) else (item, understand(item))
            found = self._recognise(read.gist)
            if found is None:
                return self._keep(document, read, durable)
            for hear in self.repeated:
                hear()
            return found
        except Refused as refused:
            return refused
        except StoreError as error:
            if not isinstance(error, RowDamaged):  # that is the fault of one row
                self._last_unread = monotonic(), str(error)
            for hear_why in self.unread:
                hear_why(error)
            return Refused(store_failed(error))

    def _recognise(self, gist: Gist) -> Again | Kept | None:
        """What became of an event when it came first; None: it never did. Raises Refused, StoreError."""
        if gist.repeat_key is None:
            return None
        if (first := self._pending.get(gist.repeat_key)) is not None:
            summary = first.entry.summary
            _require_same(gist, summary.event_key, summary.id)
            return Again(first)
        found = self._store.repeat(gist.repeat_key)
        if self._last_unread[1]:
            self._last_unread = -UNREAD_S, ""  # the store answers again
        if found is not None:
            _require_same(gist, found.event_key, found.id)
        return found

    def _keep(self, document: Document, read: Understood | Foreseen, durable: asyncio.Future[None]) -> New:
        """Decide an event that is new, with what is known of its source, and remember what it does to it. Raises Refused, StoreError."""
        gist = read.gist
        conclusion = read.conclude(self._settings, self._sources.known(gist))
        summary = self._summarise(gist, conclusion)
        new = New(Entry(summary, gist.repeat_key, document.data, conclusion.decision, conclusion.poisoned, conclusion.went_down), durable)
        if gist.source is not None:
            self._sources.apply(gist.source, conclusion.poisoned, conclusion.went_down)
        if gist.repeat_key is not None:
            self._pending[gist.repeat_key] = new
        return new

    def _summarise(self, gist: Gist, conclusion: Conclusion) -> Summary:
        return Summary(
            str(uuid7()),
            self._clock_ms(),
            gist.source,
            gist.event_id,
            gist.event_key,
            conclusion.policy,
            conclusion.policy_digest,
            conclusion.action,
            conclusion.certainty,
            gist.notification,
            gist.severity,
            gist.sections,
            gist.physical_addresses,
        )

    def _settled(self, entries: list[Entry], durable: asyncio.Future[None]) -> None:
        """Entries are durable, or never will be; then the writer has had everything that is held forgotten."""
        for entry in entries:
            if entry.repeat_key is not None:
                del self._pending[entry.repeat_key]
        if durable.exception() is None:
            for entry in entries:
                for hear in self.decided:
                    hear(entry.summary)
                if entry.poisons and entry.summary.source is not None:
                    self._sources.saved(entry.summary.source, entry.poisons)


async def answer(outcome: New | Again | Kept) -> Answered:
    """The answer, once it is durable. Raises StoreError."""
    if isinstance(outcome, Kept):
        return _answered(outcome.id, outcome.decided_at_ms, outcome.decision, repeat=True)
    first = outcome.first if isinstance(outcome, Again) else outcome
    await asyncio.shield(first.durable)
    summary = first.entry.summary
    return _answered(summary.id, summary.decided_at_ms, first.entry.decision, repeat=isinstance(outcome, Again))


def _answered(identity: str, decided_at_ms: int, decision: bytes, *, repeat: bool) -> Answered:
    return Answered(identity, envelop(decision, identity=identity, decided_at=rfc3339(decided_at_ms), repeat=repeat), repeat)


def _require_same(gist: Gist, first_key: str, first_id: str) -> None:
    """Raises Refused where what came first was something else."""
    if gist.event_key != first_key:
        raise Refused(conflict(gist.event_id, gist.source, gist.event_key, first_id, first_key))
