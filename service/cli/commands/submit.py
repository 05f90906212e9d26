"""`submit`: a file of events to a service."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from ras_triage.models.event import event_key
from ras_triage.service.api.escaping import escape_json
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.output import BAD_INPUT, warn
from ras_triage.service.cli.progress import Progress, progress
from ras_triage.service.cli.server_options import GAVE_UP, add_server, ask
from ras_triage.service.cli.submission import SubmissionCounts, SubmittedInput, events, output, submitted_input
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client

HELP = "send a file of events to a service"

INTERRUPTED: Final = 130

PATIENCE: Final = 12
"""Attempts: a service may take a minute and more to start again."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Send events, one JSON object per line, and write a decision or problem for each, one per line, in order. A file can be sent again:"
        " what was decided is recognised. Exit 0: all decided; 2: some refused; 1: the service gave no answer; 130: interrupted."
    )
    command.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    command.add_argument("--output", type=Path, metavar="FILE", help="write there, and go on behind the answers that are there already")
    add_server(command)


def run(options: Namespace) -> int:
    tally = SubmissionCounts()
    with submitted_input(options.file) as source:
        status = _run(options, source, tally)
    if tally.answers or status == 0:
        for line in tally.lines():
            warn(line)
    if status not in (0, BAD_INPUT):
        warn(_how_to_go_on(options, source))
    return status


def _run(options: Namespace, source: SubmittedInput, tally: SubmissionCounts) -> int:
    from ras_triage.service.client import Retry  # noqa: PLC0415 - other commands start faster without it

    try:
        with _output(options.output, source, tally) as answers:
            return ask(options, lambda client: _submit(client, source, answers, tally), Retry(attempts=PATIENCE))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        warn(f"the answers cannot be written: {(error.strerror or 'input/output error').lower()}")
        return GAVE_UP


def _output(path: Path | None, source: SubmittedInput, tally: SubmissionCounts) -> AbstractContextManager[IO[bytes]]:
    if path is None:
        return nullcontext(sys.stdout.buffer)
    if source.key is None and path.exists() and path.stat().st_size:
        raise InvalidSetting(f"`{path}` has answers already, and what comes from a pipe cannot be gone on with")
    return output(path, tally)


def _submit(client: Client, source: SubmittedInput, answers: IO[bytes], tally: SubmissionCounts) -> int:
    client.health()  # a service that was never there is told at once; one that goes away is waited for
    with progress(source.size, sys.stderr) as shown:
        read = _watched(source, tally, shown)
        for line in client.decide_lines(read, idempotency_key=source.key, answered=tally.earlier):
            _count(tally, line)
            answers.write(escape_json(line) + b"\n")
            answers.flush()
            shown.answered()
    return BAD_INPUT if tally.problems else 0


def _count(tally: SubmissionCounts, line: bytes) -> None:
    """Count an answer. Raises UnexpectedAnswer."""
    from ras_triage.service.client import UnexpectedAnswer  # noqa: PLC0415

    try:
        tally.add(line)
    except ValueError as error:
        raise UnexpectedAnswer(f"line {tally.answers} is not an answer: {error}") from error


def _watched(source: SubmittedInput, tally: SubmissionCounts, shown: Progress) -> Iterator[bytes]:
    """The events, as they are taken. Raises InvalidSetting where the answers that were there are not theirs."""
    earlier, last_key = tally.earlier, tally.last_key
    count = 0
    for count, event in enumerate(events(source.stream), 1):
        if count == earlier and last_key is not None and _key(event) != last_key:
            raise InvalidSetting(f"the answers that are there are for other events: the last is not for event {count}")
        shown.taken(len(event))
        yield event
    if count < earlier:
        raise InvalidSetting(f"there are {earlier} answers, and only {count} events")


def _key(event: bytes) -> str | None:
    try:
        return event_key(read_event(event))
    except ProblemError:
        return None


def _how_to_go_on(options: Namespace, source: SubmittedInput) -> str:
    if source.key is None:
        return "what was decided is kept; what comes from a pipe has to be sent from its beginning"
    if options.output is None:
        return "the same command begins again; what was decided is recognised. With `--output FILE` it goes on where it stopped"
    return "the same command goes on from here"
