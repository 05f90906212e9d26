"""Import that is decided in this process (`ras-triage import`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from pydantic import TypeAdapter

from ras_triage.models.decision import Decision
from ras_triage.models.event import event_json
from ras_triage.models.formats.results import INTERNAL, FoundError, UnreadableRecord, event_of
from ras_triage.models.frozen import frozen
from ras_triage.policies.agreement import Agreement
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import Problem, ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.results import ImportCounts, agreement_of, error_line, other_line
from ras_triage.service.engine.responses import decide_event, decision_json, wrap_decision
from ras_triage.service.importing.import_options import ImportOptions, apply_options
from ras_triage.service.importing.readers import FoundItem


@frozen
class Result:
    """Item of a file with its decision or problem."""

    item: FoundItem
    decision: Decision | None = None
    """None: not an error, or there is a problem with it."""
    problem: Problem | None = None
    agreement: Agreement | None = None
    answer: bytes | None = None
    """The decision response, JSON."""
    event: bytes = b""
    """The event made from the error, JSON."""


def decide_items(
    items: Iterator[FoundItem], options: ImportOptions, settings: Settings, counts: ImportCounts, attempts: Attempts | None = None
) -> Iterator[Result]:
    """Decide each error as it is read. An error that cannot be decided has a problem in its result."""
    attempts = attempts or Attempts()
    for item in items:
        counts.add(item)
        if isinstance(item, FoundError):
            yield _decide(item, options, settings, counts, attempts)
        else:
            yield Result(item)


def _decide(found: FoundError, options: ImportOptions, settings: Settings, counts: ImportCounts, attempts: Attempts) -> Result:
    try:
        found = attempts.call(apply_options, options, found, settings.default_policy, settings.custom_policies)
        event = event_of(found)
        document = attempts.call(event_json, event)
    except ProblemError:
        counts.refused += 1
        return Result(UnreadableRecord(found.place, INTERNAL, found.format))
    try:
        decision = attempts.call(decide_event, event, settings)
    except ProblemError as refused:
        counts.refused += 1
        return Result(found, problem=refused.problem, event=document)
    return _decided(found, document, decision, wrap_decision(decision_json(decision)), counts, attempts)


def _decided(found: FoundError, event: bytes, decision: Decision, answer: bytes, counts: ImportCounts, attempts: Attempts) -> Result:
    """Return a result with the agreement of the decision with the observed actions."""
    try:
        agreement = attempts.call(agreement_of, found, decision)
    except ProblemError:
        agreement = None
    counts.decide(decision.action, agreement)
    return Result(found, decision, agreement=agreement, answer=answer, event=event)


def parse_response(found: FoundError, event: bytes, line: bytes, counts: ImportCounts, attempts: Attempts) -> Result:
    """Parse a service's response for an error; `event` is the event as it was sent."""
    if b'"action"' not in line:
        counts.refused += 1
        return Result(found, problem=_problem().validate_json(line), event=event)
    return _decided(found, event, _answer().validate_json(line), line, counts, attempts)


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[DecisionResponse]:
    return TypeAdapter(DecisionResponse)


@lru_cache(maxsize=1)
def _problem() -> TypeAdapter[Problem]:
    return TypeAdapter(Problem)


def result_line(result: Result, file: str | None = None) -> bytes:
    """Return a result as a line of JSON, without its line end."""
    if not isinstance(result.item, FoundError):
        return other_line(result.item, file)
    if result.answer is None:
        assert result.problem is not None
        return error_line(result.item, result.event, result.problem, None, file)
    return error_line(result.item, result.event, result.answer, result.agreement, file)
