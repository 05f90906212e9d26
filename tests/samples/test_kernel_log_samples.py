"""Other people's kernel logs: set RAS_TRIAGE_SAMPLES to a folder with a `dmesg` folder in it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError, UnmatchedAction
from ras_triage.models.records.block_fields import decode_structured
from ras_triage.policies.agreement import compare
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from tests.samples.kernel_log_facts import FACTS

FOLDER = os.environ.get("RAS_TRIAGE_SAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="RAS_TRIAGE_SAMPLES names no folder of logs")


def logs() -> list[Path]:
    return sorted((Path(FOLDER) / "dmesg").glob("*.txt")) if FOLDER else []


NAMES_AN_ERROR = re.compile(
    rb"SError|[Ee]xternal [Aa]bort|Internal error|Memory failure|oft[ _]offline|hardware memory corruption|Hardware error from APEI"
    rb"|Fatal hardware error|GHES: |AER: (?:aer_status|.*recover)|PCIe Bus Error|Machine [Cc]heck|ghes_print_estatus: "
)
"""Lines of a kernel that name a hardware error, not those that explain one: in words, by EDAC, or by registers that the record has too."""


def kernel_logs() -> list[Path]:
    """Return the files that are kernel logs, line by line."""
    root = Path(FOLDER or ".")
    return sorted(path for folder in ("dmesg", "field") for path in (root / folder).glob("*.txt")) if FOLDER else []


def told(lines: list[bytes]) -> list[str]:
    """Return what the reader finds, without line numbers of its own making."""
    return [repr(item) for item in read_kernel_log(lines)]


@pytest.mark.parametrize("path", kernel_logs(), ids=lambda path: path.name)
def test_no_line_that_names_a_hardware_error_is_passed_over_in_silence(path: Path) -> None:
    """Replace each such line by an empty one: what is found must change."""
    lines = path.read_bytes().splitlines(keepends=True)
    whole = told(lines)
    named = [at for at, line in enumerate(lines) if NAMES_AN_ERROR.search(line)]
    silent = [lines[at] for at in named if told([*lines[:at], b"\n", *lines[at + 1 :]]) == whole]
    assert silent == []


def test_the_folder_has_lines_that_name_a_hardware_error() -> None:
    assert sum(len(NAMES_AN_ERROR.findall(path.read_bytes())) for path in kernel_logs()) > len(kernel_logs())


def readings_of(path: Path) -> list[FoundError]:
    with path.open("rb") as log:
        return [found for found in read_kernel_log(log) if isinstance(found, FoundError)]


@pytest.mark.parametrize("path", logs(), ids=lambda path: path.name)
def test_a_strangers_log_is_read_and_what_it_cannot_tell_is_named(path: Path) -> None:
    with path.open("rb") as log:
        found = list(read_kernel_log(log))
    readings = [item for item in found if isinstance(item, FoundError)]
    assert readings
    assert all(isinstance(item, (FoundError, UnmatchedAction)) for item in found)
    for reading in readings:
        assert reading.lost
        is_assumed = "/notification/type" in {assumption.field for assumption in reading.assumed}
        is_told = path.name.startswith(("02-", "26-"))  # the signalled thread handled the error itself; the previous boot
        assert is_assumed != is_told
        assert is_assumed or reading.event.notification.type in ("sea", "bert")
        decision = decide(reading.event, resolve_policy("linux-6.12.107"))
        assert compare(reading.observed, decision, reading.assumed).verdict in ("agree", "differ", "cannot_tell")


@pytest.mark.parametrize("path", [path for path in logs() if path.name.partition("-")[0] in FACTS], ids=lambda path: path.name)
def test_a_strangers_log_says_what_its_manifest_says(path: Path) -> None:
    told = []
    for reading in readings_of(path):
        block = decode_structured(reading.event.status_block or b"")
        sections = []
        for section in block.sections:
            infos = getattr(section, "error_infos", ())
            address = infos[0].physical_fault_address if infos else getattr(section, "physical_address", None)
            sections.append((section.type if isinstance(section.type, str) else "guid", address))
        told.append((block.severity, reading.event.notification.source_id, sections))
    assert told == FACTS[path.name.partition("-")[0]]


def test_a_refused_section_is_malformed_and_not_fatal() -> None:
    for path in logs():
        if path.name.startswith("07-"):
            (reading,) = readings_of(path)
            assert any("malformed" in phrase for phrase in reading.lost)
            assert decode_structured(reading.event.status_block or b"").severity == 0
