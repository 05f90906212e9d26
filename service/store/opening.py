"""A store by its address."""

from __future__ import annotations

from ras_triage.service.config.store_address import MEMORY, SQLITE, sqlite_path
from ras_triage.service.store.memory import MemoryStore
from ras_triage.service.store.port import Store, StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore


def open_store(address: str) -> Store:
    """`memory:` or `sqlite:///PATH`. Raises StoreUnusable, StoreDamaged."""
    if address == MEMORY:
        return MemoryStore()
    path = sqlite_path(address)
    if path is None:
        raise StoreUnusable(f"`{address}` is neither `{MEMORY}` nor `{SQLITE}PATH`")
    return SqliteStore(path)
