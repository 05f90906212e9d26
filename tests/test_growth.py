"""The test of the tests: growth that is planted is seen, and growth that is harmless is not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product as pairs

import pytest

from tests.growth import Counted, multiplies, operations, product, require_n_log_n, require_n_log_n_of_time, square, squares

HERE = (__file__,)


def linear(size: int) -> Callable[[], object]:
    return lambda: [number * 2 for number in range(size)]


def sorting(size: int) -> Callable[[], object]:
    def merge_sort(numbers: list[int]) -> list[int]:
        if len(numbers) < 2:
            return numbers
        half = len(numbers) // 2
        one, other = merge_sort(numbers[:half]), merge_sort(numbers[half:])
        merged = []
        while one and other:
            merged.append(one.pop() if one[-1] > other[-1] else other.pop())
        return one + other + merged[::-1]

    return lambda: merge_sort([number * 7919 % size for number in range(size)])


def loop_in_a_loop(size: int) -> Callable[[], object]:
    return lambda: [one for one in range(size) if any(other == -1 for other in range(size))]


def search_in_a_loop(size: int) -> Callable[[], object]:
    sequence = Counted(range(size))
    return lambda: [one for one in range(size) if -one - 1 in sequence]


def growing_tuple(size: int) -> Callable[[], object]:
    def grow() -> tuple[int, ...]:
        grown: tuple[int, ...] = ()
        for number in range(size):
            grown += (number,)
        return grown

    return grow


@pytest.mark.parametrize("build", [linear, sorting])
def test_growth_of_n_log_n_passes(build: Callable[[int], Callable[[], object]]) -> None:
    require_n_log_n(build, own=HERE)


@pytest.mark.parametrize("build", [loop_in_a_loop, search_in_a_loop])
def test_a_planted_square_is_caught_by_counting(build: Callable[[int], Callable[[], object]]) -> None:
    with pytest.raises(AssertionError, match="times as many"):
        require_n_log_n(build, small=16, own=HERE)


def test_a_planted_square_that_runs_no_line_of_its_own_is_caught_by_its_time() -> None:
    require_n_log_n(growing_tuple, own=HERE)
    with pytest.raises(AssertionError, match="s for"):
        require_n_log_n_of_time(growing_tuple, 1024)


def test_a_product_of_two_dimensions_is_caught_and_a_sum_is_none() -> None:
    def summed(one: int, other: int) -> Callable[[], object]:
        return lambda: [*(number for number in range(one)), *(number for number in range(other))]

    def multiplied(one: int, other: int) -> Callable[[], object]:
        return lambda: [pair for pair in pairs(range(one), range(other)) if pair]

    def searched(one: int, other: int) -> Callable[[], object]:
        sequence = Counted(range(other))
        return lambda: [number for number in range(one) if -number - 1 in sequence]

    assert product(summed, own=HERE) == 0
    assert product(multiplied, own=HERE) >= 1
    assert product(searched, own=HERE) >= 1


@pytest.mark.parametrize("build", [loop_in_a_loop, search_in_a_loop])
def test_a_square_is_caught_in_few_elements(build: Callable[[int], Callable[[], object]]) -> None:
    assert squares(build, HERE)
    assert square(build, own=HERE) >= 1


def test_what_grows_evenly_is_no_square_even_where_it_begins_late() -> None:
    def late(size: int) -> Callable[[], object]:
        return lambda: [number for number in range(max(0, size - 30)) for _ in range(50)]

    assert not squares(linear, HERE)
    assert square(late, own=HERE) > 1
    assert not squares(late, HERE)


def test_as_many_as_the_shorter_dimension_has_are_no_product() -> None:
    def paired(one: int, other: int) -> Callable[[], object]:
        return lambda: [pair for pair in zip(range(one), range(other), strict=False) for _ in range(50)]

    assert product(paired, own=HERE) > 1
    assert not multiplies(paired, HERE)


def test_counts_are_the_same_each_time() -> None:
    assert operations(sorting(100), HERE) == operations(sorting(100), HERE) > 100
