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

from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import Problem, ProblemError, busy, conflict, internal
from ras_triage.service.api.times import rfc3339
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.defects import Defects, Stage
from ras_triage.service.engine.evaluation import (
    LOOP_STEPS,
    BatchItem,
    Defect,
    EncodedDecision,
    EventDocument,
    EventKeys,
    Failed,
    HeavyEvent,
    ParsedEvent,
    Predecided,
    is_long,
    parse_event,
)
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.engine.responses import wrap_decision
from ras_triage.service.engine.sources import Sources, Undo
from ras_triage.service.engine.time_limit import TimeLimit, TimeLimitExceeded
from ras_triage.service.engine.used_facts import KeptFacts, same_knowledge
from ras_triage.service.store.port import NewDecision, RowDamaged, Store, StoredDecision, StoreError, Summary
from ras_triage.service.store.writer import EarlierWriteFailed, WriteQueueFull, Writer
from ras_triage.service.telemetry import logs, tracing
from ras_triage.service.telemetry.hooks import call_each

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


@frozen
class EventResponse:
    """What the sender hears of one event."""

    id: str
    body: bytes
    """JSON."""
    repeat: bool


@dataclass(slots=True, eq=False)
class Decided:
    """An event that was decided for the first time, and will be answered once that is durable."""

    document: EventDocument
    entry: NewDecision
    durable: asyncio.Future[None]
    alone: bool
    """Whether it is kept by itself: a defect of the store is then its own."""


@frozen
class PendingRepeat:
    """An event that is decided already, but not durably."""

    document: EventDocument
    first: Decided


Turn = Callable[[Sequence[BatchItem]], AbstractAsyncContextManager[None]]
"""Waits until it is somebody's turn to have items decided in the event loop."""


def at_once(_items: Sequence[BatchItem]) -> AbstractAsyncContextManager[None]:
    """Wait for nothing: single requests go ahead of batches."""
    return nullcontext()


Outcome = Decided | PendingRepeat | StoredDecision | ProblemError
"""What becomes of an event; `Kept` is its first decision, `Refused` the problem with it."""


@frozen
class _Elsewhere:
    """An event that is to be decided by a worker process, with what is kept for its source as far as that is known."""

    document: EventDocument
    known: KeptFacts | None


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
    entries: list[NewDecision] = field(default_factory=list)
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
        self._pending: dict[bytes, Decided] = {}
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
    def unavailable_reason(self) -> str | None:
        """Why events are turned away: a moment ago, the store could not be asked whether one is new; None where that works."""
        since, why = self._last_unread
        return why if monotonic() - since < UNREAD_S else None

    async def decide(self, document: EventDocument) -> EventResponse:
        """Return one event's answer, durable. Raises Refused, Busy, StoreError."""
        self._writer.require_room(1, EXPECTED_GROWTH * len(document.data))
        with tracing.span("decide"):
            (outcome,) = await self.admit([document], None, patient=False)
        if isinstance(outcome, ProblemError):
            raise outcome
        with tracing.span("commit"):
            return await self.await_response(outcome)

    async def decide_dry_run(
        self, document: EventDocument, place: int | None = None, *, patient: bool = False, turn: Turn = at_once
    ) -> bytes:
        """Return one event's answer, of which nothing is kept; arguments as for `admit`. Raises Refused, Busy, StoreError."""
        item: BatchItem = document
        for _ in range(ATTEMPTS):
            async with turn([item]):
                tried = self._try(item, place)
            if isinstance(tried, bytes):
                return tried
            item = await self._decide_elsewhere(tried, patient=patient)
        raise ProblemError(_changed())

    async def admit(
        self, items: Sequence[BatchItem], place: int | None = 0, *, patient: bool = True, alone: bool = False, turn: Turn = at_once
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
            rest[0] = await self._decide_elsewhere(elsewhere, patient=patient) if attempts <= ATTEMPTS else ProblemError(_changed())

    async def await_response(self, outcome: Decided | PendingRepeat | StoredDecision, place: int | None = None) -> EventResponse:
        """Return the answer, once it is durable. Raises StoreError, Refused.

        Where a defect of the store keeps decisions from being kept that were handed over together, each is made and kept anew by itself.
        """
        for attempt in range(ATTEMPTS):
            if isinstance(outcome, StoredDecision):
                return _answered(outcome.id, outcome.decided_at_ms, outcome.decision, repeat=True)
            first = outcome.first if isinstance(outcome, PendingRepeat) else outcome
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
                return _answered(summary.id, summary.decided_at_ms, first.entry.decision, repeat=isinstance(outcome, PendingRepeat))
            (anew,) = await self.admit([outcome.document], place, alone=True)
            if isinstance(anew, ProblemError):
                raise anew
            outcome = anew
        raise AssertionError

    # Elsewhere.

    async def _decide_elsewhere(self, elsewhere: _Elsewhere, *, patient: bool) -> BatchItem:
        """Have a worker process decide an event. Raises Busy."""
        if self._workers.is_full and not patient:
            raise WriteQueueFull("many large events wait to be decided")
        try:
            return await self._workers.decide(elsewhere.document, elsewhere.known)
        except Exception as error:
            return Failed(elsewhere.document, Defect(logs.explain(error)))

    # Between two awaits.

    def _admit(self, items: Sequence[BatchItem], place: int | None, *, alone: bool) -> tuple[list[Outcome], _Elsewhere | None]:
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

    def _admit_singly(self, items: Sequence[BatchItem], place: int | None, *, alone: bool) -> tuple[list[Outcome], _Elsewhere | None]:
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

    def _take(self, item: BatchItem, part: _Slice, place: int | None) -> Outcome | _Elsewhere:
        if isinstance(item, ProblemError):
            return item
        document, keys, known = _document(item), None, None
        try:
            keys, understood = self._read(item)
            found = self._recognise(keys, document)
            if found is not None:
                part.repeats += 1
                return found
            known = self._sources.known(keys)
            return self._keep(document, keys, self._conclude(item, understood, known), part)
        except ProblemError as refused:
            return refused
        except (HeavyEvent, TimeLimitExceeded):
            return _Elsewhere(document, known)
        except StoreError as error:
            if not isinstance(error, RowDamaged):  # that is the fault of one row
                self._last_unread = monotonic(), str(error)
            call_each(self.unread, error)
            return ProblemError(store_failed(error))
        except Exception as error:
            return self._fail("decide", _facts(error), document, place, None if keys is None else keys.event_id)

    def _try(self, item: BatchItem, place: int | None) -> bytes | _Elsewhere:
        """Decide without keeping anything. Raises Refused, StoreError."""
        if isinstance(item, ProblemError):
            raise item
        document, keys, known = _document(item), None, None
        try:
            keys, understood = self._read(item)
            known = self._sources.known(keys)
            return wrap_decision(self._conclude(item, understood, known).decision)
        except (HeavyEvent, TimeLimitExceeded):
            return _Elsewhere(document, known)
        except (ProblemError, StoreError):
            raise
        except Exception as error:
            raise self._fail("decide", _facts(error), document, place, None if keys is None else keys.event_id) from None

    def _read(self, item: EventDocument | Predecided | Failed) -> tuple[EventKeys, ParsedEvent | None]:
        """Return what an event says, and the event where it was read here. Raises Refused, HeavyEvent, TimeLimitExceeded, _FoundDefect."""
        if isinstance(item, EventDocument):
            understood = self._understand(item)
            return understood.keys, understood
        if isinstance(item, Failed):
            raise _FoundDefect(item.defect)
        return item.keys, None

    def _understand(self, document: EventDocument) -> ParsedEvent:
        if is_long(document):
            raise HeavyEvent
        self.limit.begin()
        try:
            return parse_event(document)
        finally:
            self.limit.end()

    def _recognise(self, keys: EventKeys, document: EventDocument) -> PendingRepeat | StoredDecision | None:
        """Return what became of an event when it came first; None: it never did. Raises Refused, StoreError."""
        if keys.repeat_key is None:
            return None
        if (first := self._pending.get(keys.repeat_key)) is not None:
            summary = first.entry.summary
            _require_same(keys, summary.event_key, summary.id)
            return PendingRepeat(document, first)
        found = self._store.repeat(keys.repeat_key)
        if self._last_unread[1]:
            self._last_unread = -UNREAD_S, ""  # the store answers again
        if found is not None:
            _require_same(keys, found.event_key, found.id)
        return found

    def _conclude(
        self, item: EventDocument | Predecided | Failed, understood: ParsedEvent | None, known: KeptFacts | None
    ) -> EncodedDecision:
        """Return the decision with what is kept for the source now. Raises Refused, HeavyEvent, TimeLimitExceeded, _FoundDefect."""
        if isinstance(item, Predecided) and same_knowledge(item.known, known):
            if isinstance(item.conclusion, Problem):
                raise ProblemError(item.conclusion)
            if isinstance(item.conclusion, Defect):
                raise _FoundDefect(item.conclusion)
            return item.conclusion
        understood = understood or self._understand(_document(item))
        self.limit.begin()
        try:
            return understood.conclude(self._settings, known, LOOP_STEPS)
        finally:
            self.limit.end()

    def _keep(self, document: EventDocument, keys: EventKeys, conclusion: EncodedDecision, part: _Slice) -> Decided:
        """Put an event that is new to what is handed over, and remember what it does to its source. Raises StoreError."""
        summary = self._summarise(keys, conclusion)
        entry = NewDecision(summary, keys.repeat_key, document.data, conclusion.decision, conclusion.poisoned, conclusion.went_down)
        new = Decided(document, entry, part.durable, part.alone)
        part.entries.append(entry)
        try:
            if keys.source is not None and not part.alone:
                undo = self._sources.apply(keys.source, conclusion.poisoned, conclusion.went_down)
                if undo is not None:
                    part.undos.append(undo)
        except BaseException:
            part.entries.pop()
            raise
        if keys.repeat_key is not None:
            self._pending[keys.repeat_key] = new
        return new

    def _summarise(self, keys: EventKeys, conclusion: EncodedDecision) -> Summary:
        return Summary(
            str(uuid7()),
            self._clock_ms(),
            keys.source,
            keys.event_id,
            keys.event_key,
            conclusion.policy,
            conclusion.policy_digest,
            conclusion.action,
            conclusion.certainty,
            keys.notification,
            keys.severity,
            keys.sections,
            keys.physical_addresses,
        )

    def _fail(
        self, stage: Stage, facts: Mapping[str, Any], document: EventDocument, place: int | None, event_id: str | None = None
    ) -> ProblemError:  # fmt: skip
        """Report a defect that an event ran into. Return its problem."""
        self._defects.report(stage, facts, item=place, event_id=event_id, document=document.data)
        return ProblemError(internal())

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


def _append(store: Store, entries: Sequence[NewDecision]) -> Exception | None:
    """Keep decisions. Return the defect that kept the store from it. Raises StoreError."""
    try:
        store.append(entries)
    except StoreError:
        raise
    except Exception as error:
        return error
    return None


def _document(item: BatchItem) -> EventDocument:
    if isinstance(item, EventDocument):
        return item
    assert not isinstance(item, ProblemError)
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


def _answered(identity: str, decided_at_ms: int, decision: bytes, *, repeat: bool) -> EventResponse:
    return EventResponse(identity, wrap_decision(decision, identity=identity, decided_at=rfc3339(decided_at_ms), repeat=repeat), repeat)


def _require_same(keys: EventKeys, first_key: str, first_id: str) -> None:
    """Raises Refused where what came first was something else."""
    if keys.event_key != first_key:
        raise ProblemError(conflict(keys.event_id, keys.source, keys.event_key, first_id, first_key))
