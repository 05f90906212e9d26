"""Problems made from errors of the rules or the store."""

from __future__ import annotations

from ras_triage.policies.workload import TooMuchWork
from ras_triage.service.api.problems import URN, ErrorDetail, Problem, query_too_slow, store_damaged, store_unavailable
from ras_triage.service.store.port import QueryTooSlow, StoreDamaged, StoreError


def too_much_work(error: TooMuchWork, *, kept: bool) -> Problem:
    """An event whose decision would take more steps than the setting `max_workload` allows.

    `kept`: the host's facts are those kept for the source, so that no pointer leads to them.
    """
    one, other = error.factors
    faults = tuple(
        ErrorDetail("" if kept and factor.pointer.startswith("/host") else factor.pointer, str(factor)) for factor in error.factors
    )
    detail = f"{one} x {other} are too much work for one event: about {error.steps} steps, and `max_workload` is {error.limit}"
    return Problem(f"{URN}too-much-work", "too much work for one event", 422, detail, faults)


def store_failed(error: StoreError) -> Problem:
    """What the store's error is to a client."""
    if isinstance(error, StoreDamaged):
        return store_damaged()
    return query_too_slow() if isinstance(error, QueryTooSlow) else store_unavailable()
