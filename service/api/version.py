"""Version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Return the version; `0` if the package is not installed."""
    try:
        return version("ras-triage")
    except PackageNotFoundError:
        return "0"
