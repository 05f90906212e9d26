"""State of a chunk: events to send and results received.

An event keeps its position in every attempt, by which the service recognises it. Events that have their result, or that keep the service
from responding, are replaced by a placeholder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ras_triage.service.api.decision_response import with_event
from ras_triage.service.api.problems import Problem, problem_json, unanswered
from ras_triage.service.client.chunks import Chunk
from ras_triage.service.client.errors import ClientError, ProblemResponse, Unreachable
from ras_triage.service.client.retry import was_sent

PLACEHOLDER: Final = b"null"
"""Line that the service refuses as an event and does not store."""

MAX_EARLY_ENDS: Final = 3
"""How often a response may end at an event, the last time without any other event, before that event is left out."""

_INDEX: Final = re.compile(rb'\A\{"index":\d+,')
"""Index of an event in its request, with which the service begins a result."""

_GROWTH: Final = 4
_REFUSALS: Final = (413, 500)
"""Status codes of a response that one event of the request may have caused."""
_RESPONSE_LOST: Final = (502, 504)
"""Status codes of a proxy for a response that ended early."""


class ChunkState:
    """State of a chunk between attempts."""

    def __init__(self, chunk: Chunk, answered: int) -> None:
        """`answered`: how many of the first events have their result already."""
        self._first = chunk.first
        self._lines = lines = chunk.lines
        self._results: dict[int, bytes] = {}
        self._emitted = self.known = min(answered, len(lines))
        """Results that were emitted; results that are known."""
        self._window = len(lines)
        self._sent: tuple[int, ...] = ()
        self._refused_to = -1
        """Index of the last of the events of which one caused a refusal."""
        self._ended_at, self._early_ends = -1, 0
        self._suspect: tuple[int, Problem] | None = None

    @property
    def is_done(self) -> bool:
        """Whether every event has its result."""
        return self._emitted == len(self._lines)

    def begin(self) -> list[bytes]:
        """Begin an attempt and return its lines."""
        omitted = None if self._suspect is None else self._suspect[0]
        self._sent = tuple(index for index in self._unanswered(len(self._lines)) if index != omitted)[: self._window]
        end = 1 + max((*self._sent, *(() if omitted is None or self._sent else (omitted,))))
        return [self._lines[index] if index in self._sent else PLACEHOLDER for index in range(end)]

    def _unanswered(self, end: int) -> list[int]:
        return [index for index in range(self._emitted, end) if index not in self._results]

    def wants(self, index: int) -> bool:
        """Return whether the result at an index is that of an event of this attempt."""
        return index in self._sent and index not in self._results and index >= self._emitted

    def take(self, index: int, line: bytes) -> Iterator[bytes]:
        """Add a result, with the index of its event among all events. Yield the results that are next in order."""
        self._results[index] = _INDEX.sub(b'{"index":%d,' % (self._first + index), line, count=1)
        self.known += 1
        while (following := self._results.pop(self._emitted, None)) is not None:
            self._emitted += 1
            yield following

    def end(self, failure: ClientError | None, progress: bool) -> Iterator[bytes]:
        """End an attempt. Yield the problem of an event that was left out if the service responds without it."""
        if self._suspect is not None and (failure is None or progress):
            index, problem = self._suspect
            self._suspect, self._refused_to = None, -1
            yield from self.take(index, with_event(index, None, problem_json(problem)))
        if failure is None:
            suspects = len(self._unanswered(self._refused_to + 1))
            self._window = max(suspects // 2, 1) if suspects else min(self._window * _GROWTH, len(self._lines))

    def narrow(self, failure: ClientError) -> bool:
        """Send fewer events next time if one may have caused a failure. Return whether that needs no pause."""
        if isinstance(failure, ProblemResponse) and failure.problem.status in _REFUSALS:
            return self._narrow_refused(failure.problem)
        if _ended_early(failure):
            self._narrow_early_end()
        return False

    def _narrow_refused(self, problem: Problem) -> bool:
        if self._suspect is not None or not self._sent:
            self._suspect = None
            return False
        if len(self._sent) == 1:
            self._suspect = self._sent[0], problem
        else:
            self._window, self._refused_to = len(self._sent) // 2, self._sent[-1]
        return True

    def _narrow_early_end(self) -> None:
        left = [index for index in self._sent if self.wants(index)]
        if self._suspect is not None or not left:
            self._suspect = None
            return
        self._early_ends = self._early_ends + 1 if left[0] == self._ended_at else 1
        self._ended_at = left[0]
        if self._early_ends >= MAX_EARLY_ENDS and len(self._sent) == 1:
            self._suspect = left[0], unanswered(self._early_ends)
        elif self._early_ends >= MAX_EARLY_ENDS - 1:
            self._window = 1


def _ended_early(failure: ClientError) -> bool:
    """Return whether a request was sent and its response ended early."""
    if isinstance(failure, ProblemResponse):
        return failure.problem.status in _RESPONSE_LOST
    return isinstance(failure, Unreachable) and was_sent(failure.__cause__)
