"""Commands of the command line, one module each.

A module has `HELP` (one line), `configure` (adds description, options and examples to the parser) and `run` (returns the exit status).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Protocol


class Command(Protocol):
    """Interface of a command module."""

    HELP: str

    def configure(self, command: ArgumentParser) -> None:
        """Add the description, options and examples of the command to its parser."""

    def run(self, options: Namespace) -> int:
        """Run the command and return its exit status: 0 done, 2 bad input. Raises ProblemError, InvalidSetting."""
