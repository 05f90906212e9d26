"""Event intake: recognise repeats, decide, store, and answer once durable.

Look-up of repeats and queueing of the decision take place in the event loop without an await in between, so that of two equal events that
arrive at the same time one is the first. Deciding takes place there too, unless it would block the event loop: then a worker process
decides, and the result is used only if the stored facts of the source are still the same. An unexpected exception fails only the event
that caused it, with the problem `internal`.
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
from ras_triage.service.engine.batch.slice_evaluation import SliceContext, source_in
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.defects import Defects, Stage
from ras_triage.service.engine.evaluation import (
    LOOP_STEPS,
    BatchItem,
    Defect,
    EncodedDecision,
    EventDocument,
    EventKeys,
    FailedEvent,
    HeavyEvent,
    ParsedEvent,
    PredecidedEvent,
    is_long,
    parse_event,
)
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.engine.responses import wrap_decision
from ras_triage.service.engine.source_state import Undo
from ras_triage.service.engine.sources import Sources
from ras_triage.service.engine.time_limit import TimeLimit, TimeLimitExceeded
from ras_triage.service.engine.used_facts import StoredFacts
from ras_triage.service.store.port import NewDecision, RowDamaged, Store, StoredDecision, StoreError, Summary
from ras_triage.service.store.writer import EarlierWriteFailed, WriteQueueFull, Writer
from ras_triage.service.telemetry import logs, tracing
from ras_triage.service.telemetry.hooks import call_each

EXPECTED_GROWTH: Final = 4
"""Approximate bytes in the write queue for each byte of an event: the event and its decision."""

LOOKUP_FAILED_S: Final = 30.0
"""Seconds for which a failed look-up makes the service not ready: long enough for a probe to notice, then events may try again."""

LOOP_S: Final = 1.0
"""Time limit for an event in the event loop, in seconds. An event that takes longer than estimated goes to a worker process."""

TURN_S: Final = 0.005
"""Processor time after which a slice of a batch yields the event loop, in seconds."""

ATTEMPTS: Final = 5
"""Attempts to decide an event whose source facts change meanwhile, or after an unexpected exception of the store."""


@frozen
class EventResponse:
    """Response to one event."""

    id: str | None
    """None: dry run."""
    body: bytes
    """JSON."""
    repeat: bool
    event_id: str | None
    """The sender's own."""


@dataclass(slots=True, eq=False)
class DecidedEvent:
    """New event whose decision is in the write queue."""

    document: EventDocument
    entry: NewDecision
    durable: asyncio.Future[None]
    separate: bool
    """Whether it is stored in a transaction of its own, so that an unexpected exception of the store is due to it."""


@frozen
class PendingRepeat:
    """Repeat of an event whose decision is not durable yet."""

    document: EventDocument
    first: DecidedEvent


@frozen
class StoredRepeat:
    """Repeat of an event whose decision is stored."""

    event_id: str | None
    """The sender's own."""
    first: StoredDecision


Turn = Callable[[Sequence[BatchItem]], AbstractAsyncContextManager[None]]
"""Waits for a turn to decide items in the event loop."""


def at_once(_items: Sequence[BatchItem]) -> AbstractAsyncContextManager[None]:
    """Take a turn at once: single requests go before batches."""
    return nullcontext()


Outcome = DecidedEvent | PendingRepeat | StoredRepeat | ProblemError
"""Result of admitting an event."""


@frozen
class _ForWorker:
    """Event for a worker process, with the stored facts of its source as far as they are known."""

    document: EventDocument
    known: StoredFacts | None


class _WorkerDefect(Exception):
    """A worker reported an unexpected exception for the event."""

    def __init__(self, defect: Defect) -> None:
        super().__init__()
        self.defect = defect


@dataclass(slots=True)
class _Slice:
    """Events that are decided without an await in between, and queued together."""

    durable: asyncio.Future[None]
    separate: bool
    entries: list[NewDecision] = field(default_factory=list)
    undos: list[Undo] = field(default_factory=list)
    """Revert the effects of the decisions on the cached sources."""
    repeats: int = 0
    new_keys: frozenset[bytes] = frozenset()
    """Repeat keys that no stored decision has."""


class Intake:
    """Admits events and waits for their decisions to be durable."""

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
        self._pending: dict[bytes, DecidedEvent] = {}
        """Decisions that are not durable yet, by repeat key."""
        self._storing: set[asyncio.Task[None]] = set()
        """Tasks that store decisions one by one."""
        self.decided: list[Callable[[Summary], None]] = []
        """Called for each new decision once it is durable."""
        self.repeated: list[Callable[[], None]] = []
        """Called for each repeat."""
        self._last_lookup_failure = -LOOKUP_FAILED_S, ""
        self.lookup_failed: list[Callable[[StoreError], None]] = []
        """Called with the error of each failed look-up."""

    def use(self, settings: Settings) -> None:
        """Apply new settings from now on."""
        self._settings = settings

    @property
    def unavailable_reason(self) -> str | None:
        """Reason for refusing events after a failed duplicate look-up; None if look-ups work."""
        since, why = self._last_lookup_failure
        return why if monotonic() - since < LOOKUP_FAILED_S else None

    async def decide(self, document: EventDocument) -> EventResponse:
        """Decide one event. Return the response once durable. Raises ProblemError, WriteQueueFull, StoreError."""
        self._writer.require_room(1, EXPECTED_GROWTH * len(document.data))
        with tracing.span("decide"):
            (outcome,) = await self.admit([document], None, patient=False)
        if isinstance(outcome, ProblemError):
            raise outcome
        with tracing.span("commit"):
            return await self.await_response(outcome)

    async def decide_dry_run(self, document: EventDocument) -> EventResponse:
        """Decide one event without storing anything. Raises ProblemError, WriteQueueFull."""
        (outcome,) = await self.admit_dry_run([document], None, patient=False)
        if isinstance(outcome, ProblemError):
            raise outcome
        return outcome

    async def admit_dry_run(
        self, items: Sequence[BatchItem], place: int | None = 0, *, patient: bool = True, turn: Turn = at_once
    ) -> list[EventResponse | ProblemError]:
        """Decide events without storing anything, each as if the others were not there; parameters as for `admit`."""
        outcomes: list[EventResponse | ProblemError] = []
        rest, attempts = list(items), 0
        while rest:
            async with turn(rest):
                some, elsewhere = self._try_slice(rest, None if place is None else place + len(outcomes))
            outcomes += some
            rest = rest[len(some) :]
            if elsewhere is not None:
                attempts = 1 if some else attempts + 1
                rest[0] = await self._decide_elsewhere(elsewhere, patient=patient) if attempts <= ATTEMPTS else ProblemError(_changed())
            elif rest:
                await asyncio.sleep(0)
        return outcomes

    async def admit(
        self, items: Sequence[BatchItem], place: int | None = 0, *, patient: bool = True, separate: bool = False, turn: Turn = at_once
    ) -> list[Outcome]:
        """Decide new events and queue their decisions. Raises WriteQueueFull if not `patient` and the workers' queue is full.

        Events are processed one by one, which keeps the processor's caches warm. `place`: index of the first event in its batch or file,
        from 0; None: a single event. `separate`: store each decision in a transaction of its own. `turn` is awaited before anything is
        decided in the event loop; workers need no turn.
        """
        outcomes: list[Outcome] = []
        rest, attempts = list(items), 0
        while True:
            async with turn(rest):
                some, elsewhere = self._admit(rest, None if place is None else place + len(outcomes), separate=separate)
            outcomes += some
            rest = rest[len(some) :]
            if not rest:
                return outcomes
            if elsewhere is None:
                await asyncio.sleep(0)
                continue
            attempts = 1 if some else attempts + 1
            rest[0] = await self._decide_elsewhere(elsewhere, patient=patient) if attempts <= ATTEMPTS else ProblemError(_changed())

    async def await_response(self, outcome: DecidedEvent | PendingRepeat | StoredRepeat, place: int | None = None) -> EventResponse:
        """Return the response once the decision is durable. Raises StoreError, ProblemError.

        If a transaction fails with an unexpected exception, each of its events is decided again and stored in a transaction of its own.
        """
        for attempt in range(ATTEMPTS):
            if isinstance(outcome, StoredRepeat):
                stored = outcome.first
                return _response(stored.id, stored.decided_at_ms, stored.decision, outcome.event_id, repeat=True)
            first = outcome.first if isinstance(outcome, PendingRepeat) else outcome
            try:
                await asyncio.shield(first.durable)
            except Exception as error:
                if _is_failure(error) or attempt == ATTEMPTS - 1:
                    raise
                if first.separate and not isinstance(error, EarlierWriteFailed):
                    summary = first.entry.summary
                    raise self._fail("store", logs.explain(error), outcome.document, place, summary.event_id) from None
            else:
                summary, repeat = first.entry.summary, isinstance(outcome, PendingRepeat)
                return _response(summary.id, summary.decided_at_ms, first.entry.decision, summary.event_id, repeat=repeat)
            (anew,) = await self.admit([outcome.document], place, separate=True)
            if isinstance(anew, ProblemError):
                raise anew
            outcome = anew
        raise AssertionError

    # In a worker process.

    async def predecide(self, items: Sequence[EventDocument | ProblemError], *, dry_run: bool = False) -> Sequence[BatchItem]:
        """Decide a slice of a batch in a worker process, with what is cached of its sources; `dry_run`: each event as if alone."""
        names = {name for item in items if isinstance(item, EventDocument) and (name := source_in(item)) is not None}
        return await self._workers.predecide(items, SliceContext(self._sources.snapshots(names), self._clock_ms(), dry_run))

    async def _decide_elsewhere(self, elsewhere: _ForWorker, *, patient: bool) -> BatchItem:
        """Decide an event in a worker process. Raises WriteQueueFull."""
        if self._workers.is_full and not patient:
            raise WriteQueueFull("too many large events wait for a worker process")
        try:
            return await self._workers.decide(elsewhere.document, elsewhere.known)
        except Exception as error:
            return FailedEvent(elsewhere.document, Defect(logs.explain(error)))

    # In the event loop, without an await.

    def _admit(self, items: Sequence[BatchItem], place: int | None, *, separate: bool) -> tuple[list[Outcome], _ForWorker | None]:
        """Admit events up to the first one for a worker process. Return their outcomes and that event; None: there is none yet."""
        part = _Slice(asyncio.get_running_loop().create_future(), separate, new_keys=self._new_keys(items))
        outcomes: list[Outcome] = []
        elsewhere: _ForWorker | None = None
        end, worked = monotonic() + TURN_S, thread_time() if len(items) > 1 else 0.0
        for item in items:
            taken = self._take(item, part, None if place is None else place + len(outcomes))
            if isinstance(taken, _ForWorker):
                elsewhere = taken
                break
            outcomes.append(taken)
            if monotonic() > end and thread_time() - worked > TURN_S:  # on a busy machine, shorter turns would cost even more
                break
        try:
            self._queue(part)
        except Exception as error:
            self._revert(part)
            if len(outcomes) > 1:
                return self._admit_singly(items[: len(outcomes)], place, separate=separate)
            return [self._fail("decide", logs.explain(error), _document(items[0]), place)], elsewhere
        for _ in range(part.repeats):
            call_each(self.repeated)
        return outcomes, elsewhere

    def _admit_singly(self, items: Sequence[BatchItem], place: int | None, *, separate: bool) -> tuple[list[Outcome], _ForWorker | None]:
        """Admit events one by one, after queueing them together failed."""
        outcomes: list[Outcome] = []
        for item in items:
            some, elsewhere = self._admit([item], None if place is None else place + len(outcomes), separate=separate)
            outcomes += some
            if elsewhere is not None:
                return outcomes, elsewhere
        return outcomes, None

    def _revert(self, part: _Slice) -> None:
        """Revert what the decisions of a slice changed."""
        while part.undos:
            part.undos.pop()()
        self._forget_pending(part)

    def _forget_pending(self, part: _Slice) -> None:
        for entry in part.entries:
            if entry.repeat_key is not None:
                self._pending.pop(entry.repeat_key, None)

    def _queue(self, part: _Slice) -> None:
        if not part.entries:
            return
        if part.separate:
            keeping = asyncio.create_task(self._store_separately(part))
            self._storing.add(keeping)
            keeping.add_done_callback(self._storing.discard)
        else:
            self._writer.enqueue(part.entries, part.durable)
        part.durable.add_done_callback(partial(self._written, part))

    async def _store_separately(self, part: _Slice) -> None:
        """Store a slice in a transaction of its own, so that an unexpected exception fails nothing else."""
        try:
            defect = await self._writer.call(partial(_append, self._store, part.entries))
        except Exception as error:
            part.durable.set_exception(error)
            return
        if defect is None:
            part.durable.set_result(None)
        else:
            part.durable.set_exception(defect)

    def _take(self, item: BatchItem, part: _Slice, place: int | None) -> Outcome | _ForWorker:
        if isinstance(item, ProblemError):
            return item
        document, keys, known = _document(item), None, None
        try:
            keys, parsed = self._read(item)
            found = self._find_repeat(keys, document, part.new_keys)
            if found is not None:
                part.repeats += 1
                return found
            known = self._sources.facts_for(keys, self._clock_ms())
            return self._keep(document, keys, self._encode_decision(item, parsed, known), part)
        except ProblemError as refused:
            return refused
        except (HeavyEvent, TimeLimitExceeded):
            return _ForWorker(document, known)
        except StoreError as error:
            if not isinstance(error, RowDamaged):  # which concerns only one row
                self._last_lookup_failure = monotonic(), str(error)
            call_each(self.lookup_failed, error)
            return ProblemError(store_failed(error))
        except Exception as error:
            return self._fail("decide", _facts(error), document, place, None if keys is None else keys.event_id)

    def _try_slice(self, items: Sequence[BatchItem], place: int | None) -> tuple[list[EventResponse | ProblemError], _ForWorker | None]:
        """Decide events without storing anything, up to the first one for a worker process, as `_admit`."""
        outcomes: list[EventResponse | ProblemError] = []
        end = monotonic() + TURN_S
        for item in items:
            tried = self._try(item, None if place is None else place + len(outcomes))
            if isinstance(tried, _ForWorker):
                return outcomes, tried
            outcomes.append(tried)
            if monotonic() > end:
                break
        return outcomes, None

    def _try(self, item: BatchItem, place: int | None) -> EventResponse | ProblemError | _ForWorker:
        """Decide without storing anything."""
        if isinstance(item, ProblemError):
            return item
        document, keys, known = _document(item), None, None
        try:
            keys, parsed = self._read(item)
            known = self._sources.facts_for(keys, self._clock_ms())
            return EventResponse(
                None, wrap_decision(self._encode_decision(item, parsed, known).decision), repeat=False, event_id=keys.event_id
            )
        except ProblemError as refused:
            return refused
        except (HeavyEvent, TimeLimitExceeded):
            return _ForWorker(document, known)
        except StoreError as error:
            return ProblemError(store_failed(error))
        except Exception as error:
            return self._fail("decide", _facts(error), document, place, None if keys is None else keys.event_id)

    def _read(self, item: EventDocument | PredecidedEvent | FailedEvent) -> tuple[EventKeys, ParsedEvent | None]:
        """Return the keys, and the event if it was parsed here. Raises ProblemError, HeavyEvent, TimeLimitExceeded, _WorkerDefect."""
        if isinstance(item, EventDocument):
            parsed = self._parse(item)
            return parsed.keys, parsed
        if isinstance(item, FailedEvent):
            raise _WorkerDefect(item.defect)
        return item.keys, None

    def _parse(self, document: EventDocument) -> ParsedEvent:
        if is_long(document):
            raise HeavyEvent
        self.limit.begin()
        try:
            return parse_event(document)
        finally:
            self.limit.end()

    def _new_keys(self, items: Sequence[BatchItem]) -> frozenset[bytes]:
        """Return repeat keys that no stored decision has, from one query: one for each event takes three times as long."""
        keys = [item.keys.repeat_key for item in items if isinstance(item, PredecidedEvent) and item.keys.repeat_key is not None]
        try:
            return frozenset(keys) - self._store.repeat_keys(keys) if len(keys) > 1 else frozenset()
        except Exception:  # the query for each event reports it
            return frozenset()

    def _find_repeat(self, keys: EventKeys, document: EventDocument, new_keys: frozenset[bytes]) -> PendingRepeat | StoredRepeat | None:
        """Return the first decision of a repeat; None: the event is new. Raises ProblemError (conflict), StoreError."""
        if keys.repeat_key is None:
            return None
        if (first := self._pending.get(keys.repeat_key)) is not None:
            summary = first.entry.summary
            _require_same(keys, summary.event_key, summary.id)
            return PendingRepeat(document, first)
        if keys.repeat_key in new_keys:
            return None
        found = self._store.repeat(keys.repeat_key)
        if self._last_lookup_failure[1]:
            self._last_lookup_failure = -LOOKUP_FAILED_S, ""  # the store works again
        if found is None:
            return None
        _require_same(keys, found.event_key, found.id)
        return StoredRepeat(keys.event_id, found)

    def _encode_decision(
        self, item: EventDocument | PredecidedEvent | FailedEvent, parsed: ParsedEvent | None, known: StoredFacts | None
    ) -> EncodedDecision:
        """Return the decision under the current facts of the source. Raises ProblemError, HeavyEvent, TimeLimitExceeded, _WorkerDefect."""
        if isinstance(item, PredecidedEvent) and item.rests_on(known):
            if isinstance(item.result, Problem):
                raise ProblemError(item.result)
            if isinstance(item.result, Defect):
                raise _WorkerDefect(item.result)
            return item.result
        parsed = parsed or self._parse(_document(item))
        self.limit.begin()
        try:
            return parsed.decide(self._settings, known, LOOP_STEPS)
        finally:
            self.limit.end()

    def _keep(self, document: EventDocument, keys: EventKeys, encoded: EncodedDecision, part: _Slice) -> DecidedEvent:
        """Add a new event to the slice, and apply its effects to the cached source. Raises StoreError."""
        summary = self._summarise(keys, encoded)
        record = keys.reported_record(summary.decided_at_ms) if encoded.handles_record else None
        entry = NewDecision(summary, keys.repeat_key, document.data, encoded.decision, encoded.poisoned, encoded.panics, record)
        new = DecidedEvent(document, entry, part.durable, part.separate)
        part.entries.append(entry)
        try:
            if keys.source is not None and not part.separate:
                part.undos += self._sources.apply(keys.source, encoded.poisoned, encoded.panics, record)
        except BaseException:
            part.entries.pop()
            raise
        if keys.repeat_key is not None:
            self._pending[keys.repeat_key] = new
        return new

    def _summarise(self, keys: EventKeys, encoded: EncodedDecision) -> Summary:
        return Summary(
            str(uuid7()),
            self._clock_ms(),
            keys.source,
            keys.event_id,
            keys.event_key,
            encoded.policy,
            encoded.policy_digest,
            encoded.action,
            encoded.certainty,
            keys.notification,
            keys.severity,
            keys.sections,
            keys.physical_addresses,
        )

    def _fail(
        self, stage: Stage, facts: Mapping[str, Any], document: EventDocument, place: int | None, event_id: str | None = None
    ) -> ProblemError:  # fmt: skip
        """Report an unexpected exception. Return the event's problem."""
        self._defects.report(stage, facts, item=place, event_id=event_id, document=document.data)
        return ProblemError(internal())

    def _written(self, part: _Slice, durable: asyncio.Future[None]) -> None:
        """Process the end of a write. After a failure there is nothing to do: the source cache has been cleared."""
        self._forget_pending(part)
        if durable.exception() is not None:
            return
        for entry in part.entries:
            call_each(self.decided, entry.summary)
            source = entry.summary.source
            if source is None:
                continue
            if part.separate:
                call_each([self._sources.apply], source, entry.poisons, entry.forgets, entry.record)
            if entry.poisons or entry.record:
                self._sources.mark_durable(source, entry.poisons, entry.record)


def _append(store: Store, entries: Sequence[NewDecision]) -> Exception | None:
    """Store decisions. Return an unexpected exception. Raises StoreError."""
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
    return error.defect.facts if isinstance(error, _WorkerDefect) else logs.explain(error)


def _is_failure(error: Exception) -> bool:
    """Return whether the store failed, rather than one event: then all waiting requests fail."""
    if isinstance(error, EarlierWriteFailed):
        return isinstance(error.failure, StoreError)
    return isinstance(error, StoreError)


def _changed() -> Problem:
    return busy("the stored facts of the source kept changing while the event was decided; retry later")


def _response(identity: str, decided_at_ms: int, decision: bytes, event_id: str | None, *, repeat: bool) -> EventResponse:
    body = wrap_decision(decision, identity=identity, decided_at=rfc3339(decided_at_ms), repeat=repeat)
    return EventResponse(identity, body, repeat, event_id)


def _require_same(keys: EventKeys, first_key: str, first_id: str) -> None:
    """Raise ProblemError (conflict) if the first event with this repeat key was a different one."""
    if keys.event_key != first_key:
        raise ProblemError(conflict(keys.event_id, keys.source, keys.event_key, first_id, first_key))
