"""Evidence for the flags of a release."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import pytest

from ras_triage.models.decision import Evidence
from ras_triage.models.event import Event
from ras_triage.models.kvm import VcpuEvents
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.evidence import flag_evidence, series_evidence
from ras_triage.policies.catalog.policies import LedgerEntry, Policy, change_ledger, derive_policy, linux_policy, resolve_policy
from ras_triage.policies.catalog.release import Release, parse_release
from ras_triage.policies.decide import decide
from ras_triage.policies.guest.kvm import VcpuState, set_vcpu_events
from tests.policies.agreement import at_next_access, at_notification
from tests.policies.vectors import Case, cases, name_of, recordings

RECORDED, READ, INFERRED = Evidence.RECORDED, Evidence.READ, Evidence.INFERRED
HOW = {"changelog", "review", "cve", "vendor", "source", "recorded", "inferred"}
ENTRIES = [pytest.param(entry, id=entry.flag) for entry in change_ledger()]


def has(entry: LedgerEntry, release: Release) -> bool:
    return bool(getattr(linux_policy(release).behaviours, entry.flag))


# The data


@pytest.mark.parametrize("entry", ENTRIES)
def test_each_release_of_the_ledger_says_how_it_is_known(entry: LedgerEntry) -> None:
    assert set(entry.known_by) == {entry.mainline, *entry.stable, *entry.ended}
    assert set(entry.known_by.values()) <= HOW


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_was_read_and_recorded_agrees_with_the_ledger(entry: LedgerEntry) -> None:
    assert [release for release in (*entry.absent, *entry.recorded_off) if has(entry, release)] == []
    assert [release for release in entry.recorded_on if not has(entry, release)] == []


@pytest.mark.parametrize("entry", ENTRIES)
def test_releases_between_two_recorded_ones_that_agree_are_decided_alike(entry: LedgerEntry) -> None:
    for side, value in ((entry.recorded_off, False), (entry.recorded_on, True)):
        for first in side:
            for last in (known for known in side if known.series == first.series and known > first):
                between = range(first.patch or 0, last.patch or 0)
                assert {has(entry, Release(*first.series, patch)) for patch in between} == {value}


def test_every_recorded_release_is_listed_as_booted() -> None:
    booted = {release for series in series_evidence().values() for release in series.booted}
    assert {release for entry in change_ledger() for release in (*entry.recorded_off, *entry.recorded_on)} <= booted
    assert {parse_release(name_of(path).rpartition("-")[2]) for path in recordings("*")} <= booted


@lru_cache(maxsize=1)
def agreeing() -> dict[Release, list[tuple[Event, Case]]]:
    """The recorded cases of each release that are decided as they were recorded."""
    found: dict[Release, list[tuple[Event, Case]]] = {}
    for path in (path for kind in ("linux", "random", "hard", "steps") for path in recordings(kind)):
        release = parse_release(name_of(path).rpartition("-")[2])
        read = [(Event.model_validate(without_swap_state(case["event"])), case) for case in cases(path)]
        found.setdefault(release, []).extend((event, case) for event, case in read if agrees(event, case, linux_policy(release)))
    return found


def without_swap_state(event: dict[str, Any]) -> dict[str, Any]:
    """The event without the state that its recording found swapped-in pages in, which is the kernel's doing."""
    for page in event["host"].get("pages", ()):
        if page["state"] == "swap_cache":
            page.pop("dirty", None)
    return event


@lru_cache(maxsize=1)
def injections() -> dict[Release, list[Case]]:
    return {parse_release(name_of(path).rpartition("-")[2]): cases(path) for path in recordings("kvm")}


def agrees(event: Event, case: Case, policy: Policy) -> bool:
    decision = decide(event, policy)
    return not at_notification(decision, case["observed"]) and not at_next_access(decision, case["observed"])


def injected_alike(case: Case, policy: Policy) -> bool:
    events = VcpuEvents(**case["vcpu_events"] | {"serror_esr": int(case["vcpu_events"]["serror_esr"], 16)})
    done = set_vcpu_events(events, VcpuState(case["host_ras"], case["host_ras"], serror_masked=case["guest"] == "bare"), policy)
    seen = case["observed"]
    return done.errno == seen["errno"] and seen.get("guest_esr") in (None, done.guest_esr and f"{done.guest_esr:#x}")


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_recorded_value_is_one_that_a_recording_contradicts_if_it_is_changed(entry: LedgerEntry) -> None:
    for release in (*entry.recorded_off, *entry.recorded_on):
        value = str(not has(entry, release)).lower()
        changed = derive_policy(f'name = "changed"\nbase = "linux-{release}"\n[flags]\n{entry.flag} = {value}\n')
        if entry.flag.startswith("kvm_"):
            injected = injections().get(release, [])
            assert not injected or not all(injected_alike(case, changed) for case in injected), release
        else:
            events = agreeing().get(release, [])
            assert not events or not all(agrees(event, case, changed) for event, case in events), release


# What follows from it


@pytest.mark.parametrize(
    ("flag", "release", "evidence"),
    [
        # recorded, or between two recorded releases
        ("queued_accumulates", "6.12.118", RECORDED),
        ("queued_accumulates", "6.12.100", RECORDED),
        ("kill_accessing_names_base_page", "6.18.5", RECORDED),
        ("aer_without_state_oopses", "6.16.7", RECORDED),
        # a backport that was read, before and after
        ("queued_accumulates", "6.12.117", READ),
        ("queued_accumulates", "6.12.119", READ),
        ("already_poisoned_page_type", "6.16.8", READ),
        ("kill_accessing_absent_is_fine", "5.15.181", READ),
        ("kill_accessing_absent_is_fine", "5.15.180", READ),
        # a backport that nobody read; a later source shows that it is there
        ("sea_action_required", "5.15.149", INFERRED),
        ("sea_action_required", "5.15.150", INFERRED),
        ("sea_action_required", "5.15.198", READ),
        ("sea_action_required", "6.6.15", INFERRED),
        # a series without a backport, as far as it was read
        ("sea_precheck", "6.12.118", READ),
        ("sea_precheck", "6.12.119", INFERRED),
        ("sea_precheck", "6.1.192", READ),
        ("sea_precheck", "6.6.1", INFERRED),
        ("sea_precheck", "6.6.0", READ),
        ("queued_accumulates", "7.2.13", READ),
        ("queued_accumulates", "7.2.14", INFERRED),
        ("queued_accumulates", "6.18.40", INFERRED),
        # an end that was read, and one that nobody read
        ("hugetlb_tail_not_collected", "6.12.23", READ),
        ("hugetlb_tail_not_collected", "6.6.88", READ),
        ("kvm_abort_syndrome_sign_extended", "6.11.1", INFERRED),
        ("kvm_abort_syndrome_sign_extended", "6.11.2", INFERRED),
        ("kvm_abort_syndrome_sign_extended", "6.11.0", READ),
        ("kvm_abort_syndrome_sign_extended", "6.9.12", READ),
        ("kvm_abort_syndrome_sign_extended", "6.13.5", READ),
        # series whose stable release is not known, or that nobody has read
        ("sea_action_required", "6.1.x", INFERRED),
        ("sea_precheck", "6.1.x", INFERRED),
        ("kvm_runs_task_work", "6.1.x", READ),
        ("hugetlb_tail_not_collected", "6.12.x", INFERRED),
        ("hugetlb_tail_not_collected", "6.18.x", READ),
        ("kvm_runs_task_work", "7.4.0", INFERRED),
    ],
)
def test_a_flag_of_a_release_is_known_as_well_as_the_changes_around_it(flag: str, release: str, evidence: Evidence) -> None:
    assert flag_evidence(flag, parse_release(release)) is evidence


def test_principles_have_no_evidence() -> None:
    without = [flag for flag in FLAGS if flag_evidence(flag, parse_release("7.3.4")) is None]
    assert without == [flag for flag in FLAGS if flag not in {entry.flag for entry in change_ledger()}]
    assert resolve_policy("uniform").behaviours.worst_section_panics


def test_nothing_is_inferred_of_the_newest_releases_that_were_read() -> None:
    for release in ("5.10.262", "6.1.192", "6.12.118", "7.2.13", "7.3.4"):
        assert INFERRED not in Counter(flag_evidence(entry.flag, parse_release(release)) for entry in change_ledger())
