"""A client for the service: `Client`, and `AsyncClient` to be awaited.

Both say the same things over the wire: `questions` knows the calls, `flows` when to ask again, and each client only does the waiting.
"""

from __future__ import annotations

from service.answers import Answer
from service.client.awaiting import AsyncClient
from service.client.blocking import Client
from service.client.chunks import AnyEvent
from service.client.errors import ClientError, ProblemAnswer, UnexpectedAnswer, Unreachable
from service.client.limits import AnswerLimits
from service.client.questions import Filters
from service.client.results import (
    Bucket,
    Decided,
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
)
from service.client.retry import Retry
from service.problems import Problem

__all__ = [
    "Answer",
    "AnswerLimits",
    "AnyEvent",
    "AsyncClient",
    "Bucket",
    "Client",
    "ClientError",
    "Decided",
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
]
