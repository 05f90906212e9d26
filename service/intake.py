"""Where events come in: decided once each, recognised when they come again, and answered when they are durable.

All of this happens in the event loop, between two awaits, so that of two equal events that arrive at once one is first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from pydantic_core import to_json
from uuid_utils import uuid7

from models.contents import physical_addresses, section_names
from models.decision import Action, Decision
from models.event import Event, event_key
from models.severity import severity_name
from models.status_block import StatusBlock, parse
from models.value import value
from policies.decide import TOLD, Settled, settle
from service import logs, tracing
from service.answers import choose_policy, decision_json, envelop, read_event
from service.problems import Refused, conflict, store_failed
from service.settings import Settings
from service.sources import Sources
from service.store.port import Entry, Kept, Store, StoreError, Summary
from service.times import rfc3339
from service.used_facts import UsedFacts
from service.writer import Writer

EXPECTED_GROWTH: Final = 4
"""Bytes that are kept for each byte of an event, roughly: itself and its decision."""


@value
class Document:
    """An event as it was sent."""

    data: bytes
    """JSON."""
    name: bytes | None = None
    """Tells a repeat of an event that says nothing by which it could be told: from the request's Idempotency-Key and the position in it."""
    assumed: frozenset[str] = TOLD
    """JSON pointers into the event at which its sender took something for granted, as for `decide`."""


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


@value
class _Read:
    """An event that was understood."""

    event: Event
    data: bytes
    key: str
    repeat_key: bytes | None
    assumed: frozenset[str]


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

    async def decide(self, document: Document) -> Answered:
        """One event's answer, durable. Raises Refused, Busy, StoreError."""
        self._writer.require_room(1, EXPECTED_GROWTH * len(document.data))
        with tracing.span("decide"):
            (outcome,) = self.admit([document])
        if isinstance(outcome, Refused):
            raise outcome
        with tracing.span("commit"):
            return await answer(outcome)

    def try_out(self, data: bytes, assumed: frozenset[str] = TOLD) -> bytes:
        """One event's answer, of which nothing is kept. Raises Refused, StoreError."""
        event = read_event(data)
        block = None if event.status_block is None else parse(event.status_block)
        settled, used = self._settle(event, block, event_key(event), assumed)
        return envelop(decision_json(settled.decision, used))

    def admit(self, documents: Sequence[Document]) -> list[Outcome]:
        """Decide what is new, and hand it over to be kept.

        One event after the other, because one that is done with makes room in the processor's caches for the next.
        """
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        outcomes = [self._take(document, durable) for document in documents]
        entries = [outcome.entry for outcome in outcomes if isinstance(outcome, New)]
        if entries:
            self._writer.keep(entries, durable)
            durable.add_done_callback(partial(self._settled, entries))
        return outcomes

    def _take(self, document: Document, durable: asyncio.Future[None]) -> Outcome:
        try:
            item = _read(document)
            found = self._recognise(item)
            if found is None:
                return self._decide(item, durable)
            for hear in self.repeated:
                hear()
            return found
        except Refused as refused:
            return refused
        except StoreError as error:
            logs.log(logging.ERROR, "store failed", error=str(error))
            return Refused(store_failed(error))

    def _recognise(self, item: _Read) -> Again | Kept | None:
        """What became of an event when it came first; None: it never did. Raises Refused, StoreError."""
        if item.repeat_key is None:
            return None
        if (first := self._pending.get(item.repeat_key)) is not None:
            summary = first.entry.summary
            _require_same(item, summary.event_key, summary.id)
            return Again(first)
        if (found := self._store.repeat(item.repeat_key)) is not None:
            _require_same(item, found.event_key, found.id)
        return found

    def _decide(self, item: _Read, durable: asyncio.Future[None]) -> New:
        """Decide an event that is new, with what is known of its source, and remember what it does to it. Raises Refused, StoreError."""
        event = item.event
        block = None if event.status_block is None else parse(event.status_block)
        settled, used = self._settle(event, block, item.key, item.assumed)
        went_down = settled.decision.action is Action.PANIC
        poisoned = () if went_down or event.source is None else settled.poisoned
        entry = Entry(
            self._summarise(item, block, settled.decision),
            item.repeat_key,
            item.data,
            decision_json(settled.decision, used),
            poisoned,
            went_down,
        )
        if event.source is not None:
            self._sources.apply(event.source, poisoned, went_down)
        new = New(entry, durable)
        if item.repeat_key is not None:
            self._pending[item.repeat_key] = new
        return new

    def _settle(self, event: Event, block: StatusBlock | None, key: str, assumed: frozenset[str]) -> tuple[Settled, UsedFacts | None]:
        informed, used = self._sources.informed(event, () if block is None else physical_addresses(block))
        return settle(informed, block, choose_policy(informed, self._settings), key, assumed), used

    def _summarise(self, item: _Read, block: StatusBlock | None, decision: Decision) -> Summary:
        event = item.event
        return Summary(
            str(uuid7()),
            self._clock_ms(),
            event.source,
            event.id,
            item.key,
            decision.policy.name,
            decision.policy.digest,
            decision.action.value,
            decision.certainty,
            event.notification.type.value,
            None if block is None else severity_name(block.error_severity),
            () if block is None else section_names(block),
            () if block is None else physical_addresses(block),
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


def _read(document: Document) -> _Read:
    """Raises Refused."""
    event = read_event(document.data)
    key = event_key(event)
    return _Read(event, document.data, key, _repeat_key(event, key, document.name), document.assumed)


def _repeat_key(event: Event, key: str, name: bytes | None) -> bytes | None:
    """What a repeat of the event has in common with it: source and id, else content with a time in it, else the request's own name."""
    if event.id is not None:
        return hashlib.sha256(to_json(["id", event.source, event.id])).digest()
    if event.time is not None:
        return bytes.fromhex(key.removeprefix("sha256:"))
    return name


def _require_same(item: _Read, first_key: str, first_id: str) -> None:
    """Raises Refused where what came first was something else."""
    if item.key != first_key:
        raise Refused(conflict(item.event.id, item.event.source, item.key, first_id, first_key))
