"""Conversion of errors of the store to problems."""

from __future__ import annotations

from ras_triage.service.api.problems import Problem, query_too_slow, store_damaged, store_unavailable
from ras_triage.service.store.port import QueryTooSlow, StoreDamaged, StoreError


def store_failed(error: StoreError) -> Problem:
    """Return the problem for an error of the store."""
    if isinstance(error, StoreDamaged):
        return store_damaged()
    return query_too_slow() if isinstance(error, QueryTooSlow) else store_unavailable()
