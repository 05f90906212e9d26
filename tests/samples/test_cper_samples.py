"""Other people's CPER records, Redfish documents and libcper examples: RAS_TRIAGE_SAMPLES names a folder with them.

libcper's examples are pairs: hexadecimal of a record (*.cperhex) and what libcper makes of it (*.json). Both are read here, and have to
say the same, field by field; what libcper leaves out or blurs is listed with its reason.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ras_triage.models.formats.cper import read_cper, write_record
from ras_triage.models.formats.json_text import JsonObject, read_json
from ras_triage.models.formats.libcper.arm_processor import arm_processor
from ras_triage.models.formats.libcper.reader import ErrorTypeNumbering, read_libcper
from ras_triage.models.formats.libcper.sections import READERS
from ras_triage.models.formats.redfish import read_redfish, write_redfish
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.models.records.block_fields import OpaqueSection, decode_structured
from ras_triage.models.sections.arm_processor import ArmErrorInfo, describe_error_information, describe_error_type
from ras_triage.models.sections.section import StructuredSection
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide

FOLDER = os.environ.get("RAS_TRIAGE_SAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="RAS_TRIAGE_SAMPLES names no folder of records")


def found(folder: str, *patterns: str) -> list[Path]:
    """The files of a folder among the samples, none where there are no samples."""
    root = Path(FOLDER or ".") / folder
    return sorted(path for pattern in patterns for path in root.glob(pattern)) if FOLDER else []


def one(path: Path, numbering: ErrorTypeNumbering = "uefi-2.10") -> FoundError:
    """The one error in a file."""
    reader = {".json": lambda data: read_libcper(data, arm_error_types=numbering)}.get(path.suffix, read_cper)
    (reading,) = reader(path.read_bytes())
    assert isinstance(reading, FoundError), reading
    return reading


def sections(reading: FoundError) -> list[Any]:
    """The sections of a reading's status block."""
    return list(decode_structured(reading.event.status_block or b"").sections)


RECORDS = [*found("cper", "*"), *found("derived", "*.bin"), *found("libcper", "*.cperhex")]
PAIRS = found("libcper", "*.json")
names = {"ids": lambda path: path.name}


def test_the_folder_holds_records_and_pairs() -> None:
    assert RECORDS
    assert PAIRS
    assert all(path.with_suffix(".cperhex").exists() for path in PAIRS)


@pytest.mark.parametrize("path", RECORDS + PAIRS, **names)
def test_a_record_is_found_and_can_be_decided(path: Path) -> None:
    assert decide(one(path).event, resolve_policy("linux-6.12.107")).plan


@pytest.mark.parametrize("path", RECORDS + PAIRS, **names)
def test_a_reading_survives_the_way_through_a_record_and_an_entry(path: Path) -> None:
    event = one(path).event
    if "missing, read as zero" in "".join(one(path).lost):
        pytest.skip("a status block that is cut makes no record")
    by_record = next(read_cper(write_record(event), notification=event.notification))
    by_entry = next(read_redfish(json.dumps(write_redfish(event)).encode()))
    assert isinstance(by_record, FoundError)
    assert isinstance(by_entry, FoundError)
    assert [part.encode_payload() for part in sections(by_record)] == [part.encode_payload() for part in sections(one(path))]
    assert by_entry.event.status_block == by_record.event.status_block
    assert by_record.event.time == by_entry.event.time
    assert by_entry.event.notification == event.notification


@pytest.mark.parametrize("path", found("redfish", "*.json"), **names)
def test_every_redfish_document_ends_in_readings_or_reasons(path: Path) -> None:
    results = list(read_redfish(path.read_bytes()))
    assert results
    for result in results:
        assert isinstance(result, FoundError) or (isinstance(result, UnreadableRecord) and result.reason)


@pytest.mark.parametrize("path", PAIRS, **names)
def test_a_pair_agrees_on_everything_around_the_sections(path: Path) -> None:
    ours, theirs = one(path.with_suffix(".cperhex")), one(path)
    assert theirs.event.time == ours.event.time
    assert theirs.event.notification == ours.event.notification
    mine, libcpers = decode_structured(ours.event.status_block or b""), decode_structured(theirs.event.status_block or b"")
    assert libcpers.severity == mine.severity
    entry = {"type", "severity", "flags", "revision", "fru_id", "timestamp", "timestamp_precise"}
    for left, right in zip(mine.sections, libcpers.sections, strict=True):
        assert right.model_dump(include=entry) == left.model_dump(include=entry)
        # libcper leaves a FRU text out that is not printable.
        assert right.fru_text == left.fru_text or not (left.fru_text or "").isprintable()


ALWAYS_LOST = {"reserved", "trailing", "payload_length", "entry_validation_bits", "fru_text"}


def differences(ours: StructuredSection, theirs: StructuredSection) -> dict[str, tuple[Any, Any]]:
    """The fields on which the two disagree, without those whose validation bit is clear: libcper leaves them out."""
    unset = {*ours.LAYOUT.invalid_fields(ours.__dict__), *ALWAYS_LOST}
    left, right = (section.model_dump(exclude=unset) for section in (ours, theirs))
    return {name: (left[name], right[name]) for name in left if left[name] != right[name]}


@pytest.mark.parametrize("path", PAIRS, **names)
def test_a_pair_agrees_on_every_field_of_every_section(path: Path) -> None:
    ours, theirs = sections(one(path.with_suffix(".cperhex"))), sections(one(path))
    for left, right in zip(ours, theirs, strict=True):
        if isinstance(left, OpaqueSection):
            # Told in words, or passed on as bytes where libcper does not know the section either.
            assert right.payload in (b"", left.payload)
            continue
        disagreements = differences(left, right)
        for name, (mine, libcpers) in disagreements.items():
            EXPLAINED[left.type, name](left, mine, libcpers)


def arm_infos(_: Any, mine: list[dict[str, Any]], libcpers: list[dict[str, Any]]) -> None:
    """Error information structures agree but for three things.

    The type is libcper's name of the byte, in another numbering. What the validation bits do not vouch for is left out. And of 64 bits of
    error information libcper shows the parts that the error's type has, so that a cache or TLB error has no bits 7 and up.
    """
    for left, right in zip(mine, libcpers, strict=True):
        there = ArmErrorInfo.model_construct(**left)
        kept = set(left) - {"error_type", "error_information", "reserved", *there.LAYOUT.invalid_fields(left)}
        assert {name: right[name] for name in kept} == {name: left[name] for name in kept}
        assert describe_error_type(left["error_type"])["uefi-2.11"] == describe_error_type(right["error_type"])["uefi-2.10"]
        shown = describe_error_information(right["error_information"])
        assert shown.items() <= describe_error_information(left["error_information"]).items()
        assert len(shown) == (left["error_information"] & 0x7F).bit_count()


def memory_2_bits(left: Any, mine: int, libcpers: int) -> None:
    """libcper shows the address under the validation bit of the error status; shown, it counts as valid."""
    assert libcpers == mine | 1 << 1
    assert left.error_status is not None


def error_log(left: Any, mine: Any, libcpers: Any) -> None:
    """The error log and its length are only shown under the error log's validation bit."""
    assert mine
    assert not libcpers
    assert not left.validation_bits & 1 << 6


EXPLAINED = {
    ("arm_processor", "error_infos"): arm_infos,
    ("memory2", "validation_bits"): memory_2_bits,
    ("cxl_protocol", "error_log"): error_log,
    ("cxl_protocol", "error_log_length"): error_log,
}
"""Where a pair cannot agree, and a check of what it says instead."""


class StreamItem(dict[str, Any]):
    """A JSON object that remembers which of its keys were asked for."""

    def __init__(self, value: JsonObject) -> None:
        super().__init__({key: watched(part) for key, part in value.items()})
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def values(self) -> Any:
        self.asked.update(self)
        return super().values()


def watched(value: Any) -> Any:
    """A JSON value whose objects remember."""
    if isinstance(value, dict):
        return StreamItem(value)
    return [watched(part) for part in value] if isinstance(value, list) else value


def unasked(value: Any, path: str = "") -> list[str]:
    """The dotted paths of all keys that nobody asked for, outermost first."""
    if isinstance(value, list):
        return [way for part in value for way in unasked(part, path)]
    if not isinstance(value, StreamItem):
        return []
    own = [f"{path}{key}" for key in value if key not in value.asked]
    return own + [way for key in value.asked & set(value) for way in unasked(dict.get(value, key), f"{path}{key}.")]


SAID_TWICE = {
    "physicalAddressHex", "affinity3", "name", "type", "state", "description",
    # The parts of structures whose bytes are there too.
    "device_capabilities", "device_capabilities2", "device_control", "device_control2", "device_status", "link_capabilities",
    "link_capabilities2", "link_control", "link_control2", "link_status", "link_status2", "pcie_capabilities", "pcie_capability_header",
    "root_status", "slot_capabilities", "slot_control", "slot_status", "advanced_error_capabilities_and_control", "capability_header",
    "correctable_error_mask", "correctable_error_status", "error_source_id", "root_error_status", "uncorrectable_error_mask",
    "uncorrectable_error_severity", "uncorrectable_error_status",
}  # fmt: skip
"""Keys that only repeat what another key says."""


@pytest.mark.parametrize("path", PAIRS, **names)
def test_every_key_of_a_section_is_looked_at_or_says_nothing_new(path: Path) -> None:
    for section in read_json(path.read_bytes())["sections"]:
        for name, value in section.items():
            body = watched(value)
            if name == "ArmProcessor":
                arm_processor(body, "uefi-2.10")
            elif name in READERS:
                READERS[name](body)
            else:
                continue
            assert [way for way in unasked(body) if way.rpartition(".")[2] not in SAID_TWICE] == []
