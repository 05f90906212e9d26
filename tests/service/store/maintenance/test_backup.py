"""Copies of a store, as docs/operations.md describes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, client


def by_backup(store: Path, copy: Path) -> None:
    """As `sqlite3 STORE ".backup COPY"` does it."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def by_vacuum(store: Path, copy: Path) -> None:
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))


@pytest.mark.parametrize("take", [by_backup, by_vacuum])
def test_a_copy_taken_while_the_service_runs_is_a_store_with_all_that_was_answered(take: object, tmp_path: Path) -> None:
    assert callable(take)
    with client(create_app(Settings(store=f"sqlite:///{tmp_path}/store.db"))) as call:
        answers = [call("POST", "/v1/decisions", json={**EVENT, "id": f"e-{index}"}).json() for index in range(5)]
        take(tmp_path / "store.db", tmp_path / "copy.db")
        call("POST", "/v1/decisions", json={**EVENT, "id": "later"})

    with client(create_app(Settings(store=f"sqlite:///{tmp_path}/copy.db"))) as call:
        assert [call("GET", f"/v1/decisions/{answer['id']}").json() for answer in answers] == answers
        assert call("GET", "/readyz").status_code == 200
        assert call("POST", "/v1/decisions", json={**EVENT, "id": "e-1"}).json()["id"] == answers[1]["id"]
        assert call("POST", "/v1/decisions", json={**EVENT, "id": "later"}).status_code == 201
        assert call("GET", "/v1/store").json()["decisions"] == 6
