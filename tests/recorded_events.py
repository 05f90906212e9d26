"""Events of recordings, for tests that need many different ones."""

from __future__ import annotations

import json
from typing import Any

from tests.paths import VECTORS


def random_events() -> list[dict[str, Any]]:
    """Return the random events that were recorded under Linux 6.12.107."""
    text = (VECTORS / "random-6.12.107.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["event"] for line in text.splitlines()]
