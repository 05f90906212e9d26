"""Replay of a slice of stored events under other policies, in a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from ras_triage.models.decision import PolicyRef
from ras_triage.service.api.problems import Problem, ProblemError, policy_conflict
from ras_triage.service.api.replays.changes import DecisionChanges
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.replays.differences import ChangeCounter, ComparedEvent, compare_decisions
from ras_triage.service.engine.stored.cases import StoredCase
from ras_triage.service.engine.stored.inputs import DecisionInputs, inputs_of


def replay_slice(settings: Settings, cases: Sequence[StoredCase], before: PolicyRef | None, after: PolicyRef) -> DecisionChanges:
    """Decide stored events again, and count what changes. `before`: the first policy; None: as decided.

    A policy that was changed or removed since the replay was started is a failure of each event.
    """
    counter = ChangeCounter()
    for case in cases:
        try:
            _replay(settings, case, before, after, counter)
        except ProblemError as refused:
            counter.add_failure(refused.problem, case.stored.id)
    return counter.result()


def _replay(settings: Settings, case: StoredCase, before: PolicyRef | None, after: PolicyRef, counter: ChangeCounter) -> None:
    inputs = inputs_of(case)
    first = case.stored.decision if before is None else _redecide(inputs, settings, before)
    second = _redecide(inputs, settings, after)
    keys = inputs.parsed.keys
    host = inputs.parsed.event.host if inputs.known is None else inputs.known.with_host(inputs.parsed.event).host
    event = ComparedEvent(case.stored.id, None, keys.source, host.kernel, keys.notification, keys.sections)
    counter.add(event, compare_decisions(first, second))


def _redecide(inputs: DecisionInputs, settings: Settings, policy: PolicyRef) -> bytes:
    decided = inputs.redecide(settings, policy.name)
    if decided.policy_digest != policy.digest:
        raise ProblemError(policy_conflict(f"policy `{policy.name}` was changed after the replay was started"))
    return decided.decision


def count_failures(found: Sequence[tuple[str | None, Problem]]) -> DecisionChanges:
    """Return the counts of decisions that cannot be replayed, with their ids as far as known."""
    counter = ChangeCounter()
    for identity, problem in found:
        counter.add_failure(problem, identity)
    return counter.result()
