"""Replay of a slice of stored events under other policies, in a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from ras_triage.service.api.problems import Problem, ProblemError
from ras_triage.service.api.replays.changes import DecisionChanges
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.replays.differences import ChangeCounter, ComparedEvent, compare_decisions
from ras_triage.service.engine.stored.cases import StoredCase
from ras_triage.service.engine.stored.inputs import inputs_of


def replay_slice(settings: Settings, cases: Sequence[StoredCase], before: str | None, after: str) -> DecisionChanges:
    """Decide stored events again, and count what changes. `before`: the first policy; None: as decided."""
    counter = ChangeCounter()
    for case in cases:
        try:
            _replay(settings, case, before, after, counter)
        except ProblemError as refused:
            counter.add_failure(refused.problem, case.stored.id)
    return counter.result()


def _replay(settings: Settings, case: StoredCase, before: str | None, after: str, counter: ChangeCounter) -> None:
    inputs = inputs_of(case)
    first = case.stored.decision if before is None else inputs.redecide(settings, before).decision
    second = inputs.redecide(settings, after).decision
    keys = inputs.parsed.keys
    host = inputs.parsed.event.host if inputs.known is None else inputs.known.with_host(inputs.parsed.event).host
    event = ComparedEvent(case.stored.id, None, keys.source, host.kernel, keys.notification, keys.sections)
    counter.add(event, compare_decisions(first, second))


def count_failures(found: Sequence[tuple[str | None, Problem]]) -> DecisionChanges:
    """Return the counts of decisions that cannot be replayed, with their ids as far as known."""
    counter = ChangeCounter()
    for identity, problem in found:
        counter.add_failure(problem, identity)
    return counter.result()
