"""Address of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MEMORY: Final = "memory:"


SQLITE: Final = "sqlite:///"


def sqlite_path(address: str) -> Path | None:
    """The file of a `sqlite:///PATH` address; a path from the root has four slashes. None: it is none."""
    if not address.startswith(SQLITE) or address == SQLITE:
        return None
    return Path(address.removeprefix(SQLITE))
