"""`submit`: a file of events to a service."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from models.event import event_key
from service.answers import read_event
from service.commands.output import BAD_INPUT, warn
from service.commands.progress import Progress, progress
from service.commands.server_options import GAVE_UP, add_server, ask
from service.commands.submission import Given, Tally, events, given, output
from service.escaping import escape_json
from service.problems import Refused
from service.settings import InvalidSetting

if TYPE_CHECKING:
    from service.client import Client

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
    tally = Tally()
    with given(options.file) as source:
        status = _run(options, source, tally)
    if tally.answers or status == 0:
        for line in tally.lines():
            warn(line)
    if status not in (0, BAD_INPUT):
        warn(_how_to_go_on(options, source))
    return status


def _run(options: Namespace, source: Given, tally: Tally) -> int:
    from service.client import Retry  # noqa: PLC0415 - other commands start faster without it

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


def _output(path: Path | None, source: Given, tally: Tally) -> AbstractContextManager[IO[bytes]]:
    if path is None:
        return nullcontext(sys.stdout.buffer)
    if source.key is None and path.exists() and path.stat().st_size:
        raise InvalidSetting(f"`{path}` has answers already, and what comes from a pipe cannot be gone on with")
    return output(path, tally)


def _submit(client: Client, source: Given, answers: IO[bytes], tally: Tally) -> int:
    client.health()  # a service that was never there is told at once; one that goes away is waited for
    with progress(source.size, sys.stderr) as shown:
        read = _watched(source, tally, shown)
        for line in client.decide_lines(read, idempotency_key=source.key, answered=tally.earlier):
            _count(tally, line)
            answers.write(escape_json(line) + b"\n")
            answers.flush()
            shown.answered()
    return BAD_INPUT if tally.problems else 0


def _count(tally: Tally, line: bytes) -> None:
    """Count an answer. Raises UnexpectedAnswer."""
    from service.client import UnexpectedAnswer  # noqa: PLC0415

    try:
        tally.add(line)
    except ValueError as error:
        raise UnexpectedAnswer(f"line {tally.answers} is not an answer: {error}") from error


def _watched(source: Given, tally: Tally, shown: Progress) -> Iterator[bytes]:
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
    except Refused:
        return None


def _how_to_go_on(options: Namespace, source: Given) -> str:
    if source.key is None:
        return "what was decided is kept; what comes from a pipe has to be sent from its beginning"
    if options.output is None:
        return "the same command begins again; what was decided is recognised. With `--output FILE` it goes on where it stopped"
    return "the same command goes on from here"
