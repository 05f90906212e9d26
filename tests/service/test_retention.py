"""Retention takes away what is too old or too much, and puts it on record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from calling import EVENT
from keeping import NOON

from service.intake import Document
from service.retention import Retention
from service.runtime import running
from service.settings import Settings
from service.store.memory import MemoryStore


@pytest.mark.parametrize(("limit", "reason"), [({"retention_days": 1}, "age"), ({"retention_bytes": 1}, "size")])
def test_what_is_beyond_a_limit_goes_on_record_and_is_new_when_it_comes_again(limit: dict[str, Any], reason: str) -> None:
    async def run() -> None:
        later = NOON + 2 * 24 * 60 * 60 * 1000
        async with running(Settings(), MemoryStore(), lambda: NOON) as runtime:
            document = Document(json.dumps({**EVENT, "id": "a"}).encode())
            first = await runtime.intake.decide(document)
            assert await Retention(Settings(**limit), runtime.writer, runtime.store, lambda: later).purge() == 1
            (purge,) = runtime.store.purges(9)
            assert (purge.reason, purge.count, purge.at_ms, purge.oldest_ms) == (reason, 1, later, NOON)
            again = await runtime.intake.decide(document)
            assert not again.repeat
            assert again.id != first.id

    asyncio.run(run())
