"""Programs from npm, installed by `make .venv/.node`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.paths import ROOT
from tests.tools import missing_programs, require

SOURCES: Final = ROOT / "tests" / "node"
INSTALLED: Final = ROOT / ".venv" / "node" / "node_modules"


def require_npm() -> None:
    """Skip the test if what it needs is not installed; fail it where all tools are required."""
    packages = [] if INSTALLED.is_dir() else ["packages of tests/node, which `make .venv/.node` installs"]
    require([*missing_programs("node"), *packages], "npm")


def npm_program(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of an installed package in a folder."""
    environment = os.environ | {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    return subprocess.run(
        [INSTALLED / ".bin" / name, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
