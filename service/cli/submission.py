"""A run of `submit`: the events, where their answers go, and how it went."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Final

from pydantic_core import from_json

from ras_triage.models.frozen import frozen
from ras_triage.service.api.problems import URN, ProblemError, unreadable
from ras_triage.service.cli.inputs import STANDARD_INPUT, opened
from ras_triage.service.engine.batch.splitter import ArraySplitter, ItemSplitter, NdjsonSplitter

MAX_EVENT_BYTES: Final = 64 << 20
"""Longest event that is read from a file; the service has a limit of its own, and says so in the event's place."""

_PIECE: Final = 1 << 20


@frozen
class SubmittedInput:
    """A file of events."""

    stream: BinaryIO
    key: str | None
    """The same for the same content; None where it can be read only once."""
    size: int | None
    """Bytes; None where that is not known."""


@contextmanager
def submitted_input(path: str) -> Iterator[SubmittedInput]:
    """The file, or standard input for `-`. Raises Refused where it cannot be opened."""
    with opened(path) as stream:
        found = os.fstat(stream.fileno())
        if path == STANDARD_INPUT or not stat.S_ISREG(found.st_mode):
            yield SubmittedInput(stream, None, None)
        else:
            yield SubmittedInput(stream, _digest(stream), found.st_size)


def _digest(stream: BinaryIO) -> str:
    """SHA-256 of all of it, and back to the beginning."""
    digest = hashlib.sha256()
    while piece := stream.read(_PIECE):
        digest.update(piece)
    stream.seek(0)
    return digest.hexdigest()


def events(stream: BinaryIO) -> Iterator[bytes]:
    """The events, each in its own bytes: the lines, or the elements of a JSON array. Raises Refused for what cannot be read."""
    splitter: ItemSplitter | None = None
    while (piece := _next(stream)) or splitter is not None:
        if splitter is None and piece.strip():
            splitter = ArraySplitter(MAX_EVENT_BYTES) if piece.lstrip().startswith(b"[") else NdjsonSplitter(MAX_EVENT_BYTES)
        if splitter is not None:
            for event in splitter.feed(piece) if piece else splitter.finish():
                if isinstance(event, ProblemError):
                    raise event
                yield event
        if not piece:
            return


def _next(stream: BinaryIO) -> bytes:
    """What there is, without waiting for more than there is."""
    read1 = getattr(stream, "read1", stream.read)
    piece: bytes = read1(_PIECE)
    return piece


@dataclass(slots=True)
class SubmissionCounts:
    """How a run went."""

    answers: int = 0
    """There before included."""
    earlier: int = 0
    """Of them: those that an earlier run wrote."""
    last_key: str | None = None
    """`event_key` of the latest answer; None where that is a problem."""
    repeats: int = 0
    actions: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, line: bytes) -> None:
        """Count one answer. Raises ValueError for a line that is not one."""
        self.answers += 1
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
        """What to tell."""
        decided = self.actions.total()
        notes = [f"{self.repeats} decided before"] if self.repeats else []
        notes += [f"{self.earlier} answers were there"] if self.earlier else []
        yield f"{decided} decided" + (f" ({', '.join(notes)})" if notes else "") + _listed(self.actions)
        if self.problems:
            yield f"{self.problems.total()} refused" + _listed(self.problems)


def _listed(counts: Counter[str]) -> str:
    return ": " + ", ".join(f"{name} {count}" for name, count in counts.most_common()) if counts else ""


@contextmanager
def output(path: Path, tally: SubmissionCounts) -> Iterator[IO[bytes]]:
    """The file to go on writing, behind the whole answers that it has; they are counted. Raises Refused where it cannot be opened."""
    fresh = not path.is_file()
    try:
        stream = path.open("wb" if fresh else "r+b")
    except OSError as error:
        raise ProblemError(unreadable(str(path), (error.strerror or "cannot be opened").lower())) from None
    with stream:
        if not fresh:
            _count(stream, path, tally)
        yield stream


def _count(stream: IO[bytes], path: Path, tally: SubmissionCounts) -> None:
    """Count the answers that are there, and cut off one that is not whole. Raises Refused where there is anything else."""
    whole = 0
    while line := stream.readline(MAX_EVENT_BYTES):
        if not line.endswith(b"\n") and line.startswith(b'{"'[: len(line)]):
            break
        try:
            tally.add(line)
        except ValueError:
            reason = f"line {tally.answers} is no answer: only a file that `submit` wrote can be gone on with"
            raise ProblemError(unreadable(str(path), reason)) from None
        whole += len(line)
    stream.seek(whole)
    stream.truncate()
    tally.earlier = tally.answers
