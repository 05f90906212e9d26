"""Folders that tests read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
"""Folder of the project."""

VECTORS: Final = ROOT / "tests" / "vectors"
"""Recordings of booted kernels."""
