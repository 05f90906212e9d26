"""Comparison of a decision with a kernel log."""

from __future__ import annotations

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats.kernel_log.actions import read_action
from ras_triage.models.observed import AssumedField, ObservedActions, ObservedMemoryFailure, ObservedPanic, ObservedSignal, group_actions
from ras_triage.policies.agreement import compare
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide

RELEASE = "linux-6.12.107"
PAGE = {"physical_address": "0x45678000", "state": "anonymous", "dirty": True, "mappings": [{"pid": 103, "address": "0xffff897d5000"}]}


def decided(severity="recoverable", **host):
    section = {"type": "memory", "severity": severity, "physical_address": "0x45678000"}
    return decide(
        Event.model_validate(
            {
                "notification": "gsiv",
                "status_block": {"severity": severity, "sections": [section]},
                "host": {"page_size": 4096, "sysctl": {}, "valid_ranges": [{"start": 0, "size": "0x80000000"}], "tasks": []} | host,
            }
        ),
        resolve_policy(RELEASE),
    )


def seen(text):
    item = read_action(text, 9)
    assert item is not None
    return group_actions([item])


def test_a_page_that_was_handled_as_planned_agrees():
    agreement = compare(seen("Memory failure: 0x45678: recovery action for dirty LRU page: Recovered"), decided(pages=[PAGE]))
    assert agreement.verdict == "agree"
    assert agreement.comparisons[0].decided == "dirty LRU page: recovered"


def test_a_page_that_was_handled_otherwise_differs_and_says_how():
    agreement = compare(seen("Memory failure: 0x45678: recovery action for dirty LRU page: Failed"), decided(pages=[PAGE]))
    assert agreement.verdict == "differ"
    assert agreement.differences[0].observed.endswith("Failed")
    assert agreement.differences[0].decided == "dirty LRU page: recovered"


def test_a_difference_that_an_assumed_page_may_explain_tells_nothing():
    agreement = compare(seen("Memory failure: 0x45678: recovery action for free buddy page: Recovered"), decided())
    assert agreement.verdict == "cannot_tell"
    assert agreement.comparisons[0].because == "the decision depends on an assumption about `host.pages`"


def test_a_page_that_was_handled_though_nothing_was_planned_differs():
    agreement = compare(seen("Memory failure: 0x45678: recovery action for dirty LRU page: Recovered"), decided("corrected"))
    assert agreement.verdict == "differ"


def test_a_signal_tells_nothing_where_the_notification_was_assumed():
    line = seen("Memory failure: 0x45678: Sending SIGBUS to qemu:999 due to hardware memory corruption")
    decision = decided("corrected")
    assert compare(line, decision).verdict == "differ"
    assert compare(line, decision, [AssumedField("/notification/type", "gsiv", "not told")]).verdict == "cannot_tell"


@pytest.mark.parametrize(("severity", "verdict"), [("fatal", "agree"), ("recoverable", "differ")])
def test_a_panic_agrees_with_a_planned_one(severity, verdict):
    assert compare(seen("Kernel panic - not syncing: GHES: Fatal hardware error"), decided(severity, pages=[PAGE])).verdict == verdict


def test_a_line_that_is_missing_is_no_evidence():
    for decision in (decided("fatal"), decided(pages=[PAGE])):
        assert compare(None, decision).verdict == "cannot_tell"
        assert compare(ObservedActions(), decision).verdict == "cannot_tell"


def test_a_panic_for_another_reason_tells_nothing():
    assert compare(seen("Kernel panic - not syncing: VFS: Unable to mount root fs"), decided()).verdict == "cannot_tell"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0x45678: Sending SIGBUS to dev:mem:7 due to hardware memory corruption", ObservedSignal),
        ("Memory failure: 0x45678: forcibly killing x:7 because of failure to unmap corrupted page", ObservedSignal),
        ("Memory failure: 0x45678: recovery action for get hwpoison page: Ignored", ObservedMemoryFailure),
        ("Kernel panic - not syncing: Memory failure on page 45678", ObservedPanic),
    ],
)
def test_what_a_line_says_is_told_by_its_form(text, kind):
    assert isinstance(read_action(text, 1), kind)
