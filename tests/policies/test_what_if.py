"""What-if: every reading of the unknown facts is in one condition, and the smallest change leads to another action."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from ras_triage.models.decision import Action, WhatIf
from ras_triage.models.event import Event
from ras_triage.models.host import PageState
from ras_triage.models.notification import NotificationType
from ras_triage.models.records.status_block import parse_block
from ras_triage.policies import what_if as module
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from ras_triage.policies.what_if import MAX_CHANGES, MAX_READINGS, what_if
from ras_triage.policies.workload import TooMuchWork
from tests.policies.events import CORRECTED, L73, L510, L612, PAGE, PID, arm, block, error_info, event, host, memory, page, sea

LIMIT = 4_000_000
VAGUE = {"current": {"pid": PID, "tid": PID}}
"""The interrupted thread, and nothing else."""


def ask(given: Event, policy: str = L612, limit: int = LIMIT) -> WhatIf:
    found = None if given.status_block is None else parse_block(given.status_block)
    return what_if(given, found, resolve_policy(policy), limit)


def bare(notification: str, data: bytes, facts: dict[str, Any], **more: Any) -> Event:
    return Event.model_validate({"notification": notification, "status_block": data, "host": facts, **more})


def test_an_event_that_says_everything_has_one_reading() -> None:
    found = ask(event(sea(), block(memory()), host(page(dirty=True))))
    assert (found.action, found.unknown, found.readings) == (Action.SIGNAL, (), 1)
    assert [(condition.when, condition.action) for condition in found.conditions] == [({}, Action.SIGNAL)]


def test_the_unknown_facts_are_named_with_all_their_readings() -> None:
    data = block(memory(), arm(error_info(2)))
    found = ask(bare("gpio", data, VAGUE, assumed=["/notification/type"]))
    readings = {unknown.fact: unknown.readings for unknown in found.unknown}
    assert list(readings) == [
        "notification",
        "host.arm_error_types",
        "page",
        "task.mce_kill",
        "host.sysctl.vm.memory_failure_early_kill",
    ]
    assert {name.partition(" ")[0] for name in readings["notification"]} == {kind.value for kind in NotificationType}
    assert {name.partition(" ")[0] for name in readings["page"]} == {state.value for state in PageState} - {"unknown"}
    assert found.readings == MAX_READINGS == 15 * 3 * len(readings["page"]) * 3 * 2


@pytest.mark.parametrize("policy", [L510, L612, L73, "uniform"])
@pytest.mark.parametrize("notification", ["sea", "gpio"])
def test_every_reading_is_in_exactly_one_condition(policy: str, notification: str) -> None:
    found = ask(bare(notification, block(memory()), VAGUE, assumed=["/notification/type"]), policy)
    facts = {unknown.fact: unknown.readings for unknown in found.unknown}
    covering = [
        [condition for condition in found.conditions if all(reading[name] in values for name, values in condition.when.items())]
        for reading in (dict(zip(facts, values, strict=True)) for values in product(*facts.values()))
    ]
    assert {len(conditions) for conditions in covering} == {1}
    assert sum(condition.readings for condition in found.conditions) == found.readings == len(covering)


@pytest.mark.parametrize("policy", [L510, L612, L73])
def test_a_condition_has_the_action_that_is_decided_when_its_facts_are_known(policy: str) -> None:
    found = ask(bare("sea", block(memory()), VAGUE), policy)
    actions = {reading: condition.action for condition in found.conditions for reading in condition.when.get("page", ())}
    assert set(actions.values()) == {Action.HANDLED, Action.SIGNAL}
    for reading, action in actions.items():
        state, _, dirty = reading.partition(" ")
        fact = {"physical_address": PAGE, "state": state, "mappings": [{"pid": PID, "address": PAGE}]}
        facts = VAGUE | {"pages": [fact | ({"dirty": dirty == "dirty"} if dirty else {})]}
        assert decide(bare("sea", block(memory()), facts), resolve_policy(policy)).action is action, reading


def test_a_fact_that_does_not_matter_is_in_no_condition() -> None:
    found = ask(bare("sea", block(memory()), VAGUE))
    assert {name for condition in found.conditions for name in condition.when} == {"page"}


def test_a_page_of_known_state_is_only_asked_whether_it_is_dirty() -> None:
    found = ask(event(sea(), block(memory()), host(page("page_cache"))))
    assert [unknown.fact for unknown in found.unknown] == ["page.dirty"]
    assert {condition.when["page.dirty"]: condition.action for condition in found.conditions} == {
        ("true",): Action.SIGNAL,
        ("false",): Action.HANDLED,
    }


def test_the_numbering_of_error_types_matters_to_a_kernel_only_with_the_flag() -> None:
    given = event(sea(), block(arm(error_info(2))), host(page(dirty=True)))
    for policy, expected in ((L73, {"policy.flags.arm_error_types_heeded": ("true",)}), ("uniform", {})):
        found = ask(given, policy)
        assert [unknown.fact for unknown in found.unknown] == ["host.arm_error_types"]
        for condition in found.conditions:
            assert {name: values for name, values in condition.when.items() if name.startswith("policy")} == (
                expected if "host.arm_error_types" in condition.when else {}
            )


def test_the_smallest_change_is_one_of_an_unknown_fact_if_that_is_enough() -> None:
    change = ask(bare("sea", block(memory()), VAGUE)).smallest_change
    assert change is not None
    assert [(one.input, one.value) for one in change.changes] == [("page", "free")]
    assert change.action is Action.HANDLED


def test_the_smallest_change_leads_to_the_action_that_it_names() -> None:
    given = event("gpio", block(memory()), host(page(dirty=True)))
    change = ask(given).smallest_change
    assert change is not None
    assert [(one.input, one.value) for one in change.changes] == [("/host/tasks/0/mce_kill", "early")]
    early = [{"pid": PID, "mce_kill": "early"}]
    assert decide(event("gpio", block(memory()), host(page(dirty=True), tasks=early)), resolve_policy(L612)).action is change.action


def test_two_changes_are_tried_where_one_is_not_enough() -> None:
    given = event("nmi", block(memory(CORRECTED), severity=CORRECTED), host(page(dirty=True)))
    change = ask(given, L510).smallest_change
    assert change is not None
    assert [(one.input, one.value) for one in change.changes] == [("/notification/type", "polled"), ("/status_block/severity", "fatal")]
    assert change.action is Action.PANIC


def test_the_number_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = 0
    answer = module._answer

    def counted(*arguments: Any) -> Any:
        nonlocal decided
        decided += 1
        return answer(*arguments)

    monkeypatch.setattr(module, "_answer", counted)
    data = block(*[memory() for _ in range(8)], arm(error_info(2)))
    found = ask(bare("bert", data, VAGUE, assumed=["/notification/type"]), limit=1 << 40)
    assert found.readings == MAX_READINGS
    assert decided <= 1 + MAX_READINGS + len(found.conditions) + MAX_CHANGES + MAX_CHANGES**2 // 2


def test_the_work_of_all_readings_together_is_limited() -> None:
    given = bare("gpio", block(memory(), arm(error_info(2))), VAGUE, assumed=["/notification/type"])
    with pytest.raises(TooMuchWork):
        ask(given, limit=100_000)
