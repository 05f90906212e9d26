"""Closest known names in the problem of an invalid document."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ras_triage.service.api.event_json import read_event
from ras_triage.service.api.problems import Problem, ProblemError


def problem_of(event: dict[str, Any]) -> Problem:
    with pytest.raises(ProblemError) as refused:
        read_event(json.dumps({"notification": "sea", **event}).encode())
    return refused.value.problem


def block(**section: Any) -> dict[str, Any]:
    return {"status_block": {"severity": "recoverable", "sections": [{"type": "memory", **section}]}}


@pytest.mark.parametrize(
    ("event", "pointer", "near"),
    [
        ({"hots": {}}, "/hots", "host"),
        ({"notification": {"type": "sea", "syndrom": 1}}, "/notification/syndrom", "syndrome"),
        (block(phys_address="0x1"), "/status_block/sections/0/phys_address", "physical_address"),
        ({"status_block": {"severity": 0, "section": []}}, "/status_block/section", "sections"),
        ({"host": {"kernl": "6.12.107"}}, "/host/kernl", "kernel"),
        (
            {"host": {"sysctl": {"vm.memory_failure_early_kil": 1}}},
            "/host/sysctl/vm.memory_failure_early_kil",
            "vm.memory_failure_early_kill",
        ),
        ({"host": {"vms": [{"id": "a", "pid": 1, "vcpu": []}]}}, "/host/vms/0/vcpu", "vcpus"),
    ],
)
def test_an_unknown_field_is_answered_with_the_closest_one_that_its_object_has(event: dict[str, Any], pointer: str, near: str) -> None:
    (error,) = problem_of(event).errors
    assert (error.pointer, error.detail) == (pointer, f"unknown field; did you mean `{near}`?")


def test_a_field_of_another_object_or_section_type_is_not_suggested() -> None:
    assert [error.detail for error in problem_of({"host": {"syndrome": 1}}).errors] == ["unknown field"]
    (error,) = problem_of(block(mpidr_el=1)).errors  # of an arm_processor section
    assert error.detail == "unknown field"


@pytest.mark.parametrize(
    ("event", "end"),
    [
        ({"notification": "seax"}, "; did you mean `sea`?"),
        ({"notification": {"type": "sea", "taken_from": "gest"}}, "; did you mean `guest`?"),
        ({"host": {"pages": [{"physical_address": "0x1000", "state": "anonymus"}]}}, "; did you mean `anonymous`?"),
        ({"status_block": {"severity": "fatl"}}, "; did you mean `fatal`?"),
        ({"status_block": {"severity": 0, "sections": [{"type": "memry"}]}}, "; did you mean `memory`?"),
    ],
)
def test_an_unknown_value_is_answered_with_the_closest_valid_one(event: dict[str, Any], end: str) -> None:
    (error,) = problem_of(event).errors
    assert error.detail.endswith(end)


def test_many_long_unknown_fields_cost_no_more_than_a_few() -> None:
    event = block(**{f"physical_address_{'x' * 45}{number}": 1 for number in range(100)})
    problem_of(event)
    started = time.perf_counter()
    problem = problem_of(event)
    assert time.perf_counter() - started < 0.1
    assert len(problem.errors) == 100
