"""Every file in a folder of other people's data, imported: RAS_TRIAGE_SAMPLES names the folder.

A file holds an error unless it is one of those named here, or in the folder `hostile`. Nothing may fail, and what is found has a decision.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats.results import FoundError, UnreadableRecord
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.imports.decisions import decide_items, result_line
from ras_triage.service.engine.imports.results import ImportCounts
from ras_triage.service.importing.import_options import ImportOptions
from ras_triage.service.importing.readers import read_items
from ras_triage.service.importing.source import ImportSource

FOLDER = os.environ.get("RAS_TRIAGE_SAMPLES")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="RAS_TRIAGE_SAMPLES names no folder of samples")

WITHOUT = ("HEST", "collection-cper-without-payload")
"""A table of error sources, and an entry that only mentions a record."""


def files() -> list[Path]:
    root = Path(FOLDER or ".")
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix != ".md") if FOLDER else []


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_file_comes_to_a_decision_or_says_why_not(path):
    tally = ImportCounts()
    with path.open("rb") as stream:
        results = list(decide_items(read_items(ImportSource(stream, str(path)), None, None), ImportOptions(), Settings(), tally))
    assert all(result_line(result) for result in results)
    if path.parent.name == "hostile":
        return
    if path.name.startswith(WITHOUT):
        (result,) = results
        assert isinstance(result.item, UnreadableRecord)
        assert result.item.reason
        return
    errors = [result for result in results if isinstance(result.item, FoundError)]
    assert errors
    assert all(result.decision is not None for result in errors)
    assert tally.complete
    assert all(result.item.lost or result.item.assumed for result in errors if result.item.format != "cper")


REPORTS = {
    "B-aer-lines.txt": ("gsiv", None, "linux-7.3.4", "handled", "agree"),
    "C-serror.txt": ("sei", 0xBE000011, "linux-5.18.0", "panic", "agree"),
    "D-sea-old.txt": ("sea", 0x96000610, "linux-7.3.4", "signal", "agree"),
    "E-kernel-in-oops.txt": ("gsiv", None, "linux-6.1.176", "handled", "agree"),
}
"""Notification type, syndrome, policy, action and agreement of the one error in each report of the field."""


@pytest.mark.parametrize("path", [path for path in files() if path.name in REPORTS], ids=lambda path: path.name)
def test_a_report_is_read_as_one_error_and_decided_as_its_kernel_did(path):
    with path.open("rb") as stream:
        (result,) = decide_items(read_items(ImportSource(stream, str(path)), None, None), ImportOptions(), Settings(), ImportCounts())
    assert isinstance(result.item, FoundError)
    assert result.decision is not None
    assert result.agreement is not None
    notification = Event.model_validate_json(result.event).notification
    told = (notification.type, notification.syndrome, result.decision.policy.name, result.decision.action, result.agreement.verdict)
    assert told == REPORTS[path.name]


@pytest.mark.parametrize("path", files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_file_cut_or_changed_breaks_nothing(path):
    data = path.read_bytes()
    for cut in (1, len(data) // 3, len(data) // 2, len(data) - 1):
        for content in (data[:cut], data[cut:], data[:cut] + b"\xff\0" + data[cut:]):
            tally = ImportCounts()
            results = list(decide_items(read_items(ImportSource(BytesIO(content)), None, None), ImportOptions(), Settings(), tally))
            assert len(results) == tally.errors + tally.unread + tally.observations + tally.raw
