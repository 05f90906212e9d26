"""Whether and when a question is asked again.

Asking again is safe: what reads changes nothing, and a decision that is asked for again is recognised by its `Idempotency-Key`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random

import httpx

_NOT_DONE = (408, 429, 503)
"""The service says that it did nothing."""

_PERHAPS_DONE = (502, 504)
"""Something between here and the service lost its answer."""

TRANSIENT = (*_NOT_DONE, *_PERHAPS_DONE)

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_PERHAPS_HEARD = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a question is asked, and how long the pauses between are: each twice as long as the one before, less up to half of it."""

    attempts: int | None = 10
    """The first included; None: for ever."""
    first_s: float = 0.1
    longest_s: float = 30.0
    """Seconds. No pause is longer, whatever a stream's `retry:` says; a longer `Retry-After` is raised and not waited for."""
    random: Callable[[], float] = random
    """Between 0 and 1: clients that fail together must not come back together."""

    def pause_s(self, failures: int, wanted_s: float | None) -> float | None:
        """Seconds to wait after so many failures in a row, never less than the service wants; None: ask no more."""
        if (self.attempts is not None and failures >= self.attempts) or (wanted_s or 0) > self.longest_s:
            return None
        backoff = min(self.first_s * 2.0 ** min(failures - 1, 60), self.longest_s)
        return min((wanted_s or 0) + backoff * (1 + self.random()) / 2, self.longest_s)


NEVER = Retry(attempts=1)


def retry_after_s(value: str | None) -> float | None:
    """Seconds from a `Retry-After` (RFC 9110 10.2.3), which may be a number or a date; None where it is neither."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


def may_ask_again_after_status(status: int, *, repeatable: bool) -> bool:
    """Whether such an answer can become another one. `repeatable`: doing it twice is as good as once."""
    return status in _NOT_DONE or (repeatable and status in _PERHAPS_DONE)


def may_ask_again_after_error(error: BaseException | None, *, repeatable: bool) -> bool:
    """Whether asking again may help, and does no harm where the service heard the question and only its answer was lost."""
    if error is None:
        return repeatable
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return False
    return isinstance(error, _NOT_SENT) or (repeatable and isinstance(error, _PERHAPS_HEARD))


def was_sent(error: BaseException | None) -> bool:
    """Return whether a question may have been heard whose answer did not come."""
    return not isinstance(error, _NOT_SENT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
