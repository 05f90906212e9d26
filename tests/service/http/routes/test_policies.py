"""Policies over HTTP."""

from __future__ import annotations

from typing import Any

from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.choice import load_policy
from ras_triage.policies.catalog.policies import flag_differences, resolve_policy, uniform_policy
from ras_triage.service.config.settings import Settings
from tests.service.support.application import Call, caller


def test_the_list_has_uniform_and_every_release_that_changed_something(call: Call) -> None:
    listed = call("GET", "/v1/policies").json()

    entries = {entry["name"]: entry for entry in listed["policies"]}
    assert listed["default"] == "uniform"
    assert list(entries)[:2] == ["uniform", "linux-5.10.209"]
    assert entries["linux-6.1.164"]["brings"] == ["sea_kills_when_nothing_queued"]
    assert entries["linux-6.12.24"]["drops"] == ["hugetlb_tail_not_collected"]
    assert all(entry["digest"] == resolve_policy(name).digest for name, entry in entries.items())


def test_the_list_has_the_operators_own_policies() -> None:
    custom = {"ours": load_policy('name = "ours"\nbase = "uniform"', ())}
    listed = caller(Settings(custom["ours"], custom))("GET", "/v1/policies").json()

    assert listed["default"] == "ours"
    assert [entry["name"] for entry in listed["policies"]][:2] == ["uniform", "ours"]


def test_a_policy_shows_every_flag_with_its_history(call: Call) -> None:
    page = call("GET", "/v1/policies/linux-6.1.170").json()

    flags: dict[str, dict[str, Any]] = {flag["flag"]: flag for flag in page["flags"]}
    assert tuple(flags) == FLAGS
    kills = flags["sea_kills_when_nothing_queued"]
    assert kills["value"] is True
    assert kills["since"] == "6.1.164"
    assert kills["mirrors"] == "ghes_do_proc"
    assert kills["summary"]
    assert kills["evidence"] == "recorded"
    assert (flags["sdei_always_built"]["evidence"], flags["worst_section_panics"]["evidence"]) == ("read", None)


def test_a_policy_has_no_evidence_for_what_it_sets_itself() -> None:
    custom = {"ours": load_policy('name = "ours"\nbase = "linux-7.3.4"\n[flags]\nkernel_owned_type = false\n', ())}
    page = caller(Settings(custom["ours"], custom))("GET", "/v1/policies/ours").json()

    evidence = {flag["flag"]: flag["evidence"] for flag in page["flags"]}
    assert (evidence["kernel_owned_type"], evidence["get_hwpoison_page_type"]) == (None, "recorded")


def test_a_release_that_nobody_read_says_what_is_inferred(call: Call) -> None:
    flags = {flag["flag"]: flag for flag in call("GET", "/v1/policies/linux-6.18.40").json()["flags"]}
    assert flags["queued_accumulates"]["evidence"] == "inferred"
    assert flags["arm_error_type_bitmask"]["evidence"] == "read"


def test_a_policy_without_its_stable_release_says_so(call: Call) -> None:
    page = call("GET", "/v1/policies/linux-6.1.0-50-cloud-arm64").json()

    assert page["name"] == "linux-6.1.x"
    assert "unknown" in page["notes"][0]


def test_every_series_has_a_page(call: Call) -> None:
    listed = call("GET", "/v1/policies").json()["policies"]
    releases = [resolve_policy(entry["name"]).release for entry in listed]
    series = {f"linux-{release.major}.{release.minor}.x" for release in releases}

    assert {"linux-5.10.x", "linux-6.12.x", "linux-7.3.x"} < series
    assert {name: call("GET", f"/v1/policies/{name}").status_code for name in series} == dict.fromkeys(series, 200)


def test_a_difference_has_exactly_the_flags_that_differ(call: Call) -> None:
    answer = call("GET", "/v1/policies/linux-6.1.100/diff/linux-6.1.192").json()

    one, other = resolve_policy("linux-6.1.100"), resolve_policy("linux-6.1.192")
    assert {flag["flag"]: (flag["a"], flag["b"]) for flag in answer["differs"]} == flag_differences(one, other)
    assert answer["a"] == {"name": one.name, "digest": one.digest}
    assert call("GET", "/v1/policies/uniform/diff/uniform").json()["differs"] == []


def test_a_policy_that_is_uniform_is_one_object() -> None:
    assert resolve_policy("uniform") is uniform_policy()
