"""Which events of a chunk an attempt sends, and which answers there are.

An event keeps its position in every attempt, since the service recognises it by that. In the place of one that needs no answer, or would
keep the others from getting theirs, stands a placeholder.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ras_triage.service.api.problems import Problem, problem_json, unanswered
from ras_triage.service.client.errors import ClientError, ProblemAnswer, Unreachable
from ras_triage.service.client.retry import was_sent

PLACEHOLDER: Final = b"null"
"""The service refuses it as an event, and keeps nothing of it."""

CUTS: Final = 3
"""How often an answer may break off at an event, the last time where no other is sent with it, before that event is left out."""

_GROWTH: Final = 4
_REFUSALS: Final = (413, 500)
"""Statuses of a whole answer that one event of the request may be the reason for."""
_LOST: Final = (502, 504)
"""Statuses of a whole answer that stand for one that broke off."""


class Sending:
    """A chunk on its way."""

    def __init__(self, lines: tuple[bytes, ...], answered: int) -> None:
        """`answered`: how many of the first events have their answer already."""
        self._lines = lines
        self._answers: dict[int, bytes] = {}
        self._given = self.known = min(answered, len(lines))
        """Answers that were given; answers that there are."""
        self._window = len(lines)
        self._wanted: tuple[int, ...] = ()
        self._refused_to = -1
        """The last of the events of which one is the reason for a refusal."""
        self._cut_at, self._cuts = -1, 0
        self._suspect: tuple[int, Problem] | None = None

    @property
    def is_done(self) -> bool:
        """Whether every event has its answer."""
        return self._given == len(self._lines)

    def begin(self) -> list[bytes]:
        """Return the lines of the next attempt."""
        left_out = None if self._suspect is None else self._suspect[0]
        self._wanted = tuple(place for place in self._unanswered(len(self._lines)) if place != left_out)[: self._window]
        end = 1 + max((*self._wanted, *(() if left_out is None or self._wanted else (left_out,))))
        return [self._lines[place] if place in self._wanted else PLACEHOLDER for place in range(end)]

    def _unanswered(self, end: int) -> list[int]:
        return [place for place in range(self._given, end) if place not in self._answers]

    def wants(self, place: int) -> bool:
        """Return whether the answer at a place is that of an event of this attempt."""
        return place in self._wanted and place not in self._answers and place >= self._given

    def take(self, place: int, line: bytes) -> Iterator[bytes]:
        """Take an answer. Yield the answers that are next in order."""
        self._answers[place] = line
        self.known += 1
        while (following := self._answers.pop(self._given, None)) is not None:
            self._given += 1
            yield following

    def end(self, failure: ClientError | None, progress: bool) -> Iterator[bytes]:
        """Take in how an attempt ended. Yield the problem of an event that was left out, where the service answers without it."""
        if self._suspect is not None and (failure is None or progress):
            place, problem = self._suspect
            self._suspect, self._refused_to = None, -1
            yield from self.take(place, problem_json(problem))
        if failure is None:
            suspects = len(self._unanswered(self._refused_to + 1))
            self._window = max(suspects // 2, 1) if suspects else min(self._window * _GROWTH, len(self._lines))

    def narrow(self, failure: ClientError) -> bool:
        """Send less next time where one event may be the reason for a failure. Return whether that can be done without a pause."""
        if isinstance(failure, ProblemAnswer) and failure.problem.status in _REFUSALS:
            return self._narrow_refused(failure.problem)
        if _broke_off(failure):
            self._narrow_cut()
        return False

    def _narrow_refused(self, problem: Problem) -> bool:
        if self._suspect is not None or not self._wanted:
            self._suspect = None
            return False
        if len(self._wanted) == 1:
            self._suspect = self._wanted[0], problem
        else:
            self._window, self._refused_to = len(self._wanted) // 2, self._wanted[-1]
        return True

    def _narrow_cut(self) -> None:
        left = [place for place in self._wanted if self.wants(place)]
        if self._suspect is not None or not left:
            self._suspect = None
            return
        self._cuts = self._cuts + 1 if left[0] == self._cut_at else 1
        self._cut_at = left[0]
        if self._cuts >= CUTS and len(self._wanted) == 1:
            self._suspect = left[0], unanswered(self._cuts)
        elif self._cuts >= CUTS - 1:
            self._window = 1


def _broke_off(failure: ClientError) -> bool:
    """Whether the service, or something before it, heard the request and did not answer all of it."""
    if isinstance(failure, ProblemAnswer):
        return failure.problem.status in _LOST
    return isinstance(failure, Unreachable) and was_sent(failure.__cause__)
