"""Argument parser of the command line."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentError, ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, NoReturn

from ras_triage.models.errors import suggestion
from ras_triage.service.api.escaping import escape
from ras_triage.service.cli.commands import COMMANDS, load_command

DESCRIPTION: Final = "Predict what Linux on arm64 does with a hardware error, and why."


class CommandParser(ArgumentParser):
    """Argument parser whose errors name the closest known name, with the arguments that they quote escaped."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments: the parser of a command, which knows its options, refuses what it does not know."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            near = suggestion(unknown[0].partition("=")[0], [word for word in self._option_string_actions if word.startswith("--")])
            self.error(f"unrecognized arguments: {' '.join(unknown)}{near}")
        return options, []

    def _check_value(self, action: Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            raise ArgumentError(action, f"unknown value `{value}`; expected one of {', '.join(known)}{suggestion(str(value), known)}")


class _Version(Action):
    """Option that prints the version, which is looked up only then."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from ras_triage.service.api.version import installed_version  # noqa: PLC0415 - reading the metadata takes as long as the rest

        parser._print_message(f"ras-triage {installed_version()}\n", sys.stdout)
        parser.exit()


def build_parser(configured: Collection[str] = COMMANDS) -> ArgumentParser:
    """Return the parser. Only the commands in `configured` are imported and have their options; by default all."""
    parser = CommandParser(prog="ras-triage", description=DESCRIPTION, epilog="Example: ras-triage decide event.json")
    parser.add_argument("--version", action=_Version, nargs=0, help="show program's version number and exit")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, entry in COMMANDS.items():
        command = commands.add_parser(name, help=entry.help)
        if name in configured:
            load_command(name).configure(command)
    return parser


def parsers_of(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    """Yield a parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from parsers_of(command)


def parse(arguments: Sequence[str]) -> Namespace:
    """Parse the arguments of one call; only the module of its command is imported."""
    named = [word for word in arguments if word in COMMANDS][:1]
    return build_parser(named).parse_args(arguments)
