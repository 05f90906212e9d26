"""Command `submit`: a file of events, decided by a service."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from ras_triage.models.event import event_key
from ras_triage.service.api.escaping import escape_json
from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.counts import plural
from ras_triage.service.cli.fail_on import add_fail_on, status_of
from ras_triage.service.cli.next_command import require_lines
from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import BAD_INPUT, warn
from ras_triage.service.cli.progress import Progress, progress
from ras_triage.service.cli.server_options import NO_RESPONSE, add_server, call_service
from ras_triage.service.cli.submission import SubmissionCounts, SubmittedInput, read_events, resume_output, submitted_input
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client, Flush

INTERRUPTED: Final = 130

_LONGEST_S: Final = 86400

ATTEMPTS: Final = 12
"""Attempts: a restart of the service may take more than a minute."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Send events, one JSON object per line or a JSON array, and write a decision or problem for each, one per line, in order. A file"
        " that is sent again has the same decisions. Exit status: 0 all decided; 2 some refused; 1 the service did not respond;"
        " 3 an action of --fail-on; 130 interrupted."
    )
    add_examples(command, "ras-triage submit events.ndjson --output decisions.ndjson", "cat events.ndjson | ras-triage submit -")
    command.add_argument("file", metavar="FILE", help="input file, or - for standard input")
    command.add_argument(
        "--linger",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help="standard input and pipes: send an event at the latest after this time, even if more may come (default: 1)",
    )
    command.add_argument("--output", type=Path, metavar="FILE", help="append the results to this file, skip events whose results it has")
    command.add_argument("--dry-run", action="store_true", help="decide each event as if the others were not there, and store nothing")
    command.add_argument(
        "--view", choices=("full", "summary"), default="full", help="whole decisions, or only id, action, certainty and keys"
    )
    add_fail_on(command)
    add_server(command)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_S:
        raise ArgumentTypeError(f"invalid time `{text}`; expected seconds from 0 to {_LONGEST_S}")
    return seconds


def run(options: Namespace) -> int:
    if options.dry_run and options.output:
        raise InvalidSetting("`--dry-run` and `--output` exclude each other: the next run would skip events that are not stored")
    counts = SubmissionCounts()
    with submitted_input(options.file) as source:
        require_lines("submit", options.file, source.stream)
        status = _run(options, source, counts)
    if counts.results or status == 0:
        for line in counts.lines():
            warn(line)
    if status not in (0, BAD_INPUT):
        warn(_how_to_resume(options, source))
    return status_of(options, status, counts.actions)


def _run(options: Namespace, source: SubmittedInput, counts: SubmissionCounts) -> int:
    from ras_triage.service.client import Retry  # noqa: PLC0415 - other commands start faster without it

    try:
        with _output(options.output, source, counts) as results:
            return call_service(options, lambda client: _submit(client, options, source, results, counts), Retry(attempts=ATTEMPTS))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        warn(f"the results cannot be written: {(error.strerror or 'input/output error').lower()}")
        return NO_RESPONSE


def _output(path: Path | None, source: SubmittedInput, counts: SubmissionCounts) -> AbstractContextManager[IO[bytes]]:
    if path is None:
        return nullcontext(sys.stdout.buffer)
    if source.key is None and path.exists() and path.stat().st_size:
        raise InvalidSetting(f"`{path}` has results already; input from a pipe cannot be resumed, give a file or an empty output file")
    return resume_output(path, counts)


def _submit(client: Client, options: Namespace, source: SubmittedInput, results: IO[bytes], counts: SubmissionCounts) -> int:
    client.health()  # fails at once if there is no service; later failures are retried
    with progress(source.size, sys.stderr) as shown:
        read = _checked_events(source, counts, shown, options.linger)
        lines = client.decide_lines(read, idempotency_key=source.key, answered=counts.earlier, dry_run=options.dry_run, view=options.view)
        for line in lines:
            _count(counts, line)
            results.write(escape_json(line) + b"\n")
            results.flush()
            shown.item_done()
    return BAD_INPUT if counts.problems else 0


def _count(counts: SubmissionCounts, line: bytes) -> None:
    """Count a result. Raises UnexpectedResponse."""
    from ras_triage.service.client import UnexpectedResponse  # noqa: PLC0415

    try:
        counts.add(line)
    except ValueError as error:
        raise UnexpectedResponse(f"line {counts.results} is not a result: {error}") from error


def _checked_events(source: SubmittedInput, counts: SubmissionCounts, shown: Progress, linger_s: float) -> Iterator[bytes | Flush]:
    """Yield the events and check that existing results belong to them. Raises InvalidSetting.

    A pipe may be live: its events are sent after `linger_s`. Those of a file are sent in the same groups in every run.
    """
    from ras_triage.service.client import FLUSH  # noqa: PLC0415

    earlier, last_key = counts.earlier, counts.last_key
    count = 0
    for event in read_events(source.stream, linger_s if source.key is None else None):
        if event is None:
            yield FLUSH
            continue
        count += 1
        if count == earlier and last_key is not None and _key(event) != last_key:
            raise InvalidSetting(f"the output file belongs to a different input: its last result is not for event {count}")
        shown.bytes_read(len(event))
        yield event
    if count < earlier:
        raise InvalidSetting(
            f"the output file belongs to a different input: it has {plural(earlier, 'result')}, the input {plural(count, 'event')}"
        )


def _key(event: bytes) -> str | None:
    try:
        return event_key(read_event(event))
    except ProblemError:
        return None


def _how_to_resume(options: Namespace, source: SubmittedInput) -> str:
    if source.key is None:
        return "decisions made so far are stored; input from a pipe cannot be resumed, send it again from its beginning"
    if options.output is None:
        return "run the same command again: repeats are recognised; with `--output FILE` it resumes where it stopped"
    return "run the same command again to resume"
