"""One module for each command of the command line.

A module has `HELP`, one line; `configure`, which gives the parser its options; and `run`, which does it and gives the exit status.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Protocol


class Command(Protocol):
    """What the command line asks of such a module."""

    HELP: str

    def configure(self, command: ArgumentParser) -> None:
        """Describe the command and its options."""

    def run(self, options: Namespace) -> int:
        """Do it: 0 done, 2 bad input. Raises Refused, InvalidSetting."""
