"""Where events come in: decided once each, recognised when they come again, and answered when they are durable.

An event is recognised, and its decision handed over to be kept, in the event loop and between two awaits, so that of two equal events that
arrive at once one is first. Deciding takes place there too, unless it would hold the event loop up: then a worker process decides, and what
is kept for the source is compared afterwards. A defect that one event runs into is that event's problem `internal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, thread_time
from typing import Any, Final

from uuid_utils import uuid7

from models.value import value
from service import logs, tracing
from service.answers import envelop
from service.batch.workers import Workers
from service.deciding import (
    LOOP_STEPS,
    Conclusion,
    Defect,
    Document,
    Failed,
    Foreseen,
    Gist,
    HeavyEvent,
    Item,
    Understood,
    is_long,
    understand,
)
from service.defects import Defects, Stage
from service.hooks import call_each
from service.problems import Problem, Refused, busy, conflict, internal, store_failed
from service.settings import Settings
from service.sources import Sources, Undo
from service.store.port import Entry, Kept, RowDamaged, Store, StoreError, Summary
from service.time_limit import TimeLimit, TimeLimitExceeded
from service.times import rfc3339
from service.used_facts import Known, same_knowledge
from service.writer import Busy, EarlierWriteFailed, Writer

EXPECTED_GROWTH: Final = 4
"""Bytes that are kept for each byte of an event, roughly: itself and its decision."""

UNREAD_S: Final = 30.0
"""Seconds for which a read that failed counts against the service: long enough for a probe to see it, and then events may try again."""

LOOP_S: Final = 1.0
"""Seconds that an event may take in the event loop, whatever was estimated: one that takes longer is given to a worker process."""

TURN_S: Final = 0.02
"""Seconds of processor time after which a slice of a batch lets others have the event loop."""

ATTEMPTS: Final = 5
"""How often an event is decided where something comes in between: kept facts that change meanwhile, or a defect of the store."""


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

    document: Document
    entry: Entry
    durable: asyncio.Future[None]
    alone: bool
    """Whether it is kept by itself: a defect of the store is then its own."""


@value
class Again:
    """An event that is decided already, but not durably."""

    document: Document
    first: New


Turn = Callable[[Sequence[Item]], AbstractAsyncContextManager[None]]
"""Waits until it is somebody's turn to have items decided in the event loop."""


def at_once(_items: Sequence[Item]) -> AbstractAsyncContextManager[None]:
    """Wait for nothing: single requests go ahead of batches."""
    return nullcontext()


Outcome = New | Again | Kept | Refused
"""What becomes of an event; `Kept` is its first decision, `Refused` the problem with it."""


@value
class _Elsewhere:
    """An event that is to be decided by a worker process, with what is kept for its source as far as that is known."""

    document: Document
    known: Known | None


class _FoundDefect(Exception):
    """Deciding an event ran into a defect elsewhere."""

    def __init__(self, defect: Defect) -> None:
        super().__init__()
        self.defect = defect


@dataclass(slots=True)
class _Slice:
    """Events that are decided between two awaits, and whose decisions are handed over together."""

    durable: asyncio.Future[None]
    alone: bool
    entries: list[Entry] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    """What takes back what the decisions did to their sources."""
    repeats: int = 0


class Intake:
    """Takes events in."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        sources: Sources,
        workers: Workers,
        defects: Defects,
        clock_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._store = store
        self._writer = writer
        self._sources = sources
        self._workers = workers
        self._defects = defects
        self._clock_ms = clock_ms
        self.limit = TimeLimit(LOOP_S)
        self._pending: dict[bytes, New] = {}
        """What is not durable yet, by repeat key."""
        self._keeping: set[asyncio.Task[None]] = set()
        """Decisions that are kept by themselves."""
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
        """Return one event's answer, durable. Raises Refused, Busy, StoreError."""
        self._writer.require_room(1, EXPECTED_GROWTH * len(document.data))
        with tracing.span("decide"):
            (outcome,) = await self.admit([document], None, patient=False)
        if isinstance(outcome, Refused):
            raise outcome
        with tracing.span("commit"):
            return await self.answer(outcome)

    async def try_out(self, document: Document, place: int | None = None, *, patient: bool = False, turn: Turn = at_once) -> bytes:
        """Return one event's answer, of which nothing is kept; arguments as for `admit`. Raises Refused, Busy, StoreError."""
        item: Item = document
        for _ in range(ATTEMPTS):
            async with turn([item]):
                tried = self._try(item, place)
            if isinstance(tried, bytes):
                return tried
            item = await self._decide_elsewhere(tried, patient=patient)
        raise Refused(_changed())

    async def admit(
        self, items: Sequence[Item], place: int | None = 0, *, patient: bool = True, alone: bool = False, turn: Turn = at_once
    ) -> list[Outcome]:
        """Decide what is new, and hand it over to be kept. Raises Busy where it is not `patient`.

        One event after the other, because one that is done with makes room in the processor's caches for the next. `place`: of the first
        event in what it came in, from 0; None: it came by itself. `alone`: each decision is kept by itself. `turn` is waited for
        before anything is decided here; what a worker decides takes nobody else's turn.
        """
        outcomes: list[Outcome] = []
        rest, attempts = list(items), 0
        while True:
            async with turn(rest):
                some, elsewhere = self._admit(rest, None if place is None else place + len(outcomes), alone=alone)
            outcomes += some
            rest = rest[len(some) :]
            if not rest:
                return outcomes
            if elsewhere is None:
                await asyncio.sleep(0)
                continue
            attempts = 1 if some else attempts + 1
            rest[0] = await self._decide_elsewhere(elsewhere, patient=patient) if attempts <= ATTEMPTS else Refused(_changed())

    async def answer(self, outcome: New | Again | Kept, place: int | None = None) -> Answered:
        """Return the answer, once it is durable. Raises StoreError, Refused.

        Where a defect of the store keeps decisions from being kept that were handed over together, each is made and kept anew by itself.
        """
        for attempt in range(ATTEMPTS):
            if isinstance(outcome, Kept):
                return _answered(outcome.id, outcome.decided_at_ms, outcome.decision, repeat=True)
            first = outcome.first if isinstance(outcome, Again) else outcome
            try:
                await asyncio.shield(first.durable)
            except Exception as error:
                if _is_failure(error) or attempt == ATTEMPTS - 1:
                    raise
                if first.alone and not isinstance(error, EarlierWriteFailed):
                    summary = first.entry.summary
                    raise self._fail("store", logs.explain(error), outcome.document, place, summary.event_id) from None
            else:
                summary = first.entry.summary
                return _answered(summary.id, summary.decided_at_ms, first.entry.decision, repeat=isinstance(outcome, Again))
            (anew,) = await self.admit([outcome.document], place, alone=True)
            if isinstance(anew, Refused):
                raise anew
            outcome = anew
        raise AssertionError

    # Elsewhere.

    async def _decide_elsewhere(self, elsewhere: _Elsewhere, *, patient: bool) -> Item:
        """Have a worker process decide an event. Raises Busy."""
        if self._workers.is_full and not patient:
            raise Busy("many large events wait to be decided")
        try:
            return await self._workers.decide(elsewhere.document, elsewhere.known)
        except Exception as error:
            return Failed(elsewhere.document, Defect(logs.explain(error)))

    # Between two awaits.

    def _admit(self, items: Sequence[Item], place: int | None, *, alone: bool) -> tuple[list[Outcome], _Elsewhere | None]:
        """Admit the first events, and the one behind them where that is to be decided elsewhere; None: it is not, or there is none."""
        part = _Slice(asyncio.get_running_loop().create_future(), alone)
        outcomes: list[Outcome] = []
        elsewhere: _Elsewhere | None = None
        end, worked = monotonic() + TURN_S, thread_time() if len(items) > 1 else 0.0
        for item in items:
            taken = self._take(item, part, None if place is None else place + len(outcomes))
            if isinstance(taken, _Elsewhere):
                elsewhere = taken
                break
            outcomes.append(taken)
            if monotonic() > end and thread_time() - worked > TURN_S:  # on a busy machine, turns cut short would cost it still more
                break
        try:
            self._hand_over(part)
        except Exception as error:
            self._take_back(part)
            if len(outcomes) > 1:
                return self._admit_singly(items[: len(outcomes)], place, alone=alone)
            return [self._fail("decide", logs.explain(error), _document(items[0]), place)], elsewhere
        for _ in range(part.repeats):
            call_each(self.repeated)
        return outcomes, elsewhere

    def _admit_singly(self, items: Sequence[Item], place: int | None, *, alone: bool) -> tuple[list[Outcome], _Elsewhere | None]:
        """Admit events of which one cannot be handed over, each by itself."""
        outcomes: list[Outcome] = []
        for item in items:
            some, elsewhere = self._admit([item], None if place is None else place + len(outcomes), alone=alone)
            outcomes += some
            if elsewhere is not None:
                return outcomes, elsewhere
        return outcomes, None

    def _take_back(self, part: _Slice) -> None:
        """Undo what the decisions of a slice changed."""
        while part.undos:
            part.undos.pop()()
        self._forget_pending(part)

    def _forget_pending(self, part: _Slice) -> None:
        for entry in part.entries:
            if entry.repeat_key is not None:
                self._pending.pop(entry.repeat_key, None)

    def _hand_over(self, part: _Slice) -> None:
        if not part.entries:
            return
        if part.alone:
            keeping = asyncio.create_task(self._keep_alone(part))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)
        else:
            self._writer.keep(part.entries, part.durable)
        part.durable.add_done_callback(partial(self._settled, part))

    async def _keep_alone(self, part: _Slice) -> None:
        """Have the writer keep a slice by itself, so that a defect of the store fails nothing else."""
        try:
            defect = await self._writer.call(partial(_append, self._store, part.entries))
        except Exception as error:
            part.durable.set_exception(error)
            return
        if defect is None:
            part.durable.set_result(None)
        else:
            part.durable.set_exception(defect)

    def _take(self, item: Item, part: _Slice, place: int | None) -> Outcome | _Elsewhere:
        if isinstance(item, Refused):
            return item
        document, gist, known = _document(item), None, None
        try:
            gist, understood = self._read(item)
            found = self._recognise(gist, document)
            if found is not None:
                part.repeats += 1
                return found
            known = self._sources.known(gist)
            return self._keep(document, gist, self._conclude(item, understood, known), part)
        except Refused as refused:
            return refused
        except (HeavyEvent, TimeLimitExceeded):
            return _Elsewhere(document, known)
        except StoreError as error:
            if not isinstance(error, RowDamaged):  # that is the fault of one row
                self._last_unread = monotonic(), str(error)
            call_each(self.unread, error)
            return Refused(store_failed(error))
        except Exception as error:
            return self._fail("decide", _facts(error), document, place, None if gist is None else gist.event_id)

    def _try(self, item: Item, place: int | None) -> bytes | _Elsewhere:
        """Decide without keeping anything. Raises Refused, StoreError."""
        if isinstance(item, Refused):
            raise item
        document, gist, known = _document(item), None, None
        try:
            gist, understood = self._read(item)
            known = self._sources.known(gist)
            return envelop(self._conclude(item, understood, known).decision)
        except (HeavyEvent, TimeLimitExceeded):
            return _Elsewhere(document, known)
        except (Refused, StoreError):
            raise
        except Exception as error:
            raise self._fail("decide", _facts(error), document, place, None if gist is None else gist.event_id) from None

    def _read(self, item: Document | Foreseen | Failed) -> tuple[Gist, Understood | None]:
        """Return what an event says, and the event where it was read here. Raises Refused, HeavyEvent, TimeLimitExceeded, _FoundDefect."""
        if isinstance(item, Document):
            understood = self._understand(item)
            return understood.gist, understood
        if isinstance(item, Failed):
            raise _FoundDefect(item.defect)
        return item.gist, None

    def _understand(self, document: Document) -> Understood:
        if is_long(document):
            raise HeavyEvent
        self.limit.begin()
        try:
            return understand(document)
        finally:
            self.limit.end()

    def _recognise(self, gist: Gist, document: Document) -> Again | Kept | None:
        """Return what became of an event when it came first; None: it never did. Raises Refused, StoreError."""
        if gist.repeat_key is None:
            return None
        if (first := self._pending.get(gist.repeat_key)) is not None:
            summary = first.entry.summary
            _require_same(gist, summary.event_key, summary.id)
            return Again(document, first)
        found = self._store.repeat(gist.repeat_key)
        if self._last_unread[1]:
            self._last_unread = -UNREAD_S, ""  # the store answers again
        if found is not None:
            _require_same(gist, found.event_key, found.id)
        return found

    def _conclude(self, item: Document | Foreseen | Failed, understood: Understood | None, known: Known | None) -> Conclusion:
        """Return the decision with what is kept for the source now. Raises Refused, HeavyEvent, TimeLimitExceeded, _FoundDefect."""
        if isinstance(item, Foreseen) and same_knowledge(item.known, known):
            if isinstance(item.conclusion, Problem):
                raise Refused(item.conclusion)
            if isinstance(item.conclusion, Defect):
                raise _FoundDefect(item.conclusion)
            return item.conclusion
        understood = understood or self._understand(_document(item))
        self.limit.begin()
        try:
            return understood.conclude(self._settings, known, LOOP_STEPS)
        finally:
            self.limit.end()

    def _keep(self, document: Document, gist: Gist, conclusion: Conclusion, part: _Slice) -> New:
        """Put an event that is new to what is handed over, and remember what it does to its source. Raises StoreError."""
        summary = self._summarise(gist, conclusion)
        entry = Entry(summary, gist.repeat_key, document.data, conclusion.decision, conclusion.poisoned, conclusion.went_down)
        new = New(document, entry, part.durable, part.alone)
        part.entries.append(entry)
        try:
            if gist.source is not None and not part.alone:
                undo = self._sources.apply(gist.source, conclusion.poisoned, conclusion.went_down)
                if undo is not None:
                    part.undos.append(undo)
        except BaseException:
            part.entries.pop()
            raise
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

    def _fail(
        self, stage: Stage, facts: Mapping[str, Any], document: Document, place: int | None, event_id: str | None = None
    ) -> Refused:  # fmt: skip
        """Report a defect that an event ran into. Return its problem."""
        self._defects.report(stage, facts, item=place, event_id=event_id, document=document.data)
        return Refused(internal())

    def _settled(self, part: _Slice, durable: asyncio.Future[None]) -> None:
        """Entries are durable, or never will be; then the writer has had everything that is held forgotten."""
        self._forget_pending(part)
        if durable.exception() is not None:
            return
        for entry in part.entries:
            call_each(self.decided, entry.summary)
            source = entry.summary.source
            if source is None:
                continue
            if part.alone:
                call_each([self._sources.apply], source, entry.poisons, entry.forgets)
            if entry.poisons:
                self._sources.saved(source, entry.poisons)


def _append(store: Store, entries: Sequence[Entry]) -> Exception | None:
    """Keep decisions. Return the defect that kept the store from it. Raises StoreError."""
    try:
        store.append(entries)
    except StoreError:
        raise
    except Exception as error:
        return error
    return None


def _document(item: Item) -> Document:
    if isinstance(item, Document):
        return item
    assert not isinstance(item, Refused)
    return item.document


def _facts(error: Exception) -> Mapping[str, Any]:
    return error.defect.facts if isinstance(error, _FoundDefect) else logs.explain(error)


def _is_failure(error: Exception) -> bool:
    """Whether the store failed, not an event in it: whoever waited hears of that."""
    if isinstance(error, EarlierWriteFailed):
        return isinstance(error.failure, StoreError)
    return isinstance(error, StoreError)


def _changed() -> Problem:
    return busy("what is kept for the source changed again and again while the event was decided; retry later")


def _answered(identity: str, decided_at_ms: int, decision: bytes, *, repeat: bool) -> Answered:
    return Answered(identity, envelop(decision, identity=identity, decided_at=rfc3339(decided_at_ms), repeat=repeat), repeat)


def _require_same(gist: Gist, first_key: str, first_id: str) -> None:
    """Raises Refused where what came first was something else."""
    if gist.event_key != first_key:
        raise Refused(conflict(gist.event_id, gist.source, gist.event_key, first_id, first_key))
