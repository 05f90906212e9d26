"""Store address: `memory:` or `sqlite:///PATH`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MEMORY: Final = "memory:"

SQLITE: Final = "sqlite:///"


def sqlite_path(address: str) -> Path | None:
    """Return the path of a `sqlite:///PATH` address; an absolute path has four slashes. None: not such an address."""
    if not address.startswith(SQLITE) or address == SQLITE:
        return None
    return Path(address.removeprefix(SQLITE))


def default_store() -> str:
    """Return the default store address (XDG Base Directory Specification: state)."""
    home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return f"{SQLITE}{Path(home).expanduser() / 'ras-triage' / 'store.db'}"
