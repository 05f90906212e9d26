"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from service import logs
from service.attempts import Attempts
from service.inputs import opened, read_lines
from service.problems import Problem, Refused, problem_json, too_large

if TYPE_CHECKING:
    from rich.console import RenderableType

BAD_INPUT: Final = 2
"""Exit status."""


def complain(problem: Problem, *, as_json: bool) -> None:
    """Say what is wrong, on standard error."""
    if as_json:
        print(problem_json(problem).decode(), file=sys.stderr)
        return
    print(f"ras-triage: {problem.title}: {problem.detail}", file=sys.stderr)
    if len(problem.errors) > 1:
        for fault in problem.errors:
            print(f"  {fault.pointer or '/'}: {fault.detail}", file=sys.stderr)


def tell_defect(error: BaseException) -> None:
    """Print which defect something ran into: its type and place, without its text, which may quote the input."""
    facts = logs.explain(error)
    place = facts["frames"][-1] if facts["frames"] else "an unknown place"
    print(f"ras-triage: internal error: {facts['error']} at {place}", file=sys.stderr)


def write(line: bytes) -> None:
    """Print a line, at once."""
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def show(name: str, *arguments: Any) -> None:
    """Print one of the pages; what they are drawn with loads only here."""
    from service import render  # noqa: PLC0415 - answers in JSON start faster without it

    draw(getattr(render, name)(*arguments))


def draw(page: RenderableType) -> None:
    """Print a page."""
    from service import render  # noqa: PLC0415

    console = render.console()
    with console.capture() as drawn:
        console.print(page)
    sys.stdout.write("\n".join(line.rstrip() for line in drawn.get().splitlines()) + "\n")
    sys.stdout.flush()


def answer_lines(path: str, limit: int, answer: Callable[[bytes], bytes]) -> int:
    """Answer each line as it comes; a line that is refused has its problem in its place."""
    status = 0
    attempts = Attempts(tell_defect)
    with opened(path) as stream:
        for line in read_lines(stream, limit):
            try:
                if line is None:
                    raise Refused(too_large(limit))
                answered = attempts.call(answer, line)
            except Refused as refused:
                answered, status = problem_json(refused.problem), BAD_INPUT
            write(answered)
    return status
