"""How work grows with its input: counted in operations of the project's own code, so that a machine's load changes nothing."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from math import log2
from time import process_time
from types import FrameType
from typing import Any, SupportsIndex

from tests.paths import ROOT

OWN = (f"{ROOT / 'ras_triage'}/",)

Work = Callable[[], object]
Builder = Callable[[int], Work]
"""Makes the work on an input of a size."""
PairBuilder = Callable[[int, int], Work]

SLACK = 1.5
"""By how much a count may grow faster than n log n: what is done once for small inputs is done in another way for large ones."""

LEAST = 0.2
"""Operations for each pair from which on two dimensions multiply."""


class Counter:
    """Operations so far."""

    total = 0


class Counted(tuple[Any, ...]):
    """A tuple that counts the elements that are looked at in it, also by `in`, which runs no line of Python."""

    def __iter__(self) -> Iterator[Any]:
        for element in super().__iter__():
            Counter.total += 1
            yield element

    def __contains__(self, wanted: object) -> bool:
        return any(element == wanted for element in self)

    def index(self, wanted: object, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize) -> int:
        Counter.total += len(self)
        return super().index(wanted, start, stop)


def operations(work: Work, own: tuple[str, ...] = OWN) -> int:
    """Return how many lines `work` runs in files below `own`, generators and comprehensions included, and elements of `Counted`."""

    def enter(frame: FrameType, _event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(own):
            return None
        Counter.total += 1
        return step

    def step(_frame: FrameType, _event: str, _argument: object) -> Any:
        Counter.total += 1
        return step

    before, Counter.total = sys.gettrace(), 0
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return Counter.total


def seconds(work: Work, rounds: int = 3) -> float:
    """Return the processor time that `work` takes, without that of the garbage collector: the least of some rounds."""
    found = []
    collects = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            began = process_time()
            work()
            found.append(process_time() - began)
    finally:
        if collects:
            gc.enable()
    return min(found)


def require_n_log_n(build: Builder, small: int = 64, factor: int = 16, own: tuple[str, ...] = OWN) -> None:
    """Fail where operations grow faster than n log n between `small` and `factor` times as much."""
    build(small * factor)()  # what is cached is there from now on
    first, second = operations(build(small), own), operations(build(small * factor), own)
    most = SLACK * factor * log2(small * factor) / log2(small)
    assert second <= most * first, f"{first} operations for {small}, {second} for {small * factor}: {second / first:.0f} times as many"


def require_n_log_n_of_time(build: Builder, small: int, factor: int = 16) -> None:
    """Fail where processor time grows much faster than n log n; for work that is done outside of Python, with a wide margin."""
    first, second = seconds(build(small)), seconds(build(small * factor), 2)
    most = 4 * factor * log2(small * factor) / log2(small)
    assert second <= most * max(first, 1e-4), f"{first} s for {small}, {second} s for {small * factor}"


def product(build: PairBuilder, small: int = 9, large: int = 21, own: tuple[str, ...] = OWN) -> float:
    """Return how many operations there are for each pair of elements of two dimensions that grow together.

    What depends on one of them alone cancels out; what is left belongs to both.
    """
    build(large, large)()  # what is cached is there from now on
    both, neither = operations(build(large, large), own), operations(build(small, small), own)
    one, other = operations(build(large, small), own), operations(build(small, large), own)
    return (both - one - other + neither) / (large - small) ** 2


def multiplies(build: PairBuilder, own: tuple[str, ...] = OWN) -> bool:
    """Return whether there are operations for each pair of elements of two dimensions.

    Where only as many elements count as the shorter dimension has, their share of all pairs falls as both grow.
    """
    found = product(build, own=own)
    return found > LEAST and product(build, 36, 84, own) > found / 2


def square(build: Builder, small: int = 16, own: tuple[str, ...] = OWN) -> float:
    """Return how many operations there are for each pair of elements of one dimension; what grows evenly cancels out."""
    build(small)()  # what is cached is there from now on
    one, two, three = (operations(build(times * small), own) for times in (1, 2, 3))
    return (three - 2 * two + one) / (2 * small**2)


def squares(build: Builder, own: tuple[str, ...] = OWN) -> bool:
    """Return whether there are operations for each pair of elements; where something begins or ends at a size, their share falls."""
    found = square(build, 4, own)
    return found > LEAST and square(build, 128, own) > found / 2
