"""Settings of all tests."""

from __future__ import annotations

import gc

from hypothesis import settings

from tests.effort import effort

# How long an example takes says more about the machine that runs the tests, and what else runs there, than about the code.
settings.register_profile("ras-triage", deadline=None, max_examples=effort(40, 1000))
settings.load_profile("ras-triage")


def pytest_collection_finish() -> None:
    """Exclude modules and tests from garbage collection: they stay to the end, and going through them took a sixth of the time."""
    gc.collect()
    gc.freeze()
