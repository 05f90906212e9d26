"""Client for the service, synchronous (`Client`) and asynchronous (`AsyncClient`).

Both share the options (`_base`), the calls (`_calls`) and the retry and batch protocol (`_protocol`), which do no I/O; each client only
performs the I/O. `_sync` is generated from `_async`.
"""

from __future__ import annotations

from ras_triage.service.api.decision_response import BatchSummary, DecisionResponse
from ras_triage.service.api.problems import Problem
from ras_triage.service.client._async import AsyncClient
from ras_triage.service.client._calls import Filters, HostFilters, PoisonFilters
from ras_triage.service.client._sync import Client
from ras_triage.service.client.chunks import FLUSH, AnyEvent, Flush
from ras_triage.service.client.errors import ClientError, ProblemResponse, UnexpectedResponse, Unreachable
from ras_triage.service.client.limits import ResponseLimits
from ras_triage.service.client.results import (
    Bucket,
    DecodeResult,
    Health,
    HostEntry,
    PoisonedEntry,
    PoisonedPage,
    PoisonedPages,
    Purge,
    PurgedDecisions,
    Stats,
    StoredHost,
    StoreState,
    StreamedDecision,
    StreamItem,
    Summary,
)
from ras_triage.service.client.retry import Retry

__all__ = [
    "FLUSH",
    "AnyEvent",
    "AsyncClient",
    "BatchSummary",
    "Bucket",
    "Client",
    "ClientError",
    "DecisionResponse",
    "DecodeResult",
    "Filters",
    "Flush",
    "Health",
    "HostEntry",
    "HostFilters",
    "PoisonFilters",
    "PoisonedEntry",
    "PoisonedPage",
    "PoisonedPages",
    "Problem",
    "ProblemResponse",
    "Purge",
    "PurgedDecisions",
    "ResponseLimits",
    "Retry",
    "Stats",
    "StoreState",
    "StoredHost",
    "StreamItem",
    "StreamedDecision",
    "Summary",
    "UnexpectedResponse",
    "Unreachable",
]
