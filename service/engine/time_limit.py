"""Time limit for Python code in the main thread, by an interval timer (setitimer(2))."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class TimeLimitExceeded(BaseException):
    """Code took longer than its limit. No handler of `Exception` in that code stops it."""


class TimeLimit:
    """Limits calls, where the process's alarm signal is not used otherwise; elsewhere, and in other threads, calls are not limited.

    The timer runs all the time, since setting it for each call would cost more than most calls do: a call ends after one to one and a half
    times its limit. What is called must hold nothing that has to be given back: the exception may come between any two steps.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        """When the call under way began."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Use the alarm signal for as long as the context lasts."""
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, None):
            yield
            return
        before = signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, self._seconds / 2, self._seconds / 2)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function. Raises TimeLimitExceeded, and what it raises."""
        self.begin()
        try:
            return function(*arguments, **named)
        finally:
            self.end()

    def begin(self) -> None:
        """Begin a call: for callers that are called so often that the one above costs too much. From now on TimeLimitExceeded may come."""
        self._since = monotonic()

    def end(self) -> None:
        """End the call."""
        self._since = None

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise where a call is late, once for each call."""
        if self._since is not None and monotonic() - self._since >= self._seconds:
            self._since = None
            raise TimeLimitExceeded
