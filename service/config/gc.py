"""Cyclic garbage collector thresholds."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (10_000, 100, 100)
"""Thresholds of the three generations. An event with the facts of a large machine has thousands of objects and no cycle; with the default
thresholds the collector takes longer than the decision. Higher ones make long pauses: with 100,000, one collection of young objects took up
to 93 ms with 900 batches in progress, with 10,000 it took 30 ms."""


def raise_gc_thresholds() -> None:
    """Exclude existing objects from collection (gc.freeze), and collect others rarely."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
