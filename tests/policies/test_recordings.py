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
from tests.paths import VECTORS
from tests.policies.agreement import at_next_access, at_notification

FILES = sorted([*VECTORS.glob("linux-*.jsonl"), *VECTORS.glob("random-*.jsonl")])

DIED_BEFORE_IT_COULD_REPORT = {("6.1.176", "rnd-100017")}
"""A worker's action-optional signal was handled first. SIGBUS is masked in its handler, so the forced SIGBUS that followed found it
blocked, was reset to its default (force_sig_info_to_task) and ended the process before it could report. On 6.12.107 the case shows both."""


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
def recordings() -> Recordings:
    files: dict[str, list[Recorded]] = {}
    every: list[Decision] = []
    uniform, assumed = resolve_policy("uniform"), frozenset({ARM_ERROR_TYPES, NOTIFICATION_TYPE})
    for path in FILES:
        files[path.stem] = []
        for line in path.read_text(encoding="utf-8").splitlines():
            case = json.loads(line)
            event = Event.model_validate(case["event"])
            decision = decide(event, resolve_policy(f"linux-{event.host.kernel}"))
            files[path.stem].append(Recorded(case, decision))
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


@pytest.mark.parametrize("name", [path.stem for path in FILES])
def test_decisions_agree_with_what_the_booted_kernel_did(name: str, recordings: Recordings) -> None:
    recorded = recordings.files[name]
    assert len(recorded) > 300
    disagreements = {}
    for case, decision in recorded:
        wrong = at_notification(decision, case["observed"]) + at_next_access(decision, case["observed"])
        if wrong:
            disagreements[case["kernel"], case["id"]] = wrong
    assert set(disagreements) <= DIED_BEFORE_IT_COULD_REPORT, disagreements


def test_the_one_case_that_disagrees_misses_only_the_signal_that_ended_the_process(recordings: Recordings) -> None:
    case, decision = next(recorded for recorded in recordings.files["random-6.1.176"] if recorded.case["id"] == "rnd-100017")
    assert case["observed"]["next_access"]["result"] == "gone"
    assert [wrong.partition(":")[0] for wrong in at_notification(decision, case["observed"])] == ["signals"]


def test_four_kernels_are_recorded() -> None:
    assert {path.stem.partition("-")[2] for path in FILES} == {"5.10.223", "6.1.176", "6.12.107", "7.3.4"}


def test_decisions_change_only_with_the_version_of_the_rules(recordings: Recordings) -> None:
    assert max(DIGESTS) == RULES
    assert recordings.digests == DIGESTS[RULES], f"decisions changed: add 1 to RULES, and {recordings.digests} to DIGESTS"
