"""Entry point of the command line."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from ras_triage.service.api.escaping import valid_text
from ras_triage.service.cli.commands import load_command
from ras_triage.service.cli.parser import parse

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 2 bad input."""
    sys.excepthook = _print_exception
    _escape_unprintable_output()
    try:
        return _run(parse(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:
        _discard_output()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: Namespace) -> int:
    """Run a command and print what it raises."""
    from ras_triage.service.api.problems import ProblemError  # noqa: PLC0415 - help starts faster without the models
    from ras_triage.service.cli.output import BAD_INPUT, print_problem, warn  # noqa: PLC0415
    from ras_triage.service.config.settings import InvalidSetting  # noqa: PLC0415

    try:
        _require_text(options)
        return load_command(options.command).run(options)
    except InvalidSetting as error:
        warn(str(error))
    except ProblemError as refused:
        print_problem(refused.problem, as_json=getattr(options, "json", False))
    return BAD_INPUT


def _print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    from ras_triage.service.cli.output import print_exception  # noqa: PLC0415 - help starts faster without it

    print_exception(kind, error, trace)


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
    from ras_triage.service.config.settings import InvalidSetting  # noqa: PLC0415

    for name, value in vars(options).items():
        words = value if isinstance(value, list) else [value]
        if name not in _FILES and any(isinstance(word, str) and valid_text(word) != word for word in words):
            raise InvalidSetting(f"`{name.replace('_', '-')}`: expected UTF-8 text")


if __name__ == "__main__":
    sys.exit(main())
