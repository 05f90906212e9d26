"""Agreement with booted kernels, and digests pinned to the rules' version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import pytest
from pydantic import TypeAdapter

from ras_triage.models.decision import Decision
from ras_triage.models.event import Event
from ras_triage.policies.alternatives import ARM_ERROR_TYPES, NOTIFICATION_TYPE
from ras_triage.policies.catalog.policies import RULES, resolve_policy
from ras_triage.policies.decide import decide
from tests.policies.agreement import at_next_access, at_notification
from tests.policies.vectors import cases, name_of, recordings

FILES = [path for kind in ("linux", "random", "hard", "steps") for path in recordings(kind)]
NAMES = [name_of(path) for path in FILES]
RELEASES = {"5.10.223", "6.1.176", "6.12.43", "6.12.107", "6.12.118", "6.16.3", "6.17.8", "7.3.4"}

DISAGREEING: Final[dict[str, dict[str, str]]] = {
    # A worker's action-optional signal was handled first. SIGBUS is masked in its handler, so the forced SIGBUS that followed found it
    # blocked, was reset to its default (force_sig_info_to_task) and ended the process. On 6.12.107 the case shows both.
    "random-6.1.176": {"rnd-100017": "the process died before it could report"},
}
"""Recorded cases that are decided otherwise, and why, for each file. A case that agrees must leave the list."""


class Digests(NamedTuple):
    """SHA-256 over the decisions of all recordings: under the recorded kernel, and under `uniform` with its sender's assumptions."""

    decisions: str
    """Without the policies' own digests, which change with every new flag."""
    effects: str
    """Without texts for people as well."""


DIGESTS: Final = {
    3: Digests(
        "6e35b7982cff12fe560c31842dbdc08f1c23870565c6b2567dee1a655011b51a",
        "c43aa00fe25f668820b4fbb2014c7b590b670c2b0f2132da454ac61be35671dc",
    ),
    4: Digests(
        "877709a4d4059310e4efce7f0d74bfdf79a4b0015f0b26f8ef77c40436a89fb3",
        "c43aa00fe25f668820b4fbb2014c7b590b670c2b0f2132da454ac61be35671dc",
    ),  # words alone
    5: Digests(
        "ab4e8d3575ddfc698e75b0876588872e2d0bab90e3bdb98d9c53696059b03f52",
        "e8b9d2692d6bee013f12f55027bd53afb6c2b8375132d860297522ed7f53be4c",
    ),
}
"""For each version of the rules (`RULES`). Decisions changed? Raise `RULES`, and add the new version's digests here."""

TEXT_FIELDS: Final = frozenset({"outcome", "assumed", "detail", "what", "why", "malformed"})
"""Members with a text for people, and what an oops says as its cause."""


class Recorded(NamedTuple):
    """A recorded case, and its decision under the kernel that was recorded."""

    case: dict[str, Any]
    decision: Decision


class Recordings(NamedTuple):
    """All recorded cases."""

    files: dict[str, list[Recorded]]
    digests: Digests


@pytest.fixture(scope="module")
def recorded_cases() -> Recordings:
    files: dict[str, list[Recorded]] = {}
    every: list[Decision] = []
    uniform, assumed = resolve_policy("uniform"), frozenset({ARM_ERROR_TYPES, NOTIFICATION_TYPE})
    for path in FILES:
        files[name_of(path)] = []
        for case in cases(path):
            event = Event.model_validate(case["event"])
            decision = decide(event, resolve_policy(f"linux-{event.host.kernel}"))
            files[name_of(path)].append(Recorded(case, decision))
            every += (decision, decide(event, uniform, assumed))
    return Recordings(files, digests_of(every))


def digests_of(decisions: Iterable[Decision]) -> Digests:
    adapter = TypeAdapter(Decision)
    whole, effects = hashlib.sha256(), hashlib.sha256()
    for decision in decisions:
        content = adapter.dump_python(decision, mode="json")
        del content["policy"]["digest"]
        whole.update(json.dumps(content, sort_keys=True).encode())
        effects.update(json.dumps(without_texts(content), sort_keys=True).encode())
    return Digests(whole.hexdigest(), effects.hexdigest())


def without_texts(content: Any, name: str = "") -> Any:
    """The same JSON value with an empty string for each text."""
    if isinstance(content, dict):
        is_oops = content.get("kind") == "oops"
        return {member: "" if is_oops and member == "cause" else without_texts(part, member) for member, part in content.items()}
    if isinstance(content, list):
        return ["" for _ in content] if name == "reasons" else [without_texts(part) for part in content]
    return "" if name in TEXT_FIELDS else content


@pytest.mark.parametrize("name", NAMES)
def test_decisions_agree_with_what_the_booted_kernel_did(name: str, recorded_cases: Recordings) -> None:
    recorded = recorded_cases.files[name]
    assert len(recorded) > 30
    disagreements = {}
    for case, decision in recorded:
        wrong = at_notification(decision, case["observed"]) + at_next_access(decision, case["observed"])
        if wrong:
            disagreements[case["id"]] = wrong
    assert set(disagreements) == set(DISAGREEING.get(name, ())), disagreements


def test_the_one_case_that_disagrees_misses_only_the_signal_that_ended_the_process(recorded_cases: Recordings) -> None:
    case, decision = next(recorded for recorded in recorded_cases.files["random-6.1.176"] if recorded.case["id"] == "rnd-100017")
    assert case["observed"]["next_access"]["result"] == "gone"
    assert [wrong.partition(":")[0] for wrong in at_notification(decision, case["observed"])] == ["signals"]


def test_the_recorded_kernels_are_known() -> None:
    assert {name.rpartition("-")[2] for name in NAMES} == RELEASES
    assert set(DISAGREEING) < set(NAMES)


def test_decisions_change_only_with_the_version_of_the_rules(recorded_cases: Recordings) -> None:
    assert max(DIGESTS) == RULES
    assert recorded_cases.digests == DIGESTS[RULES], f"decisions changed: add 1 to RULES, and {recorded_cases.digests} to DIGESTS"
