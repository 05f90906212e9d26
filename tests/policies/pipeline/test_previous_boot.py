"""Records of the previous boot (BERT): printed, never processed."""

from __future__ import annotations

import pytest

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide

POLICIES = ("linux-5.10.209", "linux-6.12.107", "linux-7.3.4", "uniform")
BLOCK = {
    "severity": "fatal",
    "sections": [
        {"type": "memory", "severity": "fatal", "physical_address": "0x400a1000"},
        {"type": "arm_processor", "severity": "recoverable", "flags": ["containment_warning"]},
    ],
}
HOST = {
    "tasks": [{"pid": 103, "name": "victim", "mce_kill": "early"}],
    "pages": [{"physical_address": "0x400a1000", "state": "anonymous", "mappings": [{"pid": 103, "address": "0x1000"}]}],
}


def decided(policy, notification="bert", block=BLOCK):
    event = Event.model_validate({"notification": notification, "status_block": block, "host": HOST})
    return decide(event, resolve_policy(policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_record_of_the_previous_boot_is_printed_and_nothing_else_happens(policy):
    decision = decided(policy)
    assert (decision.action, decision.certainty) == ("handled", "certain")
    assert [step.kind for step in decision.plan] == ["log"]
    assert decision.next_access == ()
    assert [rule.rule for rule in decision.rationale] == ["admit.notification", "read.previous_boot"]
    assert [warning.code for warning in decision.warnings] == ["previous_boot"]
    assert "the machine had gone down" in decision.warnings[0].detail


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_record_of_this_boot_panics(policy):
    assert decided(policy, notification="gsiv").action == "panic"


def test_the_name_of_uefi_is_the_same_type():
    assert decided("uniform", notification="boot") == decided("uniform")
    assert decided("uniform", notification={"type": "boot"}) == decided("uniform")


@pytest.mark.parametrize(
    ("block", "why"),
    [(None, "empty"), ({**BLOCK, "block_status": 0}, "empty"), ("AQAAAAAAAAAAAAAACAAAAAAAAAAAAAAAAAAAAA==", "malformed record")],
)
def test_a_region_without_a_record_and_a_malformed_one_are_rejected(block, why):
    decision = decided("linux-6.12.107", block=block)
    assert (decision.action, [step.kind for step in decision.plan]) == ("handled", ["reject"])
    assert why in decision.plan[0].why
