"""An import decided here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pydantic import TypeAdapter

from models.decision import Decision
from models.event import event_json
from models.formats.reading import INTERNAL, Reading, Unread
from models.value import value
from policies.agreement import Agreement
from service.answers import Answer, decide_event, decision_json, envelop
from service.attempts import Attempts
from service.importing.readers import Item
from service.importing.results import Tally, agreement_of, other_line, reading_line
from service.importing.told import Told, apply
from service.problems import Problem, Refused
from service.settings import Settings


@value
class Result:
    """One thing that was in a file."""

    item: Item
    decision: Decision | None = None
    """None where it is no error, or there is a problem with it."""
    problem: Problem | None = None
    agreement: Agreement | None = None
    answer: bytes | None = None
    """A decision as it is answered, JSON."""
    event: bytes = b""
    """The event of an error, JSON."""


def decide_items(items: Iterator[Item], told: Told, settings: Settings, tally: Tally, attempts: Attempts | None = None) -> Iterator[Result]:
    """Decide every error, as it is found; an error that cannot be decided has its problem, and it goes on behind it."""
    attempts = attempts or Attempts()
    for item in items:
        tally.add(item)
        if isinstance(item, Reading):
            yield _decide(item, told, settings, tally, attempts)
        else:
            yield Result(item)


def _decide(reading: Reading, told: Told, settings: Settings, tally: Tally, attempts: Attempts) -> Result:
    try:
        reading = attempts.call(apply, told, reading, settings.default_policy, settings.custom)
        event = attempts.call(event_json, reading.event)
    except Refused:
        tally.refused += 1
        return Result(Unread(reading.place, INTERNAL, reading.format))
    try:
        decision = attempts.call(decide_event, reading.event, settings, frozenset(one.field for one in reading.assumed))
    except Refused as refused:
        tally.refused += 1
        return Result(reading, problem=refused.problem, event=event)
    return _decided(reading, event, decision, envelop(decision_json(decision)), tally, attempts)


def _decided(reading: Reading, event: bytes, decision: Decision, answer: bytes, tally: Tally, attempts: Attempts) -> Result:
    """Compare a decision with what the source says was done, where that works."""
    try:
        agreement = attempts.call(agreement_of, reading, decision)
    except Refused:
        agreement = None
    tally.decide(decision.action, agreement)
    return Result(reading, decision, agreement=agreement, answer=answer, event=event)


def read_answer(reading: Reading, event: bytes, line: bytes, tally: Tally, attempts: Attempts) -> Result:
    """Return what a service answered for an error; `event` is the event as it was sent."""
    if b'"action"' not in line:
        tally.refused += 1
        return Result(reading, problem=_problem().validate_json(line), event=event)
    return _decided(reading, event, _answer().validate_json(line), line, tally, attempts)


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[Answer]:
    return TypeAdapter(Answer)


@lru_cache(maxsize=1)
def _problem() -> TypeAdapter[Problem]:
    return TypeAdapter(Problem)


def result_line(result: Result, file: str | None = None) -> bytes:
    """A result as JSON, without its line end."""
    if not isinstance(result.item, Reading):
        return other_line(result.item, file)
    if result.answer is None:
        assert result.problem is not None
        return reading_line(result.item, result.event, result.problem, None, file)
    return reading_line(result.item, result.event, result.answer, result.agreement, file)
