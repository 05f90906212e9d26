"""Choice of the policy for an event."""

from __future__ import annotations

import pytest

from ras_triage.models.event import Event
from ras_triage.policies.catalog.change_points import change_points, newest_linux_policy
from ras_triage.policies.catalog.choice import choose_policy, find_policy, load_policy
from ras_triage.policies.catalog.policies import (
    NEWEST_SERIES,
    OLDEST,
    InvalidPolicy,
    UnknownPolicy,
    change_ledger,
    flag_differences,
    linux_policy,
    resolve_policy,
    uniform_policy,
)
from ras_triage.policies.catalog.release import Release
from ras_triage.policies.decide import decide

OURS = {"ours": load_policy('name = "ours"\nbase = "uniform"', ())}


@pytest.mark.parametrize(
    ("event", "name"),
    [
        ({}, "uniform"),
        ({"host": {"kernel": "6.12.107+deb13-arm64"}}, "linux-6.12.107"),
        ({"host": {"kernel": "6.12.107"}, "policy": "linux-7.3.4"}, "linux-7.3.4"),
        ({"policy": "ours"}, "ours"),
    ],
)
def test_the_event_outranks_its_kernel_and_the_kernel_the_default(event: dict[str, object], name: str) -> None:
    assert choose_policy(Event.model_validate({"notification": "sea", **event}), uniform_policy(), OURS).name == name


@pytest.mark.parametrize("name", ["linux-6.12.107", "linux-v6.12.107", "v6.12.107", "6.12.107", "6.12.107+deb13-arm64"])
def test_a_release_has_one_policy_however_it_is_written(name: str) -> None:
    assert resolve_policy(name) is resolve_policy("linux-6.12.107")
    event = Event.model_validate({"notification": "sea", "host": {"kernel": name}})
    assert choose_policy(event, uniform_policy(), OURS) is resolve_policy("linux-6.12.107")


@pytest.mark.parametrize("name", ["linux-6.12", "linux-v6.12", "6.12", "v6.12", "6.12.x", "6.12-arm64", "6.12.0-50-cloud-arm64"])
def test_a_series_without_its_stable_release_is_the_series(name: str) -> None:
    policy = resolve_policy(name)
    assert (policy.name, policy.digest) == ("linux-6.12.x", resolve_policy("linux-6.12.x").digest)
    event = Event.model_validate({"notification": "sea", "host": {"kernel": name}})
    decision = decide(event, choose_policy(event, uniform_policy(), OURS))
    assert (decision.policy.name, decision.certainty) == ("linux-6.12.x", "depends")
    assert decision.reasons == ("stable release of 6.12.x unknown: every backport of the series assumed present",)


@pytest.mark.parametrize("name", ["linux-6.12.0", "6.12.0", "v6.12.0", "6.12-rc3", "6.12.0-rc3", "6.12~rc7"])
def test_the_first_release_of_a_series_and_its_candidates_are_named_with_their_zero(name: str) -> None:
    assert resolve_policy(name).name == "linux-6.12.0"
    assert resolve_policy(name).unknowns == ()


@pytest.mark.parametrize("name", ["linux-linux-6.12", "vv6.12", "linux-6", "linux-uniform", "linux6.12"])
def test_what_is_no_release_is_refused(name: str) -> None:
    with pytest.raises(UnknownPolicy):
        resolve_policy(name)


@pytest.mark.parametrize("name", ["linux-5.4", "linux-5.4.x", "linux-5.4.3-foo", "v5.4.3"])
def test_a_refused_release_is_not_suggested(name: str) -> None:
    with pytest.raises(UnknownPolicy, match=r"is older than the change ledger; expected `linux-5\.10\.209` or later$"):
        find_policy(name, OURS)


def test_the_release_in_a_misspelt_policy_is_suggested() -> None:
    with pytest.raises(UnknownPolicy, match=r"; did you mean `linux-6\.12\.107`\?$"):
        find_policy("lnux-6.12.107", OURS)


@pytest.mark.parametrize("kernel", ["4.4.65-bex01a", "4.14.0", "5.1.0-rc3", "5.10.208", "4.19.x"])
def test_a_kernel_older_than_the_ledger_is_decided_as_the_oldest_known_and_says_so(kernel: str) -> None:
    event = Event.model_validate({"notification": "sei", "host": {"kernel": kernel}})
    policy = choose_policy(event, uniform_policy(), OURS)
    assert policy is choose_policy(event, uniform_policy(), OURS)  # caches compare policies by identity
    assert (policy.name, policy.digest) == (f"linux-{OLDEST}", linux_policy(OLDEST).digest)
    decision = decide(event, policy)
    assert decision.certainty == "depends"
    assert "older than 5.10.209, the oldest release analysed" in decision.reasons[0]
    assert "host.kernel" in {assumption.fact for assumption in decision.assumptions}


def test_the_oldest_release_itself_is_certain() -> None:
    policy = choose_policy(Event.model_validate({"notification": "sei", "host": {"kernel": "5.10.209"}}), uniform_policy(), OURS)
    assert policy.unknowns == ()


def test_the_newest_linux_policy_has_all_changes_of_the_newest_series() -> None:
    newest = newest_linux_policy().release
    assert newest.series == NEWEST_SERIES
    assert all(release <= newest for change in change_ledger() for release in change.stable if release.series == NEWEST_SERIES)


def test_the_newest_linux_policy_numbers_arm_error_types_as_asked() -> None:
    assert newest_linux_policy("uefi-2.10") is newest_linux_policy()
    legacy = newest_linux_policy("legacy")
    assert not legacy.behaviours.arm_error_type_bitmask
    assert all(policy.behaviours.arm_error_type_bitmask for policy in change_points() if policy.release > legacy.release)


def test_a_kernel_is_never_one_of_the_operators_own_policies() -> None:
    with pytest.raises(UnknownPolicy):
        choose_policy(Event.model_validate({"notification": "sea", "host": {"kernel": "ours"}}), uniform_policy(), OURS)


@pytest.mark.parametrize("name", ["uniform", "linux-6.12.107", "ours"])
def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(InvalidPolicy, match="already in use"):
        load_policy(f'name = "{name}"\nbase = "uniform"', ["ours"])


def test_every_release_behaves_like_the_change_point_before_it() -> None:
    marks = [policy.release for policy in change_points()]
    series = [(5, minor) for minor in range(10, 20)] + [(6, minor) for minor in range(20)] + [(7, minor) for minor in range(4)]
    for major, minor in series:
        for patch in range(OLDEST.patch or 0 if (major, minor) == OLDEST.series else 0, 260, 3):
            release = Release(major, minor, patch)
            own = [mark for mark in marks if mark.series == release.series and mark <= release]
            mainline = [mark for mark in marks if mark.series < release.series and (mark.patch == 0 or mark == OLDEST)]
            assert flag_differences(linux_policy(release), linux_policy(max(own or mainline))) == {}, release
    assert series[-1] == NEWEST_SERIES


def test_change_points_are_policies_of_the_catalogue() -> None:
    assert all(resolve_policy(policy.name) is policy for policy in change_points())
