"""Function calls with a time limit, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, ParamSpec, TypeVar

from ras_triage.service.api.problems import ProblemError, internal
from ras_triage.service.engine.time_limit import TimeLimit, TimeLimitExceeded

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_S: Final = 30.0
"""Time limit for one event, in seconds. The most that `max_workload` allows takes a few seconds."""

TRIES: Final = 2
"""Attempts before a call fails: the time limit also expires while the process is stopped (SIGSTOP, a suspended machine)."""


class Attempts:
    """Calls functions in the main thread and reports unexpected exceptions."""

    def __init__(self, report: Callable[[BaseException], None] = lambda _error: None) -> None:
        self.report = report
        self._limit = TimeLimit(LIMIT_S)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function that has no side effects. Raises ProblemError: `internal` after an unexpected exception or a timeout."""
        if self._limit.is_installed:
            return self._try(function, *arguments, **named)
        with self.installed():
            return self._try(function, *arguments, **named)

    def installed(self) -> AbstractContextManager[None]:
        """Install the time limit once for many calls: for each, this would cost more than most of them do."""
        return self._limit.installed()

    def _try(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        error: BaseException | None = None
        for _ in range(TRIES):
            try:
                return self._limit.call(function, *arguments, **named)
            except TimeLimitExceeded as late:
                error = late
            except ProblemError:
                raise
            except Exception as defect:
                error = defect
                break
        assert error is not None
        self.report(error)
        raise ProblemError(internal())
