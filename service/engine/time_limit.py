"""Time limit for Python code in the main thread (setitimer(2))."""

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
    """A call exceeded its time limit. A BaseException, so that `except Exception` in the called code does not catch it."""


class TimeLimit:
    """Limits calls in the main thread of a process that does not use SIGALRM otherwise; elsewhere calls are not limited.

    The timer runs all the time, since setting it for each call would cost more than most calls do: a call ends after 1 to 1.5 times its
    limit. The called code must hold no resource that has to be released: the exception may be raised between any two bytecodes.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        """Start of the current call, by the monotonic clock."""
        self.is_installed = False
        """Whether `installed` is in effect."""

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Install the SIGALRM handler and the timer for the duration of the context."""
        if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGALRM) not in (signal.SIG_DFL, None):
            yield
            return
        before = signal.signal(signal.SIGALRM, self._tick)
        signal.setitimer(signal.ITIMER_REAL, self._seconds / 2, self._seconds / 2)
        self.is_installed = True
        try:
            yield
        finally:
            self.is_installed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Call a function. Raises TimeLimitExceeded and the function's own exceptions."""
        self.begin()
        try:
            return function(*arguments, **named)
        finally:
            self.end()

    def begin(self) -> None:
        """Begin a call, for hot paths where `call` costs too much. TimeLimitExceeded may be raised from now on."""
        self._since = monotonic()

    def end(self) -> None:
        """End the call."""
        self._since = None

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        """Raise TimeLimitExceeded if the call exceeded its limit, once for each call."""
        if self._since is not None and monotonic() - self._since >= self._seconds:
            self._since = None
            raise TimeLimitExceeded
