"""Programs from npm, installed by `make .venv/.node`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.paths import ROOT

SOURCES: Final = ROOT / "tests" / "node"
INSTALLED: Final = ROOT / ".venv" / "node" / "node_modules"

REQUIRED: Final = "RAS_TRIAGE_NODE"
"""Environment variable: tests that need npm fail where it is missing, instead of being skipped. `.ci/run` sets it."""


def require_npm() -> None:
    """Skip the test if what it needs is not installed; fail it where that is required."""
    if shutil.which("node") is None or not INSTALLED.is_dir():
        reason = "packages from npm are not installed; run `make .venv/.node`, which needs Node.js 20.19 or newer"
        (pytest.fail if os.environ.get(REQUIRED) else pytest.skip)(reason)


def npm_program(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of an installed package in a folder."""
    environment = os.environ | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    return subprocess.run(
        [INSTALLED / ".bin" / name, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
