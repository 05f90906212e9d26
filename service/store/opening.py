"""Factory of stores by address."""

from __future__ import annotations

from ras_triage.service.config.store_address import MEMORY, SQLITE, sqlite_path
from ras_triage.service.store.port import Store, StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore
from ras_triage.service.store.temporary import TemporaryStore


def open_store(address: str) -> Store:
    """Open the store at `memory:` or `sqlite:///PATH`. Raises StoreUnusable, StoreDamaged."""
    if address == MEMORY:
        return TemporaryStore()
    path = sqlite_path(address)
    if path is None:
        raise StoreUnusable(f"unknown store `{address}`; expected `{MEMORY}` or `{SQLITE}PATH`")
    return SqliteStore(path)
