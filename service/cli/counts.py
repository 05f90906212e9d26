"""Text for counts: plural nouns and lists."""

from __future__ import annotations

from collections import Counter


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(counts: Counter[str]) -> str:
    """Return counts as `: name 2, other 1`, the highest first; empty without counts."""
    return ": " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.most_common()) if counts else ""
