"""Entry point of the command line."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from ras_triage.service.api.escaping import escape, valid_text
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.api.version import installed_version
from ras_triage.service.cli.commands import (
    Command,
    config,
    decide,
    decode,
    demo,
    export,
    import_,
    keys,
    policies,
    query,
    serve,
    show,
    store,
    submit,
    syndrome,
    watch,
)
from ras_triage.service.cli.output import BAD_INPUT, print_exception, print_problem, warn
from ras_triage.service.config.settings import InvalidSetting

INTERRUPTED = 130

COMMANDS: Final[Mapping[str, Command]] = {
    "decide": decide,
    "decode": decode,
    "import": import_,
    "export": export,
    "syndrome": syndrome,
    "policies": policies,
    "serve": serve,
    "config": config,
    "keys": keys,
    "store": store,
    "submit": submit,
    "query": query,
    "show": show,
    "watch": watch,
    "demo": demo,
}
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 2 bad input."""
    sys.excepthook = print_exception
    _escape_unprintable_output()
    options = _parser().parse_args(argv)
    try:
        _require_text(options)
        return COMMANDS[options.command].run(options)
    except InvalidSetting as error:
        warn(str(error))
        return BAD_INPUT
    except ProblemError as refused:
        print_problem(refused.problem, as_json=getattr(options, "json", False))
        return BAD_INPUT
    except BrokenPipeError:
        _discard_output()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _escape_unprintable_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Replace standard output after a broken pipe, so that flushing at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_FILES: Final = frozenset({"file", "files", "hest"})
"""Options that name files, whose names need not be UTF-8; options of type `Path` need no entry."""


def _require_text(options: Namespace) -> None:
    """Raise InvalidSetting for an argument that is not UTF-8 and does not name a file."""
    for name, value in vars(options).items():
        words = value if isinstance(value, list) else [value]
        if name not in _FILES and any(isinstance(word, str) and valid_text(word) != word for word in words):
            raise InvalidSetting(f"`{name.replace('_', '-')}`: expected UTF-8 text")


class _Parser(ArgumentParser):
    """Argument parser that escapes its error messages, which quote arguments."""

    def error(self, message: str) -> NoReturn:
        super().error(escape(message))


def _parser() -> ArgumentParser:
    description = "Predict what Linux on arm64 does with a hardware error, and why."
    parser = _Parser(prog="ras-triage", description=description, epilog="Example: ras-triage decide event.json")
    parser.add_argument("--version", action="version", version=f"ras-triage {installed_version()}")
    commands = parser.add_subparsers(required=True, dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.configure(commands.add_parser(name, help=command.HELP))
    return parser


if __name__ == "__main__":
    sys.exit(main())
