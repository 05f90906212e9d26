"""How often Python looks for garbage in circles."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (100_000, 50, 100)
"""Allocations between two looks. An event with the facts of a large machine is thousands of objects and no circle, and looking through
them after every few hundred takes longer than deciding."""


def raise_gc_thresholds() -> None:
    """Leave alone what there is by now, and look at the rest seldom."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
