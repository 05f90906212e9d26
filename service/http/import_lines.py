"""Lines of an import over HTTP: what was found, and how it was answered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from pydantic import TypeAdapter

from ras_triage.policies.agreement import Agreement
from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import Problem
from ras_triage.service.engine.evaluation import Defect
from ras_triage.service.engine.imports.prepared_errors import DefectiveItem, PreparedError, PreparedItem
from ras_triage.service.engine.imports.results import ImportCounts, agreement_of, other_line, reading_line
from ras_triage.service.telemetry import logs

_ACTION: Final = re.compile(rb'"action":"([a-z]+)"')
"""The first in an answer is the decision's own: what stands before it has no such member, and in a string the quotes are escaped."""


def write_lines(items: Sequence[PreparedItem], answers: Sequence[bytes | Problem], tally: ImportCounts) -> tuple[bytes, list[Defect]]:
    """Return the lines, and the defects that comparing ran into. `answers` are those of the errors among the items."""
    following = iter(answers)
    defects: list[Defect] = []
    lines: list[bytes] = []
    for item in items:
        tally.add(item)
        if isinstance(item, PreparedError):
            lines.append(_error_line(item, next(following), tally, defects))
        else:
            lines.append(other_line(item.record if isinstance(item, DefectiveItem) else item))
    return b"".join([line + b"\n" for line in lines]), defects


def _error_line(item: PreparedError, answer: bytes | Problem, tally: ImportCounts, defects: list[Defect]) -> bytes:
    if isinstance(answer, Problem):
        tally.refused += 1
        return reading_line(item, item.event, answer, None)
    agreement: Agreement | None = None
    if item.observed is not None:
        try:
            agreement = agreement_of(item, _answer().validate_json(answer))
        except Exception as error:
            defects.append(Defect(logs.explain(error)))
    action = _ACTION.search(answer)
    assert action is not None
    tally.decide(action[1].decode(), agreement)
    return reading_line(item, item.event, answer, agreement)


@lru_cache(maxsize=1)
def _answer() -> TypeAdapter[DecisionResponse]:
    return TypeAdapter(DecisionResponse)
