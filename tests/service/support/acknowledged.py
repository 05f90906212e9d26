"""Comparison of the responses that clients got with what the service stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from ras_triage.service.api.times import rfc3339
from ras_triage.service.engine.responses import wrap_decision
from ras_triage.service.store.sqlite import SqliteStore
from tests.effort import effort

ASKED: Final = effort(50, 1)
"""In the short profile, one of so many responses is asked for over HTTP, which takes long; the others are read."""


IN_A_BATCH: Final = re.compile(rb'\A\{"index":\d+,"event_id":(?:null|"(?:[^"\\]|\\.)*"),')
"""What a result of a batch has before the decision."""


def without_repeat(response: bytes) -> bytes:
    """Return the response as it was when its event was new, and alone."""
    return IN_A_BATCH.sub(b"{", response.replace(b'"repeat":true', b'"repeat":false', 1), count=1)


def require_served(client: httpx.Client, responses: Mapping[str, bytes]) -> None:
    """Raise AssertionError where the service does not return what it answered, for some of the responses."""
    for name in list(responses)[::ASKED]:
        found = client.get(f"/v1/decisions/{identity(responses[name])}").raise_for_status().content
        assert found == without_repeat(responses[name]), name


def require_stored(path: Path, responses: Mapping[str, bytes]) -> None:
    """Raise AssertionError where a store that no service uses any more has something else than what was answered."""
    store = SqliteStore(path)
    try:
        for name, response in responses.items():
            stored = store.decision(identity(response))
            assert stored is not None, name
            found = wrap_decision(stored.decision, identity=stored.id, decided_at=rfc3339(stored.decided_at_ms))
            assert found == without_repeat(response), name
    finally:
        store.close()


def identity(response: bytes) -> str:
    """Return the id of a decision."""
    found: str = json.loads(response)["id"]
    return found
