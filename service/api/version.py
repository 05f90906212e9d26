"""Which version of the project this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """The project's version; `0` in a tree that is not installed."""
    try:
        return version("ras-triage")
    except PackageNotFoundError:
        return "0"
