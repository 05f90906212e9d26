from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ras_triage.service.store.memory import MemoryStore
from ras_triage.service.store.port import Store
from ras_triage.service.store.sqlite import SqliteStore


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each of the two that must do the same."""
    opened: Store = SqliteStore(tmp_path / "store.db") if request.param == "sqlite" else MemoryStore()
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"
