"""All benchmarks that take minutes, and one table of their ratios.

usage: python bench/run.py [PART]...

Each part runs in a process of its own, one after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from processes import machine
from ratios import KEPT_IN, table

HERE = Path(__file__).parent
PARTS = {
    "decide": ["decide.py"],
    "translate": ["translate.py"],
    "kernel_log": ["kernel_log.py"],
    "rasdaemon": ["rasdaemon.py"],
    "replay": ["replay.py"],
    "load": ["load.py", "singles", "batches"],
    "start_up": ["start_up.py"],
    "handover": ["handover.py"],
    "peers": ["peers.py"],
}


def run(part: str, ratios: Path) -> int:
    program, *arguments = PARTS[part]
    print(f"\n# {part}", flush=True)
    command = [sys.executable, str(HERE / program), *arguments]
    return subprocess.run(command, env=os.environ | {KEPT_IN: str(ratios)}, check=False).returncode


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = arguments.parse_args().parts or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        arguments.error(f"unknown part `{min(unknown)}`; expected one of {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        ratios = Path(folder) / "ratios"
        ratios.touch()
        failed = [part for part in chosen if run(part, ratios)]
        print(f"\nTimes of one run, each divided by that of a yardstick in the same run. Below 1 is faster.\n{machine()}\n")
        print(table(ratios))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
