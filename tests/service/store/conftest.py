from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ras_triage.service.store.port import Store
from ras_triage.service.store.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened: Store = SqliteStore(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"
