"""An import decided here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pydantic import TypeAdapter

from models.decision import Decision
from models.formats.reading import Reading
from models.value import value
from policies.agreement import Agreement
from service.answers import Answer, decide_event, decision_json, envelop
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


def decide_items(items: Iterator[Item], told: Told, settings: Settings, tally: Tally) -> Iterator[Result]:
    """Decide every error, as it is found; an error that cannot be decided has its problem, and it goes on behind it."""
    for item in items:
        tally.add(item)
        if isinstance(item, Reading):
            yield _decide(apply(told, item, settings.default_policy, settings.custom), settings, tally)
        else:
            yield Result(item)


def _decide(reading: Reading, settings: Settings, tally: Tally) -> Result:
    try:
        decision = decide_event(reading.event, settings, frozenset(one.field for one in reading.assumed))
    except Refused as refused:
        tally.refused += 1
        return Result(reading, problem=refused.problem)
    agreement = agreement_of(reading, decision)
    tally.decide(decision.action, agreement)
    return Result(reading, decision, agreement=agreement, answer=envelop(decision_json(decision)))


def read_answer(reading: Reading, line: bytes, tally: Tally) -> Result:
    """What a service answered for an error."""
    if b'"action"' not in line:
        tally.refused += 1
        return Result(reading, problem=_problem().validate_json(line))
    decision = _answer().validate_json(line)
    agreement = agreement_of(reading, decision)
    tally.decide(decision.action, agreement)
    return Result(reading, decision, agreement=agreement, answer=line)


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
        return reading_line(result.item, result.problem, None, file)
    return reading_line(result.item, result.answer, result.agreement, file)
