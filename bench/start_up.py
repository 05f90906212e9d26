"""How long commands and imports take from the start of the interpreter to its end.

usage: python bench/start_up.py [--rounds N] [--imports]

Medians of the rounds, in turns, of the whole process. Processor time is what counts on a machine that does other work, and the ratio is to
an interpreter that does nothing. `--imports` lists for each the modules whose import takes longest (`-X importtime`).
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from ratios import keep

EVENT = b'{"notification":"sea","status_block":{"severity":"recoverable","sections":[]},"host":{"kernel":"6.12.107"}}'
PROGRAM = str(Path(sys.executable).with_name("ras-triage"))
NOTHING = "an interpreter that does nothing"
STARTS = {
    NOTHING: ["-c", ""],
    "ras-triage --version": [PROGRAM, "--version"],
    "ras-triage --help": [PROGRAM, "--help"],
    "ras-triage decide, one event": [PROGRAM, "decide", "-"],
    "ras-triage decide --json, one event": [PROGRAM, "decide", "--json", "-"],
    "import ras_triage.service.client": ["-c", "import ras_triage.service.client"],
    "from ras_triage import Client": ["-c", "from ras_triage import Client"],
    "import httpx": ["-c", "import httpx"],
    "from pydantic import BaseModel": ["-c", "from pydantic import BaseModel"],
}
"""Arguments of the interpreter. Half of what a client or a decision takes are the libraries at the end."""

LONGEST = 12

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""With bytecode, as a package that pip installed has; else each start compiles every module."""


class Start(NamedTuple):
    """Seconds of one process."""

    wall: float
    processor: float


def start(arguments: list[str]) -> Start:
    before, began = processor_time(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], input=EVENT, stdout=subprocess.DEVNULL, env=ENVIRONMENT, check=True)
    return Start(time.perf_counter() - began, processor_time() - before)


def processor_time() -> float:
    """Return seconds of all processes that ended; os.times() counts only hundredths."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def print_imports(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-X", "importtime", *arguments], input=EVENT, capture_output=True, env=ENVIRONMENT, check=True)
    found = re.findall(r"import time: +(\d+) \| +(\d+) \| *(\S+)", done.stderr.decode())
    for own, _, name in sorted(found, key=lambda row: -int(row[0]))[:LONGEST]:
        print(f"    {int(own) / 1000:>7.1f} ms  {name}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument("--imports", action="store_true")
    chosen = arguments.parse_args()
    for command in STARTS.values():
        start(command)
    rounds = [{name: start(command) for name, command in STARTS.items()} for _ in range(chosen.rounds)]
    for name, command in STARTS.items():
        wall, processor = (statistics.median(column) for column in zip(*(one[name] for one in rounds), strict=True))
        ratio = statistics.median(one[name].processor / one[NOTHING].processor for one in rounds)
        print(f"{processor:>7.3f} s of processor time, {wall:>6.3f} s in all, {ratio:>5.1f} x  {name}", flush=True)
        if name != NOTHING:
            keep(f"{name}: processor time of the process", NOTHING, ratio)
        if chosen.imports:
            print_imports(command)


if __name__ == "__main__":
    main()
