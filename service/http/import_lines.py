"""Lines of an import response: decisions, problems, unreadable records."""

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
from ras_triage.service.engine.imports.results import ImportCounts, agreement_of, error_line, other_line
from ras_triage.service.telemetry import logs

_ACTION: Final = re.compile(rb'"action":"([a-z]+)"')
"""The first match is the action of the decision: no member before it has this name, and quotes in strings are escaped."""


def write_lines(items: Sequence[PreparedItem], results: Sequence[bytes | Problem], counts: ImportCounts) -> tuple[bytes, list[Defect]]:
    """Return the lines, and the defects found when comparing. `results` are those of the errors among the items."""
    next_results = iter(results)
    defects: list[Defect] = []
    lines: list[bytes] = []
    for item in items:
        counts.add(item)
        if isinstance(item, PreparedError):
            lines.append(_error_line(item, next(next_results), counts, defects))
        else:
            lines.append(other_line(item.record if isinstance(item, DefectiveItem) else item))
    return b"".join([line + b"\n" for line in lines]), defects


def _error_line(item: PreparedError, result: bytes | Problem, counts: ImportCounts, defects: list[Defect]) -> bytes:
    if isinstance(result, Problem):
        counts.refused += 1
        return error_line(item, item.event, result, None)
    agreement: Agreement | None = None
    if item.observed is not None:
        try:
            agreement = agreement_of(item, _decision_adapter().validate_json(result))
        except Exception as error:
            defects.append(Defect(logs.explain(error)))
    action = _ACTION.search(result)
    assert action is not None
    counts.decide(action[1].decode(), agreement)
    return error_line(item, item.event, result, agreement)


@lru_cache(maxsize=1)
def _decision_adapter() -> TypeAdapter[DecisionResponse]:
    return TypeAdapter(DecisionResponse)
