"""Rate limiter of a principal."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.security.principal import Principal
from ras_triage.service.security.rate_limit import RateLimiter


def test_what_streams_in_is_slowed_to_the_rate_and_not_refused() -> None:
    principal = Principal("key a", frozenset({"decide"}), RateLimiter(20))
    began = monotonic()
    asyncio.run(principal.pace(60))

    assert 1.0 <= monotonic() - began <= 6.0


def test_what_was_paced_counts_for_what_is_charged() -> None:
    principal = Principal("key a", frozenset({"decide"}), RateLimiter(1, 10))
    asyncio.run(principal.pace(10))

    with pytest.raises(ProblemError) as refused:
        principal.charge()
    assert refused.value.problem.status == 429
    assert int(refused.value.headers["Retry-After"]) >= 1


def test_more_than_may_ever_come_at_once_counts_as_all_of_it() -> None:
    principal = Principal("key a", frozenset({"decide"}), RateLimiter(1, 10))
    principal.charge(1000)

    with pytest.raises(ProblemError):
        principal.charge()


def test_without_a_limit_nothing_is_counted() -> None:
    principal = Principal("anonymous", frozenset())
    principal.charge(1 << 40)
    asyncio.run(principal.pace(1 << 40))
