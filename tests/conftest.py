"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine that runs the tests, and what else runs there, than about the code.
settings.register_profile("ras-triage", deadline=None)
settings.load_profile("ras-triage")
