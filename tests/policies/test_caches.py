"""Memory limits of the caches between decisions."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import tracemalloc
from collections.abc import Callable, Iterator
from functools import _lru_cache_wrapper
from random import Random
from typing import Any

import pytest

from ras_triage import models, policies, service
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from tests.policies.events import PAGE, arm, block, error_info, event, host, memory, other, page, pcie, sea

ALL_CACHES = 48 << 20
"""Bytes that all caches of the rules may come to."""

CONSTANTS = {"_by_first_word", "requires"}
"""Caches without a limit: their keys are constants of the code."""


def caches(package: Any) -> Iterator[_lru_cache_wrapper[Any]]:
    """All caches of a package's modules, each once."""
    found = {}
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.endswith(("__main__", ".__init__")):
            continue
        module = importlib.import_module(info.name)
        found |= {id(one): one for one in vars(module).values() if isinstance(one, _lru_cache_wrapper) and one.__module__ == info.name}
    return iter(found.values())


def name(cache: _lru_cache_wrapper[Any]) -> str:
    return str(getattr(cache, "__name__", ""))


@pytest.mark.parametrize("package", [models, policies, service], ids=lambda package: package.__name__)
def test_every_cache_has_a_limit(package: Any) -> None:
    assert [name(one) for one in caches(package) if one.cache_parameters()["maxsize"] is None and name(one) not in CONSTANTS] == []


def kept(work: Callable[[], object]) -> int:
    """Bytes that some work leaves behind."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def various(count: int) -> None:
    """Decide events that share as little as events can, each under a policy of its own."""
    random = Random(11)
    for index in range(count):
        number = random.getrandbits(31) | 1 << 31
        sections = [
            memory(number, random.getrandbits(8)),
            arm(*[error_info(random.getrandbits(8)) for _ in range(64)]),
            arm(severity=number, size=index % 40),
            other(random.randbytes(16), number),
            pcie(number, index % 256, bus=index % 256),
        ]
        facts = host(page(random.choice(["thp", "hugetlb", "unknown", "dax", "slab"]), *range(index % 50), dirty=None), early=index % 2)
        facts["sysctl"] |= {"kernel.panic": number & 0x7FFFFFFF}
        data = block(*sections, severity=0 if index % 4 else number, raw=(number, number), tail=random.randbytes(8))
        decide(event(sea(error_block_length=1 << 31), data, facts), resolve_policy(f"linux-7.3.{index + 1}"))
        decide(event({**sea(), "type": "sdei", "syndrome": None}, block(*sections), facts), resolve_policy("uniform"))


def test_all_caches_together_stay_below_a_few_megabytes() -> None:
    known = [*caches(models), *caches(policies)]
    for cache in known:
        if ".catalog." not in cache.__module__:  # policies are compared by identity
            cache.cache_clear()
    various(2)
    before = sum(cache.cache_info().currsize for cache in known)
    size = kept(lambda: various(150))
    entries = sum(cache.cache_info().currsize for cache in known) - before
    assert entries > 400
    assert size / entries * sum(cache.cache_parameters()["maxsize"] or 0 for cache in known) < ALL_CACHES


def test_what_is_kept_of_a_decision_does_not_grow_with_the_processes_that_map_a_page() -> None:
    """The signals of all of them were kept: 21 MiB after 100 events with 8,000 mappings."""

    def deciding() -> None:
        for index in range(6):
            mapped = page("thp", *range(1000, 2000 + index), dirty=True)
            decide(event(sea(), block(memory(address=PAGE)), host(mapped, early=True)), resolve_policy("linux-7.3.4"))

    deciding()
    assert kept(deciding) < 24 << 10
