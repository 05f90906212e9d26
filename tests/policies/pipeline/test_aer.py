"""AER recovery of the devices in a record."""

from __future__ import annotations

from typing import Any

import pytest

from ras_triage.models.decision import Decision, Oops, Panic, RecoverPcie
from tests.policies.events import CORRECTED, FATAL, L61, L510, block, decided, host, outcomes, pcie, steps

OOPSING = ("linux-6.16.0", "linux-6.16.12", "linux-6.17.7")
DEVICE = "0000:01:00.0"
INTEGRATED, ENDPOINT, ROOT_PORT = 9, 0, 4


def oopses(decision: Decision) -> list[str]:
    assert {step.context for step in steps(decision, Oops)} <= {"kworker"}
    return [step.cause.partition(":")[0] for step in steps(decision, Oops)]


def recovers(decision: Decision) -> list[bool]:
    return [step.recovers for step in steps(decision, RecoverPcie)]


def assumed(decision: Decision) -> set[str]:
    return {assumption.fact for assumption in decision.assumptions}


def of(policy: str, section: bytes, **facts: Any) -> Decision:
    return decided(policy, "polled", block(section, severity=CORRECTED), host(**facts))


@pytest.mark.parametrize("policy", OOPSING)
@pytest.mark.parametrize("section", [pcie(), pcie(CORRECTED)], ids=["nonfatal", "correctable"])
def test_a_device_without_an_aer_capability_ends_the_worker_and_nothing_else(policy: str, section: bytes) -> None:
    decision = of(policy, section, aer_devices=[])
    assert (decision.action.value, oopses(decision), recovers(decision)) == ("signal", ["pci_print_aer"], [False])
    assert outcomes(decision, "sections.pcie") == ["oops of the kernel worker: the device has no AER state"]
    assert decision.certainty == "certain"
    assert "host.aer_devices" not in assumed(decision)


@pytest.mark.parametrize("policy", ["linux-6.15.11", "linux-6.17.8", "linux-6.18.0", "linux-6.12.118"])
def test_other_releases_recover_it(policy: str) -> None:
    decision = of(policy, pcie(), aer_devices=[])
    assert (oopses(decision), recovers(decision)) == ([], [True])


@pytest.mark.parametrize("policy", OOPSING)
def test_a_device_with_an_aer_capability_is_recovered(policy: str) -> None:
    decision = of(policy, pcie(), aer_devices=["0000:02:00.0", DEVICE])
    assert (oopses(decision), recovers(decision)) == ([], [True])


@pytest.mark.parametrize("policy", OOPSING)
def test_a_fatal_report_is_not_rate_limited(policy: str) -> None:
    decision = of(policy, pcie(FATAL), aer_devices=[])
    assert (oopses(decision), recovers(decision)) == ([], [True])


@pytest.mark.parametrize("policy", OOPSING)
def test_a_device_that_is_gone_has_no_state_to_miss(policy: str) -> None:
    decision = of(policy, pcie(), aer_devices=[], pci_devices=[])
    assert (oopses(decision), recovers(decision)) == ([], [False])


def test_without_the_fact_only_ports_have_aer_and_the_decision_says_so_where_it_matters() -> None:
    for port_type, oopsed in ((ENDPOINT, ["pci_print_aer"]), (ROOT_PORT, [])):
        decision = of("linux-6.16.12", pcie(valid=0x89, port_type=port_type))
        assert (oopses(decision), "host.aer_devices" in assumed(decision)) == (oopsed, True)
    assert "host.aer_devices" not in assumed(of("linux-6.17.8", pcie()))
    assert "host.aer_devices" not in assumed(of("linux-6.16.12", pcie(FATAL)))


@pytest.mark.parametrize(
    ("policy", "section"), [("linux-6.17.7", pcie()), (L61, pcie(valid=0x89, bus=0, port_type=ENDPOINT))], ids=["no-aer", "no-bridge"]
)
def test_the_oops_of_a_worker_panics_where_every_oops_does(policy: str, section: bytes) -> None:
    decision = of(policy, section, sysctl={"kernel.panic_on_oops": 1, "kernel.panic": 10}, pci_devices=None)
    assert [(step.cause, step.reboots_after_s) for step in steps(decision, Panic)] == [("oops", 10)]
    assert decision.action.value == "panic"


@pytest.mark.parametrize(("policy", "oopsed"), [(L510, ["pcie_do_recovery"]), ("linux-5.11.0", []), (L61, [])])
def test_a_root_complex_integrated_endpoint_has_no_bridge_and_needs_none_since_5_11(policy: str, oopsed: list[str]) -> None:
    section = pcie(valid=0x89, bus=0, port_type=INTEGRATED)
    assert oopses(of(policy, section, pci_devices=None)) == oopsed
    assert oopses(of(policy, pcie(valid=0x89, bus=0, port_type=ENDPOINT), pci_devices=None)) == ["pcie_do_recovery"]
