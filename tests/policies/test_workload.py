"""Workload estimate of an event, and its limit."""

from __future__ import annotations

from typing import Any

import pytest

from ras_triage.models.event import Event
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.workload import TooMuchWork, require_workload, workload
from tests.policies.events import ALL, PAGE, VA, arm, block, error_info, event, host, memory, other, page, sea

LIMIT = 2_000_000


def estimate(sent: Event, **more: Any) -> int:
    return workload(sent, None if sent.status_block is None else parse_block(sent.status_block), **more)


def mapped(count: int, **facts: Any) -> dict[str, Any]:
    return page("thp", *range(1000, 1000 + count), dirty=True, shift=21, **facts)


def many(sections: int, mappings: int, notification: str | dict[str, Any] | None = None, **facts: Any) -> Event:
    start = PAGE & -(1 << 21)
    return event(
        notification or sea(),
        block(*[memory(address=start + 4096 * index) for index in range(sections)]),
        host(mapped(mappings), arm_error_types="uefi-2.10", **facts),
    )


def test_an_ordinary_event_is_far_below_the_limit() -> None:
    assert 0 < estimate(event(sea(), block(memory()), host())) < LIMIT // 1000


def test_page_frames_and_the_mappings_of_a_page_multiply() -> None:
    small, large = estimate(many(50, 50)), estimate(many(200, 200))
    assert 14 * small < large < 17 * small


def test_what_is_above_the_limit_is_refused_with_its_two_factors() -> None:
    sent = many(430, 4000)
    with pytest.raises(TooMuchWork, match="430 page frames x 4000 mappings of one page") as caught:
        require_workload(sent, parse_block(sent.status_block or b""), LIMIT)
    assert [(factor.number, factor.pointer) for factor in caught.value.factors] == [(430, "/status_block"), (4000, "/host/pages")]
    assert caught.value.steps > caught.value.limit == LIMIT


def test_a_limit_that_is_reached_exactly_is_kept() -> None:
    sent = many(20, 20)
    steps = estimate(sent)
    require_workload(sent, parse_block(sent.status_block or b""), steps)
    with pytest.raises(TooMuchWork):
        require_workload(sent, parse_block(sent.status_block or b""), steps - 1)


def test_where_nobody_consumed_the_error_page_frames_are_no_more_than_the_queue_holds() -> None:
    assert estimate(many(400, 1000, "polled")) < LIMIT < estimate(many(400, 1000))


@pytest.mark.parametrize("name", ALL)
def test_a_kernel_without_task_work_queues_no_more_either(name: str) -> None:
    policy = resolve_policy(name)
    bounded = not policy.behaviours.action_required_in_task_work
    assert (estimate(many(400, 1000), policy=policy) < LIMIT) is bounded


def test_an_assumed_notification_may_have_been_an_abort() -> None:
    assert estimate(many(400, 1000, "polled"), assumed=frozenset({"/notification/type"})) > LIMIT


def test_error_infos_count_as_far_as_their_section_can_hold_them() -> None:
    one = estimate(event(sea(), block(arm(error_info(2))), host()))
    overstated = estimate(event(sea(), block(arm(error_info(2), count=65535)), host()))
    short = estimate(event(sea(), block(arm(*[error_info(2, length=1)] * 100, count=65535)), host()))
    assert one < overstated < short
    assert short > 30 * one


def test_what_is_not_told_of_an_event_makes_it_several_readings() -> None:
    data = block(arm(error_info(2)))
    told = estimate(event(sea(), data, host(page(dirty=True), arm_error_types="legacy")))
    untold = estimate(event(sea(), data, host(page(dirty=True))))
    assumed = estimate(event(sea(), data, host(page(dirty=True))), assumed=frozenset({"/notification/type"}))
    assert told < untold < assumed
    assert estimate(event(sea(), block(other()), host())) < told // 4


def test_pages_kept_as_poisoned_multiply_with_mappings() -> None:
    assert estimate(many(1, 4000), known_poisoned=1000) > LIMIT > estimate(many(1, 4000))


def test_the_guest_half_counts_ranges_and_stops_where_its_plan_does() -> None:
    slot = {"slot": 0, "guest_phys_addr": 0, "memory_size": 1 << 21, "userspace_addr": VA & -(1 << 21)}
    slots = [slot | {"as_id": number} for number in range(900)]
    few = many(10, 1, vms=[{"id": "a", "pid": 1000, "memslots": slots[:1]}])
    aliased = many(10, 1, vms=[{"id": "a", "pid": 1000, "memslots": slots}])
    assert estimate(many(10, 1)) < estimate(few) < estimate(aliased) < LIMIT
