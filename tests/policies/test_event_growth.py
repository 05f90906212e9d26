"""Growth of the work per event: at most n log n in every dimension."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ras_triage.models.decision import RecordGuestError, Translate
from ras_triage.models.observed import (
    ObservedAction,
    ObservedActions,
    ObservedMemoryFailure,
    ObservedMessage,
    ObservedOops,
    ObservedPanic,
    ObservedSignal,
    ObservedSoftOffline,
)
from ras_triage.policies.agreement import compare
from ras_triage.policies.catalog.policies import Policy, derive_policy
from ras_triage.policies.guest.guest_stage import MAX_SIZE
from ras_triage.policies.workload import TooMuchWork, require_workload, workload
from tests.growth import Counted, multiplies, operations, product, require_n_log_n, require_n_log_n_of_time
from tests.policies.shapes import BASE, FIRST, Shape, build, decide

DIMENSIONS = (
    "sections", "infos", "bare_sections", "other_sections", "pcie_sections", "mappings", "pages", "poisoned_pages", "tasks", "threads",
    "valid_ranges", "pci_devices", "recent", "vms", "vms_of_one_process", "dying_vms", "vcpus", "memslots", "aliases", "remembered",
)  # fmt: skip

INHERENT = (
    ("sections", "mappings"),
    ("infos", "mappings"),
    ("mappings", "remembered"),
    ("sections", "aliases"),
    ("infos", "aliases"),
    ("sections", "vms_of_one_process"),
    ("infos", "vms_of_one_process"),
)
"""Each page frame is a signal to each process that maps it, and each signal to a VM is translated in each of its address spaces."""

LIMIT = 2_000_000


def unlimited(base: str) -> Policy:
    """A policy that reads blocks of any length."""
    return derive_policy(
        f'name = "unlimited-{base}"\nbase = "{base}"\n[flags]\nblock_limited_to_buffer = false\npfn_left_to_memory_failure = false'
    )


BYSTANDER, CONSUMER = "bystander", "consumer"
CASES = {
    BYSTANDER: (unlimited("uniform"), {"current": {"pid": 99, "tid": 99}}),
    CONSUMER: (unlimited("linux-7.3.4"), {"current": {"pid": FIRST, "tid": FIRST}}),
}
"""The thread that was running: of a process that has nothing to do with the page, or of one that maps it. In both cases it handles all page
frames itself; the second kernel's guests meet poison at stage 2."""


def deciding(case: str, **sizes: int) -> Callable[[], object]:
    policy, facts = CASES[case]
    return decide(Shape(facts=facts, **sizes), policy)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_dimension_alone_grows_no_faster_than_n_log_n(dimension: str, case: str) -> None:
    require_n_log_n(lambda size: deciding(case, **{dimension: size}), small=32)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_it_does_not_in_time_either(dimension: str) -> None:
    small = 2048 if dimension == "mappings" else 128  # a tuple that grows takes long only where it is long
    require_n_log_n_of_time(lambda size: deciding(BYSTANDER, **{dimension: size}), small)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("one", DIMENSIONS)
def test_two_dimensions_do_not_multiply(one: str, case: str) -> None:
    others = [other for other in DIMENSIONS[DIMENSIONS.index(one) + 1 :] if (one, other) not in INHERENT]
    found = [other for other in others if multiplies(pairs(one, other, case))]
    assert found == [], f"{one} multiplies with"


@pytest.mark.parametrize("pair", INHERENT, ids=" ".join)
def test_those_do_of_which_every_pair_is_in_the_decision(pair: tuple[str, str]) -> None:
    assert product(pairs(*pair, BYSTANDER)) > 1


def pairs(one: str, other: str, case: str) -> Callable[[int, int], Callable[[], object]]:
    return lambda first, second: deciding(case, **{one: first, other: second})


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("one", DIMENSIONS)
def test_the_estimate_is_an_upper_one(one: str, case: str) -> None:
    """A step is a microsecond at most, and a microsecond is enough for a dozen lines."""
    policy, facts = CASES[case]
    for other in DIMENSIONS[DIMENSIONS.index(one) :]:
        sizes = dict.fromkeys((one, other), 20)
        sent, block = build(Shape(facts=facts, **sizes))
        steps = workload(sent, block, policy, known_poisoned=sizes.get("remembered", 0))
        assert operations(deciding(case, **sizes)) < 12 * (steps + sum(sizes.values())), other


@pytest.mark.parametrize("pair", [pair for pair in INHERENT if "mappings" in pair], ids=" ".join)
def test_what_multiplies_is_refused_above_the_limit(pair: tuple[str, str]) -> None:
    policy, _ = CASES[BYSTANDER]
    sent, block = build(Shape(**dict.fromkeys(pair, 150)))
    remembered = 150 if "remembered" in pair else 0
    require_workload(sent, block, LIMIT, policy, known_poisoned=remembered)
    sent, block = build(Shape(**dict.fromkeys(pair, 450)))
    with pytest.raises(TooMuchWork, match=r"45\d .* x 450 mappings of one page"):
        require_workload(sent, block, LIMIT, policy, known_poisoned=3 * remembered)


@pytest.mark.parametrize("pair", [pair for pair in INHERENT if "mappings" not in pair], ids=" ".join)
def test_the_guest_half_stops_at_its_own_limit(pair: tuple[str, str]) -> None:
    policy, facts = CASES[BYSTANDER]
    decision = decide(Shape(facts=facts, **dict.fromkeys(pair, 320)), policy)()
    told = [step for step in decision.plan if isinstance(step, (Translate, RecordGuestError))]
    assert 0 < sum(1 + len(step.ranges) if isinstance(step, Translate) else 1 for step in told) < MAX_SIZE + 320
    assert any("plan too long" in reason for reason in decision.reasons)


OBSERVED: dict[str, Callable[[int], ObservedAction]] = {
    "memory_failures": lambda index: ObservedMemoryFailure(index, "", (BASE >> 12) + index, "dirty LRU page", "recovered"),
    "soft_offlines": lambda index: ObservedSoftOffline(index, "", index, "failed"),
    "signals": lambda index: ObservedSignal(index, "", "SIGBUS", FIRST + index, "", None),
    "panics": lambda index: ObservedPanic(index, "", "ghes"),
    "oopses": lambda index: ObservedOops(index, "", 0),
    "notes": lambda index: ObservedMessage(index, "", "error_type"),
}


@pytest.mark.parametrize("kind", OBSERVED)
def test_what_a_kernel_said_and_what_was_decided_do_not_multiply(kind: str) -> None:
    def comparing(said: int, mapped: int) -> Callable[[], object]:
        policy, facts = CASES[BYSTANDER]
        decision = decide(Shape(facts=facts, sections=mapped, mappings=4), policy)()
        counted = replace(decision, plan=Counted(decision.plan), next_access=Counted(decision.next_access))
        observed = ObservedActions(**{kind: tuple(OBSERVED[kind](index) for index in range(said))})  # type: ignore[arg-type]
        return lambda: compare(observed, counted)

    assert not multiplies(comparing)


def test_a_comparison_lists_a_few_steps_of_very_many() -> None:
    policy, facts = CASES[BYSTANDER]
    decision = decide(Shape(facts=facts, mappings=100), policy)()
    said = ObservedSignal(1, "", "SIGBUS", 5, "", None)
    (compared,) = compare(ObservedActions(signals=(said,)), decision).comparisons
    assert compared.decided.startswith("SIGBUS to 1000, SIGBUS to 1001, ")
    assert compared.decided.endswith(", and 184 more")
