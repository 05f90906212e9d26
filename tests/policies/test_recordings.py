"""Agreement with booted kernels: every recorded case, at the notification and at the next access (tests/vectors/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from tests.policies.agreement import at_next_access, at_notification

VECTORS = Path(__file__).parent.parent / "vectors"
FILES = sorted([*VECTORS.glob("linux-*.jsonl"), *VECTORS.glob("random-*.jsonl")])

DIED_BEFORE_IT_COULD_REPORT = {("6.1.176", "rnd-100017")}
"""A worker's action-optional signal was handled first. SIGBUS is masked in its handler, so the forced SIGBUS that followed found it
blocked, was reset to its default (force_sig_info_to_task) and ended the process before it could report. On 6.12.107 the case shows both."""


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_decisions_agree_with_what_the_booted_kernel_did(path: Path) -> None:
    vectors = recorded(path)
    assert len(vectors) > 300
    disagreements = {}
    for vector in vectors:
        event = Event.model_validate(vector["event"])
        decision = decide(event, resolve_policy(f"linux-{event.host.kernel}"))
        wrong = at_notification(decision, vector["observed"]) + at_next_access(decision, vector["observed"])
        if wrong:
            disagreements[vector["kernel"], vector["id"]] = wrong
    assert set(disagreements) <= DIED_BEFORE_IT_COULD_REPORT, disagreements


def test_the_one_case_that_disagrees_misses_only_the_signal_that_ended_the_process() -> None:
    vector = next(vector for vector in recorded(VECTORS / "random-6.1.176.jsonl") if vector["id"] == "rnd-100017")
    assert vector["observed"]["next_access"]["result"] == "gone"
    decision = decide(Event.model_validate(vector["event"]), resolve_policy("linux-6.1.176"))
    assert [wrong.partition(":")[0] for wrong in at_notification(decision, vector["observed"])] == ["signals"]


def test_four_kernels_are_recorded() -> None:
    assert {path.stem.partition("-")[2] for path in FILES} == {"5.10.223", "6.1.176", "6.12.107", "7.3.4"}
