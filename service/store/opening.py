"""A store by its address."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ras_triage.service.store.memory import MemoryStore
from ras_triage.service.store.port import Store, StoreUnusable
from ras_triage.service.store.sqlite import SqliteStore

MEMORY: Final = "memory:"
SQLITE: Final = "sqlite:///"


def sqlite_path(address: str) -> Path | None:
    """The file of a `sqlite:///PATH` address; a path from the root has four slashes. None: it is none."""
    if not address.startswith(SQLITE) or address == SQLITE:
        return None
    return Path(address.removeprefix(SQLITE))


def open_store(address: str) -> Store:
    """`memory:` or `sqlite:///PATH`. Raises StoreUnusable, StoreDamaged."""
    if address == MEMORY:
        return MemoryStore()
    path = sqlite_path(address)
    if path is None:
        raise StoreUnusable(f"`{address}` is neither `{MEMORY}` nor `{SQLITE}PATH`")
    return SqliteStore(path)
