"""Programs and headers from outside Python that a test needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

import pytest

REQUIRED: Final = "RAS_TRIAGE_REQUIRE_TOOLS"
"""Environment variable that `.ci/run` sets: nothing is skipped there."""


def missing_programs(*names: str) -> list[str]:
    """Return those programs that are not on the path."""
    return [name for name in names if shutil.which(name) is None]


def require(missing: Sequence[str], packages: str) -> None:
    """Skip a test where something is missing, and say what; fail where all tools are required."""
    if missing:
        reason = f"missing: {', '.join(missing)}; expected Debian's {packages}"
        if os.environ.get(REQUIRED):
            pytest.fail(reason)
        pytest.skip(reason)


def missing_headers(*names: str) -> list[str]:
    """Return those C++ headers that the compiler does not find, or the compiler itself."""
    if shutil.which("g++") is None:
        return ["g++"]
    probe = "".join(f"#if !__has_include(<{name}>)\n{name}\n#endif\n" for name in names)
    done = subprocess.run(["g++", "-E", "-P", "-x", "c++", "-"], input=probe, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()
