"""A client for the service: `Client`, and `AsyncClient` to be awaited.

Both say the same things over the wire: `questions` knows the calls, `flows` when to ask again, and each client only does the waiting.
"""

from __future__ import annotations

from ras_triage.service.api.decision_response import DecisionResponse
from ras_triage.service.api.problems import Problem
from ras_triage.service.client._async import AsyncClient
from ras_triage.service.client._calls import Filters
from ras_triage.service.client._sync import Client
from ras_triage.service.client.chunks import AnyEvent
from ras_triage.service.client.errors import ClientError, ProblemAnswer, UnexpectedAnswer, Unreachable
from ras_triage.service.client.limits import AnswerLimits
from ras_triage.service.client.results import (
    Bucket,
    Decoded,
    Health,
    KeptHost,
    PoisonedPage,
    PoisonedPages,
    Purge,
    Purged,
    Stats,
    StoreState,
    Summary,
    Watched,
    WatchedDecision,
)
from ras_triage.service.client.retry import Retry

__all__ = [
    "AnswerLimits",
    "AnyEvent",
    "AsyncClient",
    "Bucket",
    "Client",
    "ClientError",
    "DecisionResponse",
    "Decoded",
    "Filters",
    "Health",
    "KeptHost",
    "PoisonedPage",
    "PoisonedPages",
    "Problem",
    "ProblemAnswer",
    "Purge",
    "Purged",
    "Retry",
    "Stats",
    "StoreState",
    "Summary",
    "UnexpectedAnswer",
    "Unreachable",
    "Watched",
    "WatchedDecision",
]
