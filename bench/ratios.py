"""Ratios of a run, as a table of what was compared with what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

KEPT_IN = "RAS_TRIAGE_BENCH_RATIOS"
"""Environment variable with the file that bench/run.py collects ratios in."""


class Ratio(NamedTuple):
    """How many times as long as the yardstick something takes; below 1 is faster."""

    what: str
    yardstick: str
    ratio: float


def keep(what: str, yardstick: str, ratio: float) -> None:
    """Keep a ratio for the table at the end of `make bench`."""
    if path := os.environ.get(KEPT_IN):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, yardstick, ratio]) + "\n")


def table(rows: Iterable[Ratio]) -> str:
    """Return a table in Markdown."""
    head = ("what", "takes", "compared with")
    cells = [head, *((row.what, f"{row.ratio:.2f} x", row.yardstick) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {what:{widths[0]}} | {ratio:>{widths[1]}} | {yardstick:{widths[2]}} |" for what, ratio, yardstick in cells]
    rule = f"|{'-' * (widths[0] + 2)}|{'-' * (widths[1] + 1)}:|{'-' * (widths[2] + 2)}|"
    return "\n".join([lines[0], rule, *lines[1:]])
