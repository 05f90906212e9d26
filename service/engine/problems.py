"""Conversion of errors of the rules and the store to problems."""

from __future__ import annotations

from ras_triage.policies.workload import TooMuchWork
from ras_triage.service.api.problems import URN, ErrorDetail, Problem, query_too_slow, store_damaged, store_unavailable
from ras_triage.service.store.port import QueryTooSlow, StoreDamaged, StoreError


def too_much_work(error: TooMuchWork, *, uses_stored_facts: bool) -> Problem:
    """Return the problem of an event whose decision would take more steps than the setting `max_workload` allows.

    `uses_stored_facts`: the host facts are the stored ones of the source, so that no JSON pointer into the event leads to them.
    """
    one, other = error.factors
    faults = tuple(
        ErrorDetail("" if uses_stored_facts and factor.pointer.startswith("/host") else factor.pointer, str(factor))
        for factor in error.factors
    )
    detail = f"{one} x {other}: about {error.steps} steps for one event; `max_workload` is {error.limit}"
    return Problem(f"{URN}too-much-work", "too much work for one event", 422, detail, faults)


def store_failed(error: StoreError) -> Problem:
    """Return the problem for an error of the store."""
    if isinstance(error, StoreDamaged):
        return store_damaged()
    return query_too_slow() if isinstance(error, QueryTooSlow) else store_unavailable()
