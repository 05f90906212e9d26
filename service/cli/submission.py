"""Submission of a file: input, output, counts."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from time import monotonic
from typing import IO, BinaryIO, Final

from pydantic_core import from_json

from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import URN, ProblemError, unreadable
from ras_triage.service.cli.counts import listed, plural
from ras_triage.service.cli.inputs import STANDARD_INPUT, open_input
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter

MAX_EVENT_BYTES: Final = 64 << 20
"""Longest event that is read from a file; the limit of the service may be lower."""

_PIECE: Final = 1 << 20


@frozen
class SubmittedInput:
    """Input with events."""

    stream: BinaryIO
    key: str | None
    """Idempotency key: equal for equal content; None for a pipe, which can be read only once."""
    size: int | None
    """Bytes; None if not known."""


@contextmanager
def submitted_input(path: str) -> Iterator[SubmittedInput]:
    """Open a file, or standard input for `-`. Raises ProblemError."""
    with open_input(path) as stream:
        found = os.fstat(stream.fileno())
        if path == STANDARD_INPUT or not stat.S_ISREG(found.st_mode):
            yield SubmittedInput(stream, None, None)
        else:
            yield SubmittedInput(stream, _digest(stream), found.st_size)


def _digest(stream: BinaryIO) -> str:
    """Return the SHA-256 of a file and rewind it."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    stream.seek(0)
    return digest.hexdigest()


def read_events(stream: BinaryIO, linger_s: float | None = None) -> Iterator[bytes | None]:
    """Yield the bytes of each event: the lines, or the elements of a JSON array. Raises ProblemError.

    With `linger_s` None follows events after which no other came for so long, counted from the first event after the last None.
    """
    splitter: ItemSplitter | None = None
    waiting_since: float | None = None
    while True:
        if linger_s is not None and waiting_since is not None and not _is_readable(stream, waiting_since + linger_s - monotonic()):
            waiting_since = None
            yield None
        piece = _next(stream)
        if splitter is None and piece.strip():
            splitter = ArraySplitter(MAX_EVENT_BYTES) if piece.lstrip().startswith(b"[") else NdjsonSplitter(MAX_EVENT_BYTES)
        if splitter is not None:
            for event in splitter.feed(piece) if piece else splitter.finish():
                if isinstance(event, ProblemError):
                    raise event
                waiting_since = waiting_since or monotonic()
                yield event
        if not piece:
            return


def _is_readable(stream: BinaryIO, seconds: float) -> bool:
    """Return whether there is input, or its end, within so many seconds; `read1` left nothing in the buffer."""
    return seconds > 0 and bool(select([stream], [], [], seconds)[0])


def _next(stream: BinaryIO) -> bytes:
    """Return the bytes that are available; blocks only if there are none."""
    read1 = getattr(stream, "read1", stream.read)
    piece: bytes = read1(_PIECE)
    return piece


@dataclass(slots=True)
class SubmissionCounts:
    """Counts of a submission."""

    results: int = 0
    """Those in the output file included."""
    earlier: int = 0
    """Those that an earlier run wrote."""
    last_key: str | None = None
    """`event_key` of the last result; None for a problem."""
    repeats: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, line: bytes) -> None:
        """Count one result. Raises ValueError for a line that is not one."""
        self.results += 1
        content = from_json(line)
        match content:
            case {"action": str(action), "repeat": bool(repeat)}:
                self.actions[action] += 1
                self.repeats += repeat
            case {"type": str(problem)}:
                self.problems[problem.removeprefix(URN)] += 1
            case _:
                raise ValueError("neither a decision nor a problem")
        self.last_key = content.get("event_key")

    def lines(self) -> Iterator[str]:
        """Yield the lines of the summary."""
        decided = self.actions.total()
        notes = [plural(self.repeats, "repeat")] if self.repeats else []
        notes += [f"{self.earlier} from an earlier run"] if self.earlier else []
        yield f"{decided} decided" + (f" ({', '.join(notes)})" if notes else "") + listed(self.actions)
        if self.problems:
            yield f"{self.problems.total()} refused" + listed(self.problems)


@contextmanager
def resume_output(path: Path, counts: SubmissionCounts) -> Iterator[IO[bytes]]:
    """Open the output file for appending, and count the results that it has. Raises ProblemError."""
    fresh = not path.is_file()
    try:
        stream = path.open("wb" if fresh else "r+b")
    except OSError as error:
        raise ProblemError(unreadable(str(path), (error.strerror or "cannot be open_input").lower())) from None
    with stream:
        if not fresh:
            _count(stream, path, counts)
        yield stream


def _count(stream: IO[bytes], path: Path, counts: SubmissionCounts) -> None:
    """Count the existing results and truncate an incomplete one. Raises ProblemError for any other content."""
    complete_bytes = 0
    while line := stream.readline(MAX_EVENT_BYTES):
        if not line.endswith(b"\n") and line.startswith(b'{"'[: len(line)]):
            break
        try:
            counts.add(line)
        except ValueError:
            reason = f"line {counts.results} is not a result; expected a file that `submit` wrote"
            raise ProblemError(unreadable(str(path), reason)) from None
        complete_bytes += len(line)
    stream.seek(complete_bytes)
    stream.truncate()
    counts.earlier = counts.results
