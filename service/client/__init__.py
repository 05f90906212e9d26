"""Client for the service, synchronous (`Client`) and asynchronous (`AsyncClient`).

Both share the options (`_base`), the calls (`_calls`) and the retry and batch protocol (`_protocol`), which do no I/O; each client only
performs the I/O. `_sync` is generated from `_async`. Each name is imported at first use: half of the time goes into httpx.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ras_triage.service.api.decision_response import AlternativesResponse, BatchSummary, DecisionResponse
    from ras_triage.service.api.problems import Problem
    from ras_triage.service.api.replays.replays import Replay, ReplayEntry
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
    "AlternativesResponse",
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
    "Replay",
    "ReplayEntry",
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

_MODULES: Final = {
    "api.decision_response": ("AlternativesResponse", "BatchSummary", "DecisionResponse"),
    "api.problems": ("Problem",),
    "api.replays.replays": ("Replay", "ReplayEntry"),
    "client._async": ("AsyncClient",),
    "client._calls": ("Filters", "HostFilters", "PoisonFilters"),
    "client._sync": ("Client",),
    "client.chunks": ("AnyEvent", "FLUSH", "Flush"),
    "client.errors": ("ClientError", "ProblemResponse", "UnexpectedResponse", "Unreachable"),
    "client.limits": ("ResponseLimits",),
    "client.results": (
        "Bucket",
        "DecodeResult",
        "Health",
        "HostEntry",
        "PoisonedEntry",
        "PoisonedPage",
        "PoisonedPages",
        "Purge",
        "PurgedDecisions",
        "Stats",
        "StoreState",
        "StoredHost",
        "StreamItem",
        "StreamedDecision",
        "Summary",
    ),
    "client.retry": ("Retry",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name (PEP 562)."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    value = globals()[name] = getattr(import_module(f"ras_triage.service.{module}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
