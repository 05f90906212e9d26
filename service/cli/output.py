"""Standard output (results) and standard error (everything else) of commands.

No other module writes to them, so that all text from outside is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from traceback import format_exception
from types import TracebackType
from typing import TYPE_CHECKING, Final

from ras_triage.service.api.escaping import escape, escape_json
from ras_triage.service.api.problems import MAX_ERRORS, Problem, ProblemError, problem_json, too_large
from ras_triage.service.cli.inputs import open_input, read_lines
from ras_triage.service.cli.next_command import require_lines
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.telemetry.redaction import redact

if TYPE_CHECKING:
    from rich.console import RenderableType

INCOMPLETE: Final = 1
"""Exit status: a part of the input was left out, and is listed."""
BAD_INPUT: Final = 2
"""Exit status."""

_MAX_CHARACTERS: Final = 2000
"""Characters of a text in a problem that are printed: the length is up to the service."""


def note(line: str) -> None:
    """Print one line on standard error."""
    print(escape(line), file=sys.stderr)


def warn(message: str) -> None:
    """Print one line on standard error, with the name of the program. API keys are shortened to their id."""
    note(redact(f"ras-triage: {message}"))


def print_problem(problem: Problem, *, as_json: bool) -> None:
    """Print a problem on standard error."""
    if as_json:
        note(redact(escape_json(problem_json(problem)).decode()))
        return
    warn(f"{_cut(problem.title)}: {_cut(problem.detail)}")
    if len(problem.errors) > 1:
        for fault in problem.errors[:MAX_ERRORS]:
            note(redact(f"  {_cut(fault.pointer or fault.parameter or '/')}: {_cut(fault.detail)}"))


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"


def warn_of_defect(error: BaseException) -> None:
    """Print the type and place of an unexpected exception, without its text, which may quote the input."""
    from ras_triage.service.telemetry import logs  # noqa: PLC0415 - a command without a defect starts faster without it

    facts = logs.explain(error)
    place = facts["frames"][-1] if facts["frames"] else "unknown place"
    warn(f"internal error: {facts['error']} at {place}")


def warn_json(document: bytes) -> None:
    """Print a JSON document as one line on standard error."""
    print(escape_json(document).decode(), file=sys.stderr)


def print_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback on standard error (`sys.excepthook`): a message may quote what comes from outside."""
    for line in "".join(format_exception(kind, error, trace)).split("\n"):
        note(line)


def write_json(document: bytes) -> None:
    """Print a JSON document as one line and flush."""
    write_bytes(escape_json(document) + b"\n")


def write_text(line: str) -> None:
    """Print one line of text and flush."""
    write_bytes(escape(line).encode() + b"\n")


def write_bytes(data: bytes) -> None:
    """Print bytes unchanged and flush."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def is_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def write_original(data: bytes) -> None:
    """Print bytes from outside unchanged, at once; on a terminal, which acts on control characters, as escaped text."""
    if is_terminal():
        for line in data.decode(errors="backslashreplace").removesuffix("\n").split("\n"):
            write_text(line.expandtabs())
    else:
        write_bytes(data)


def print_page(page: RenderableType | Callable[[int], RenderableType], *, soft_wrap: bool = False) -> None:
    """Print a page, or what a function returns for the width of the terminal. With `soft_wrap` the terminal breaks its lines."""
    from ras_triage.service.cli.pages import layout  # noqa: PLC0415 - JSON output starts faster without it

    console = layout.console()
    drawable = page(console.width) if callable(page) else page
    with console.capture() as drawn:
        console.print(layout.EscapedPage(drawable), soft_wrap=soft_wrap)
    sys.stdout.write("\n".join(line.rstrip() for line in drawn.get().splitlines()) + "\n")
    sys.stdout.flush()


def process_lines(command: str, path: str, limit: int, answer: Callable[[bytes], bytes]) -> int:
    """Print the answer to each line of a file, or its problem, and return the exit status. Raises ProblemError for other files."""
    status = 0
    attempts = Attempts(warn_of_defect)
    with open_input(path) as stream:
        require_lines(command, path, stream)
        for line in read_lines(stream, limit):
            try:
                if line is None:
                    raise ProblemError(too_large(limit))
                answered = attempts.call(answer, line)
            except ProblemError as refused:
                answered, status = problem_json(refused.problem), BAD_INPUT
            write_json(answered)
    return status
