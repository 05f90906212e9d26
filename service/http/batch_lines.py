"""Results of the events of a batch as JSON."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from pydantic_core import from_json, to_json

from ras_triage.service.api.decision_response import with_event
from ras_triage.service.api.problems import Problem, ProblemError, problem_json
from ras_triage.service.engine.evaluation import LOOP_BYTES, EventDocument
from ras_triage.service.engine.intake import EventResponse

_LONGEST_ID: Final = 256
"""Characters of the `id` of an event."""


_SUMMARY: Final = re.compile(
    rb'"event_key":"(?P<event_key>[a-z0-9:]+)".*?"action":"(?P<action>[a-z]+)","certainty":"(?P<certainty>[a-z]+)"', re.DOTALL
)
"""The first match is of the decision: no member before it has these names, and quotes in strings are escaped. Parsing is far slower."""


def result_summary(response: EventResponse) -> bytes:
    """Return the summary of a decision."""
    parts = _SUMMARY.search(response.body)
    assert parts is not None
    return to_json(
        {"id": response.id, "repeat": response.repeat, **{name: parts[name].decode() for name in ("action", "certainty", "event_key")}}
    )


def problem_line(index: int, document: EventDocument | ProblemError | None, problem: Problem) -> bytes:
    """Return the problem of an event; None: the event is not known."""
    return with_event(index, read_event_id(document), problem_json(problem))


def with_array_hint(document: EventDocument | ProblemError | None, problem: Problem) -> Problem:
    """Return the problem of a line; if it is the start of an array, with the content type of arrays."""
    if not isinstance(document, EventDocument) or not document.data.lstrip().startswith(b"["):
        return problem
    return replace(problem, detail=f"{problem.detail}; for a JSON array, expected `Content-Type: application/json`")


def read_event_id(document: EventDocument | ProblemError | None) -> str | None:
    """Return the `id` of an event that was refused; None if it has none, or is too long to be parsed in the event loop."""
    if not isinstance(document, EventDocument) or len(document.data) > LOOP_BYTES:
        return None
    try:
        event = from_json(document.data)
    except ValueError:
        return None
    found = event.get("id") if isinstance(event, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= _LONGEST_ID else None
