"""Calls of a command, each within a time limit: one that runs into a defect fails alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from ras_triage.service.api.problems import ProblemError, internal
from ras_triage.service.engine.time_limit import TimeLimit, TimeLimitExceeded

P = ParamSpec("P")
T = TypeVar("T")

LIMIT_S: Final = 30.0
"""Seconds that an event may take; the most that `max_workload` allows takes a few."""

TRIES: Final = 2
"""How often: a process that was stopped in between (SIGSTOP, a suspended machine) was not at fault."""


class Attempts:
    """Makes calls in the main thread, and reports what goes wrong in a way that nobody foresaw."""

    def __init__(self, report: Callable[[BaseException], None] = lambda _error: None) -> None:
        self.report = report
        self._limit = TimeLimit(LIMIT_S)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function that has no effects. Raises Refused: `internal` where it runs into a defect or takes too long."""
        error: BaseException | None = None
        with self._limit.installed():
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
