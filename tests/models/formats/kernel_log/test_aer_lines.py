"""Tests of PCIe error recovery in kernel logs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.policies.agreement import compare
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from tests.models.formats.kernel_log.test_kernel_log import log, record
from tests.models.formats.kernel_log.test_kernel_log_properties import STYLES

PCIE = (
    "Hardware error from APEI Generic Hardware Error Source: 5",
    "event severity: recoverable",
    " Error 0, type: recoverable",
    "  section_type: PCIe error",
    "  port_type: 4, root port",
    "  device_id: 0000:c9:02.0",
    "  slot: 25",
    "  secondary_bus: 0xca",
    "  vendor_id: 0x8086, device_id: 0x347a",
    "  class_code: 060400",
)
STATUS = "pcieport 0000:c9:02.0: AER: aer_status: 0x00200000, aer_mask: 0x00100020"
SEVERITY = "pcieport 0000:c9:02.0: AER: aer_uncor_severity: 0x00463010"
HEADER = "pcieport 0000:c9:02.0: AER:   TLP Header: 40000001 0000030f 90028090 00000000"
WORDS = (
    "pcieport 0000:c9:02.0: AER:    [21] ACSViol                (First)",
    "pcieport 0000:c9:02.0: AER: aer_layer=Transaction Layer, aer_agent=Receiver ID",
)
FAILED = "pcieport 0000:c9:02.0: AER: device recovery failed"


def only(*texts: str) -> FoundError:
    (found,) = read_kernel_log(log(*texts))
    assert isinstance(found, FoundError)
    return found


def section_of(found: FoundError) -> Any:
    (section,) = decode_structured(found.event.status_block or b"").sections
    return section


def test_messages_of_recovery_prove_the_registers_of_the_record():
    found = only(*record(1, PCIE), STATUS, *WORDS, SEVERITY, HEADER, FAILED)
    section = section_of(found)
    assert (section.aer_uncorrectable_status, section.aer_uncorrectable_mask) == (0x200000, 0x100020)
    assert section.aer_uncorrectable_severity == 0x463010
    assert section.aer_header_log == bytes.fromhex("01000040 0f030000 90800290 00000000")
    assert "/status_block/sections/0/validation_bits" not in {assumption.field for assumption in found.assumed}
    assert found.observed is not None
    assert [one.result for one in found.observed.recoveries] == ["queued", "failed"]
    decision = decide(found.event, resolve_policy("linux-6.1.176"))
    assert [(step.kind, step.recovers) for step in decision.plan if step.kind == "recover_pcie"] == [("recover_pcie", True)]
    assert compare(found.observed, decision, found.assumed).verdict == "agree"


def test_recovery_proves_the_device_id_although_not_all_of_it_is_printed():
    found = only(*record(1, PCIE[:6]), STATUS)
    decision = decide(found.event, resolve_policy("linux-6.1.176"))
    assert any(step.kind == "recover_pcie" for step in decision.plan)


def test_a_corrected_section_prints_the_correctable_registers():
    corrected = (PCIE[0], "event severity: corrected", " Error 0, type: corrected", *PCIE[3:])
    section = section_of(only(*record(1, corrected), STATUS))
    assert (section.aer_correctable_status, section.aer_correctable_mask) == (0x200000, 0x100020)
    assert not section.aer_uncorrectable_status


def test_registers_that_the_record_itself_prints_stay():
    own = "  aer_uncor_status: 0x00100000, aer_uncor_mask: 0x00010000"
    section = section_of(only(*record(1, (*PCIE, own)), STATUS))
    assert (section.aer_uncorrectable_status, section.aer_uncorrectable_mask) == (0x100000, 0x10000)


def test_without_such_messages_the_registers_are_an_assumption_with_its_alternative():
    found = only(*record(1, PCIE))
    assumed = frozenset(assumption.field for assumption in found.assumed)
    assert "/status_block/sections/0/validation_bits" in assumed
    decision = decide(found.event, resolve_policy("linux-6.1.176"), assumed)
    assert not any(step.kind == "recover_pcie" for step in decision.plan)
    (other,) = (one for one in decision.alternatives if one.when == {"section.aer_registers": "valid"})
    assert any(step.kind == "recover_pcie" for step in other.plan)
    assert "assumed_no_aer_registers" in {warning.code for warning in decision.warnings}
    plain = decide(found.event, resolve_policy("linux-6.1.176"))
    assert (plain.plan, plain.alternatives) == (decision.plan, ())


def test_the_result_may_name_the_port_above_the_device():
    texts = ("nvme 0000:ca:00.0: AER: can't recover (no error_detected callback)", "pcieport 0000:c8:00.0: AER: device recovery failed")
    found = only(*record(1, PCIE), STATUS, *texts)
    assert found.observed is not None
    assert [note.said for note in found.observed.notes] == [texts[0]]
    assert found.observed.recoveries[-1].result == "failed"


def test_a_burst_of_records_of_one_device_gets_the_messages_in_order():
    first, second = log(*record(1, PCIE)), log(*record(2, PCIE))
    lines = [*first, *second, *log(STATUS, STATUS.replace("0x0020", "0x0040"))]
    found = [item for item in read_kernel_log(lines) if isinstance(item, FoundError)]
    assert [section_of(item).aer_uncorrectable_status for item in found] == [0x200000, 0x400000]


@pytest.mark.parametrize(
    "text",
    [
        STATUS,
        FAILED,
        "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0",
        "pcieport 10003:00:00.0: PCIe Bus Error: severity=Corrected, type=Data Link Layer, id=0000(Receiver ID)",
        "pci 0000:05:00.0: AER: can't recover (no error_detected callback)",
        "AER recover: Can not find pci_dev for 0000:04:00:0",
    ],
)
def test_a_message_without_its_record_is_an_observation(text):
    (found,) = read_kernel_log(log(text))
    assert isinstance(found, UnmatchedAction)


def test_recovery_of_another_device_is_not_this_records():
    other = [one for one in read_kernel_log(log(*record(1, PCIE), STATUS.replace("c9", "c8"))) if isinstance(one, UnmatchedAction)]
    assert len(other) == 1


def test_recovery_that_the_decision_does_not_expect_is_no_agreement():
    found = only(*record(1, PCIE), STATUS)
    without = decide(only(*record(1, PCIE)).event, resolve_policy("linux-6.1.176"))
    assert compare(found.observed, without, ()).verdict != "agree"


@given(
    style=st.sampled_from(sorted(STYLES)),
    texts=st.permutations([SEVERITY, HEADER, *WORDS]),
    noise=st.lists(st.sampled_from(["usb 1-1: reset", "nvme nvme0: frozen state error detected, reset controller"]), max_size=5),
)
def test_the_messages_of_one_record_make_one_error_in_every_form_of_log(style, texts, noise):
    before = STYLES[style].format(uptime=100.0)
    (found,) = read_kernel_log(log(*record(1, PCIE), *noise, STATUS, *texts, before=before))
    assert isinstance(found, FoundError)
    section = section_of(found)
    assert (section.aer_uncorrectable_status, section.aer_uncorrectable_severity) == (0x200000, 0x463010)
