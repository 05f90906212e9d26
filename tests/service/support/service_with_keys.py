"""A service in this process, with API keys, on a port of loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from ras_triage.service.security.keys import create
from ras_triage.service.security.principal import SCOPES
from ras_triage.service.store.temporary import TemporaryStore


@dataclass
class ServiceWithKeys:
    """Where it is, and a key with each scope."""

    store: TemporaryStore = field(default_factory=TemporaryStore)
    url: str = ""
    keys: dict[str, dict[str, str]] = field(default_factory=dict)
    """By scope: the header with the key."""

    def __post_init__(self) -> None:
        for scope in SCOPES:
            key, shown = create(scope, (scope,), 0)
            self.store.add_api_key(key)
            self.keys[scope] = {"Authorization": f"Bearer {shown}"}

    def revoke(self, scope: str) -> None:
        """Revoke a key; the service notices it within a second."""
        self.store.revoke_api_key(self.keys[scope]["Authorization"].split("_")[1], 1)


@contextmanager
def serving_with_keys(settings: Settings | None = None) -> Iterator[ServiceWithKeys]:
    """A service for as long as the context lasts."""
    service = ServiceWithKeys()
    with running(settings or Settings(), service.store) as service.url:
        yield service
