"""Other people's records: set RAS_TRIAGE_SAMPLES to a folder of status blocks (*.bin) and CPER records (*.bin, *.cperhex)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.records.block_fields import decode_structured, encode_structured
from ras_triage.models.records.cper_record import decode_record, encode_record
from ras_triage.policies.catalog.policies import resolve_policy, uniform_policy
from ras_triage.policies.decide import decide
from ras_triage.service.cli.inputs import to_bytes, to_event
from ras_triage.service.engine.input_detection import InputKind

FOLDER = os.environ.get("RAS_TRIAGE_SAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="RAS_TRIAGE_SAMPLES names no folder of records")

NOT_RECORDS = {"acpi"}
POLICIES = [uniform_policy(), *(resolve_policy(f"linux-{release}") for release in ("5.10.223", "6.1.100", "6.12.107", "6.18.15", "7.3.4"))]


def records() -> list[Path]:
    found = [path for pattern in ("*.bin", "*.cperhex") for path in Path(FOLDER or ".").rglob(pattern)] if FOLDER else []
    return sorted(path for path in found if path.parent.name not in NOT_RECORDS)


def test_the_folder_holds_records() -> None:
    assert records()


@pytest.mark.parametrize("path", records(), ids=lambda path: path.name)
def test_a_strangers_record_is_taken_apart_and_put_together_again(path: Path) -> None:
    sniffed = to_bytes(path.read_bytes())
    if sniffed.kind is InputKind.RECORD:
        assert encode_record(decode_record(sniffed.data)) == sniffed.data
    else:
        assert encode_structured(decode_structured(sniffed.data)) == sniffed.data


@pytest.mark.parametrize("path", records(), ids=lambda path: path.name)
def test_a_strangers_record_is_decided_under_every_policy(path: Path) -> None:
    event = to_event(path.read_bytes())
    for policy in POLICIES:
        decision = decide(event, policy)
        assert decision.plan
        assert decision.rationale


@pytest.mark.parametrize("path", records(), ids=lambda path: path.name)
def test_a_strangers_record_cut_anywhere_says_where_it_ends(path: Path) -> None:
    sniffed = to_bytes(path.read_bytes())
    read = decode_record if sniffed.kind is InputKind.RECORD else decode_structured
    faults = []
    for length in range(0, len(sniffed.data), 7):
        try:
            read(sniffed.data[:length])
        except MalformedBytes as error:
            faults.append(error)
    assert faults
    assert all(0 <= fault.offset <= len(sniffed.data) and fault.field for fault in faults)
