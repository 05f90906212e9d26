"""Retry policy.

Retries are safe: reads change nothing, and the service recognises the repeat of an event by its `Idempotency-Key`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from random import random

import httpx

_NO_EFFECT = (408, 429, 503)
"""Status codes of requests that had no effect."""

_RESPONSE_LOST = (502, 504)
"""Status codes of a proxy that lost the response: the request may have had its effect."""

TRANSIENT = (*_NO_EFFECT, *_RESPONSE_LOST)

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_MAYBE_SENT = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff: each pause is twice as long as the one before, less a random part of up to half of it."""

    attempts: int | None = 10
    """Number of attempts, the first included; None: no limit."""
    first_s: float = 0.1
    longest_s: float = 30.0
    """Longest pause in seconds, also for `retry:` of a stream; for a longer `Retry-After` the problem is raised at once."""
    random: Callable[[], float] = random
    """Source of random numbers from 0 to 1: clients that fail together must not retry together."""

    def pause_s(self, failures: int, wanted_s: float | None) -> float | None:
        """Return the pause after `failures` consecutive failures, at least what the service wants; None: no retry."""
        if (self.attempts is not None and failures >= self.attempts) or (wanted_s or 0) > self.longest_s:
            return None
        backoff = min(self.first_s * 2.0 ** min(failures - 1, 60), self.longest_s)
        return min((wanted_s or 0) + backoff * (1 + self.random()) / 2, self.longest_s)


NEVER = Retry(attempts=1)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds of a `Retry-After` (RFC 9110 10.2.3), a number or a date; None if it is neither."""
    if value is None:
        return None
    if value.isascii() and value.strip().isdecimal():
        return float(value)
    try:
        return max((parsedate_to_datetime(value).astimezone(UTC) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, OverflowError):
        return None


def is_retryable_status(status: int, *, idempotent: bool) -> bool:
    """Return whether a retry after this status may succeed and does no harm."""
    return status in _NO_EFFECT or (idempotent and status in _RESPONSE_LOST)


def is_retryable_error(error: BaseException | None, *, idempotent: bool) -> bool:
    """Return whether a retry after this error may succeed, and does no harm if only the response was lost."""
    if error is None:
        return idempotent
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
        return False
    return isinstance(error, _NOT_SENT) or (idempotent and isinstance(error, _MAYBE_SENT))


def was_sent(error: BaseException | None) -> bool:
    """Return whether the service may have received a request that failed with this error."""
    return not isinstance(error, _NOT_SENT)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
