"""Effort of long tests: `make test-long` repeats them more often than `make test`."""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "RAS_TRIAGE_TESTS"

LONG: Final = os.environ.get(VARIABLE) == "long"
"""Whether the long profile was chosen."""


def effort(short: int, long: int) -> int:
    """Return how often a test repeats something, for either profile."""
    return long if LONG else short
