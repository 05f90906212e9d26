"""Other people's HEST tables, QEMU status blocks and rasdaemon output: set RAS_TRIAGE_SAMPLES to a folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.models.formats.hest import read_hest
from ras_triage.models.formats.qemu.ghes_inject import to_arguments
from ras_triage.models.formats.qemu.injection import NOTIFICATION, read_qmp, to_qmp
from ras_triage.models.formats.ras.trace import read_trace
from ras_triage.models.formats.results import FoundError
from ras_triage.models.records.block_fields import decode_structured, encode_structured
from tests.models.formats.qemu.ghes_inject_script import inject

FOLDER = os.environ.get("RAS_TRIAGE_SAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="RAS_TRIAGE_SAMPLES names no folder of samples")


def files(pattern: str) -> list[Path]:
    return sorted(Path(FOLDER).glob(pattern)) if FOLDER else []


@pytest.mark.parametrize("path", files("acpi/*HEST*.bin"), ids=lambda path: path.name)
def test_every_source_of_a_table_names_its_notification(path):
    sources = read_hest(path.read_bytes())
    assert sources
    assert all(source.notification is None or source.notification.type for source in sources)
    assert sources[-1].offset + sources[-1].length == len(path.read_bytes())


def test_qemus_virt_machine_notifies_by_abort_and_by_gpio():
    (path,) = files("acpi/HEST-qemu-aarch64-virt-2sources.bin") or [pytest.skip("there is no such table in the folder")]
    sources = read_hest(path.read_bytes())
    assert [(source.source_id, source.notification.type, source.ghes_version) for source in sources] == [(0, "sea", 2), (1, "gpio", 2)]
    assert {source.error_block_length for source in sources} == {1024}
    # What the injection reader assumes of a virt machine is what its table says.
    assert (NOTIFICATION.source_id, NOTIFICATION.type, NOTIFICATION.error_block_length) == (1, "gpio", 1024)


@pytest.mark.parametrize("path", files("acpi/*HEST*.bin"), ids=lambda path: path.name)
def test_a_table_cut_anywhere_says_where_it_ends(path):
    data = path.read_bytes()
    for length in range(len(data)):
        with pytest.raises(MalformedBytes) as caught:
            read_hest(data[:length])
        assert 0 <= caught.value.offset <= length or caught.value.field in ("length", "signature")


@pytest.mark.parametrize("path", [*files("cper/qemu*.bin"), *files("derived/qemu*.bin")], ids=lambda path: path.name)
def test_a_block_of_qemus_survives_the_injection_command(path):
    event = Event(notification=NOTIFICATION, status_block=path.read_bytes())
    (reading,) = read_qmp(to_qmp(event))
    assert reading.event == event


def test_the_arm_block_of_qemus_is_one_that_the_script_injects():
    (path,) = files("cper/qemu-arm-estatus.bin") or [pytest.skip("there is no such block in the folder")]
    block = path.read_bytes()
    arm = decode_structured(block).sections[0]
    assert (arm.type, arm.error_infos[0].error_type, arm.error_infos[0].physical_fault_address) == ("arm_processor", 2, 0xDEADBEEF)


def test_what_rasdaemon_prints_of_qemus_arm_event_is_one_recoverable_error():
    (path,) = files("rasdaemon/qemu-arm_event.txt") or [pytest.skip("there is no such text in the folder")]
    (reading,) = read_trace(path.read_bytes().splitlines(keepends=True))
    assert isinstance(reading, FoundError)
    block = decode_structured(reading.event.status_block)
    arm = block.sections[0]
    assert (block.severity, arm.severity, arm.mpidr_el1, arm.error_affinity_level) == (0, 0, 0x80000000, None)
    (info,) = arm.error_infos
    assert (info.error_type, info.flags, info.error_information, info.physical_fault_address) == (2, 5, 0x54007F, None)
    assert reading.event.time.isoformat() == "2024-07-11T09:50:45+00:00"
    assert (reading.place.line, reading.event.notification.source_id) == (1, None)


def test_the_script_makes_the_error_that_rasdaemon_then_prints():
    info = {"error_type": 2, "error_information": 0x54007F, "flags": 5, "validation_bits": 6}
    section = {"type": "arm_processor", "validation_bits": 4, "running_state": 0, "error_infos": [info]}
    block = encode_structured({"severity": 0, "block_status": 1, "sections": [section]})
    assert inject(to_arguments(Event(notification=NOTIFICATION, status_block=block))) == block
