"""Policy decision point for hardware errors on Linux.

The public API. Each name is imported at first use, so that a program that needs only the client loads neither the rules nor the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ras_triage.models.decision import Decision
    from ras_triage.models.event import Event
    from ras_triage.policies.catalog.policies import Policy, resolve_policy
    from ras_triage.policies.decide import decide
    from ras_triage.service.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "Decision", "Event", "Policy", "decide", "resolve_policy"]

_MODULES = {
    "AsyncClient": "ras_triage.service.client",
    "Client": "ras_triage.service.client",
    "Decision": "ras_triage.models.decision",
    "Event": "ras_triage.models.event",
    "Policy": "ras_triage.policies.catalog.policies",
    "decide": "ras_triage.policies.decide",
    "resolve_policy": "ras_triage.policies.catalog.policies",
}


def __getattr__(name: str) -> Any:
    """Import a name of the public API (PEP 562)."""
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    value = globals()[name] = getattr(import_module(module), name)
    return value


def __dir__() -> list[str]:
    """Return the names of the module, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
