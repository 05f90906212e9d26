"""Options that several commands have, and what they stand for."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from policies.catalog import UNIFORM
from service.settings import Settings, read_settings


def settings_of(options: Namespace) -> Settings:
    """The settings that the options make. Raises InvalidSetting."""
    return read_settings(options.policy_file, getattr(options, "default_policy", UNIFORM))


def port(text: str) -> int:
    """A TCP port from its text. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise ArgumentTypeError(f"`{text}` is not a port number")
    return int(text)


def add_policy_file(command: ArgumentParser) -> None:
    """The operator's own policies."""
    command.add_argument("--policy-file", action="append", type=Path, metavar="FILE", help="a policy of your own, in TOML; may be repeated")


def add_json(command: ArgumentParser) -> None:
    """Machine-readable results."""
    command.add_argument("--json", action="store_true", help="answer as the HTTP interface does")
