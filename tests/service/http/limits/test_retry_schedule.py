"""Tests of the times at which refused clients are told to retry."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.http.limits.retry_schedule import LONGEST_RETRY_S, RetrySchedule


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_refused_client_is_told_the_estimate_while_there_is_room() -> None:
    retries = RetrySchedule(3, Clock())
    assert [retries.reserve(5) for _ in range(3)] == [5, 5, 5]


def test_clients_that_are_refused_together_return_in_different_seconds() -> None:
    retries = RetrySchedule(32, Clock())
    assert Counter(retries.reserve(2) for _ in range(320)) == dict.fromkeys(range(2, 12), 32)


def test_clients_that_are_refused_one_after_the_other_do_not_return_together_either() -> None:
    clock = Clock()
    retries = RetrySchedule(1, clock)
    first = retries.reserve(5)
    clock.now = 2.5
    assert (first, retries.reserve(3)) == (5, 4), "second 5 is taken"


def test_without_room_retries_are_random_and_not_later_than_the_longest() -> None:
    retries = RetrySchedule(1, Clock())
    for _ in range(LONGEST_RETRY_S):
        retries.reserve(1)
    later = {retries.reserve(1) for _ in range(2000)}
    assert min(later) >= 1
    assert max(later) <= LONGEST_RETRY_S
    assert len(later) > LONGEST_RETRY_S // 2


def test_an_estimate_beyond_the_longest_is_kept() -> None:
    assert RetrySchedule(1, Clock()).reserve(500) == 500


@given(st.lists(st.tuples(st.integers(1, 200), st.floats(0, 50)), max_size=400))
def test_no_client_is_told_to_retry_before_its_estimate(refusals: list[tuple[int, float]]) -> None:
    clock = Clock()
    retries = RetrySchedule(2, clock)
    for seconds, pause in refusals:
        assert seconds <= retries.reserve(seconds) <= max(seconds, LONGEST_RETRY_S)
        clock.now += pause


def test_the_memory_of_a_service_that_refuses_for_days_stays_bounded() -> None:
    clock = Clock()
    retries = RetrySchedule(2, clock)
    for second in range(20_000):
        clock.now = second
        retries.reserve(1)
    assert len(retries._retries) <= LONGEST_RETRY_S + 2
