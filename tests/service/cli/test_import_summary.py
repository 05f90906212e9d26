"""`import --summary`: counts by kind, severity, place, page and action."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats.results import FoundError, Position
from ras_triage.service.engine.imports import error_groups
from ras_triage.service.engine.imports.decisions import Result
from ras_triage.service.engine.imports.error_groups import ErrorGroups
from tests.service.support.application import EVENT, ndjson, run
from tests.service.support.import_examples import TRACE
from tests.service.support.server_process import serving

MEMORY = {"type": "memory", "physical_address": "0x56edd040"}


def event(severity: str, *sections: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**EVENT, "status_block": {"severity": severity, "sections": list(sections)}, **more}


EVENTS = [
    event("corrected", {**MEMORY, "fru_text": "DIMM_A1"}),
    event("corrected", {**MEMORY, "physical_address": "0x56edd080", "fru_text": "DIMM_A1"}),
    event("corrected", {"type": "memory", "node": 0, "card": 1, "module": 2}),
    event("corrected", {"type": "pcie", "segment": 0, "bus": 1, "device": 2, "function": 0}),
    {"notification": "sei", "source": "node-1"},
]


def summary(events: Iterable[object], *options: str) -> dict[str, Any]:
    done = run("import", "--summary", "--json", *options, "-", given=ndjson(events))
    (line,) = done.stdout.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def test_equal_errors_are_counted_together_by_dimm_page_and_action() -> None:
    counted = summary(EVENTS)
    first, *others = counted["groups"]
    assert first == {"kind": "memory", "severity": "corrected", "place": "DIMM_A1", "page": "0x56edd000", "action": "signal", "errors": 2}
    assert {(one["kind"], one["place"], one["page"]) for one in others} == {
        ("memory", "node 0 card 1 module 2", None),
        ("pcie", "0000:01:02.0", None),
        ("sei without a record", None, None),
    }
    assert counted["summary"]["errors"] == len(EVENTS)


def test_the_page_has_a_table_for_each_kind_and_no_single_error() -> None:
    page = run("import", "--summary", "-", given=ndjson(EVENTS), COLUMNS="100").stdout.decode()
    assert "memory: 3 errors\n  errors  severity   place" in page
    assert "2  corrected  DIMM_A1                 0x56edd000  signal" in page
    assert "pcie: 1 error\n" in page
    assert "5 errors found, 5 decided" in page
    assert "Plan" not in page


def test_the_dimm_label_of_a_trace_event_is_its_place() -> None:
    trace = TRACE if isinstance(TRACE, bytes) else TRACE.encode()
    counted = json.loads(run("import", "--summary", "--json", "-", given=trace).stdout.splitlines()[-1])
    assert [(one["kind"], one["place"]) for one in counted["groups"]] == [("memory", "DIMM_A1")]


def test_what_could_not_be_read_or_decided_is_still_listed() -> None:
    done = run("import", "--summary", "-", given=json.dumps(EVENTS[0]).encode() + b"\n{broken\n")
    assert done.returncode == 1
    assert b"not read: -, line 2" in done.stdout
    assert [one["action"] for one in summary([{**EVENTS[0], "policy": "nonsense"}])["groups"]] == ["not decided"]


def test_a_service_may_decide_what_is_counted() -> None:
    with serving("--store", "memory:") as service:
        assert summary(EVENTS, "--submit", "--server", service.url) == summary(EVENTS)


def test_the_number_of_groups_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_groups, "_MOST", 3)
    groups = ErrorGroups()
    for number in range(10):
        block = {"severity": "corrected", "sections": [{**MEMORY, "physical_address": number << 12}]}
        found = Event.model_validate({"notification": "sea", "status_block": block})
        groups.add(Result(FoundError(found, "event", Position())))
    assert len(groups.counts) == 4
    assert groups.counts.total() == 10
