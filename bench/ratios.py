"""Ratios of a run, as one table of what was compared with what."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

KEPT_IN = "RAS_TRIAGE_BENCH_RATIOS"
"""Environment variable with the file in which bench/run.py collects ratios."""

HEAD = ("this", "takes", "times as long as this")


def keep(what: str, yardstick: str, ratio: float) -> None:
    """Keep for the table how many times as long as the yardstick something takes; below 1 is faster."""
    if path := os.environ.get(KEPT_IN):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, f"{ratio:.2f}", yardstick]) + "\n")


def in_turns(rounds: int, yardstick: Callable[[], object], ours: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Return the processor time of each round of both, in seconds. Other processes on the machine do not count."""
    clock = time.process_time
    times = []
    for _ in range(rounds):
        began = clock()
        yardstick()
        between = clock()
        ours()
        times.append((between - began, clock() - between))
    return [first for first, _ in times], [second for _, second in times]


def table(path: Path) -> str:
    """Return the ratios of a file as a table in Markdown."""
    rows = [HEAD, *map(json.loads, path.read_text(encoding="utf-8").splitlines())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {what:{widths[0]}} | {ratio:>{widths[1]}} | {yardstick:{widths[2]}} |" for what, ratio, yardstick in rows]
    rule = f"|{'-' * (widths[0] + 2)}|{'-' * (widths[1] + 1)}:|{'-' * (widths[2] + 2)}|"
    return "\n".join([lines[0], rule, *lines[1:]])
