"""Work limit of single events, over HTTP and on the command line."""

from __future__ import annotations

import base64
import json
import pickle
from typing import Any

import pytest

from ras_triage.models.records.block_fields import encode_structured
from ras_triage.service.api.problems import URN, Problem
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.batch.workers import Workers
from ras_triage.service.engine.defects import Defects
from ras_triage.service.engine.evaluation import EventDocument, predecide
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, Call, caller, client, run

SECTIONS, MAPPINGS = 200, 1200
START = 0x5600_0000
TYPE = f"{URN}too-much-work"
FACTORS = [
    {"pointer": "/status_block", "detail": f"{SECTIONS} page frames"},
    {"pointer": "/host/pages", "detail": f"{MAPPINGS} mappings of one page"},
]


def block(sections: int) -> str:
    found = [{"type": "memory", "physical_address": START + 4096 * index} for index in range(sections)]
    return base64.b64encode(encode_structured({"severity": "recoverable", "sections": found})).decode()


def huge(mappings: int) -> dict[str, Any]:
    return {
        "physical_address": START,
        "state": "thp",
        "dirty": True,
        "shift": 21,
        "mappings": [{"pid": 1000 + index, "address": 0x7F00_0000_0000} for index in range(mappings)],
    }


LARGE: dict[str, Any] = {
    "id": "large",
    "source": "node-1",
    "policy": "uniform",
    "notification": "sea",
    "status_block": block(SECTIONS),
    "host": {"arm_error_types": "uefi-2.10", "pages": [huge(MAPPINGS)]},
}
LINE = json.dumps(LARGE).encode()


def refused(problem: dict[str, Any]) -> bool:
    assert (problem["status"], problem["errors"]) == (422, FACTORS)
    assert problem["detail"].startswith(f"{SECTIONS} page frames x {MAPPINGS} mappings of one page: about ")
    assert problem["detail"].endswith("`max_workload` is 2000000")
    return bool(problem["type"] == TYPE)


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_a_single_event_is_refused_with_its_two_factors(shared_call: Call, query: str) -> None:
    answer = shared_call("POST", f"/v1/decisions{query}", content=LINE)
    assert answer.status_code == 422
    assert refused(answer.json())


def test_the_other_events_of_a_batch_are_decided(shared_call: Call) -> None:
    answer = shared_call("POST", "/v1/decisions/batch", json=[EVENT, LARGE, EVENT])
    before, problem, behind = answer.json()
    assert refused(problem)
    assert before["action"] == behind["action"] == "signal"


@pytest.mark.parametrize("query", ["", "?dry_run=true"])
def test_the_other_events_of_an_import_are_decided(shared_call: Call, query: str) -> None:
    events = b"\n".join([json.dumps(EVENT).encode(), LINE, json.dumps(EVENT).encode()])
    before, large, behind, last = map(json.loads, shared_call("POST", f"/v1/import{query}", content=events).text.splitlines())
    assert refused(large["problem"])
    assert before["decision"]["action"] == behind["decision"]["action"] == "signal"
    assert (last["summary"]["decided"], last["summary"]["refused"]) == (2, 1)


def test_a_worker_refuses_it_too() -> None:
    answer = predecide(EventDocument(LINE), Settings())
    assert isinstance(answer, tuple)
    assert isinstance(answer[1], Problem)
    assert answer[1].type == TYPE


def test_workers_know_the_limit() -> None:
    workers = Workers(Settings(max_workload=10), Defects())
    assert pickle.loads(workers._settings).max_workload == 10


def test_the_command_line_refuses_it() -> None:
    done = run("decide", "-", "--json", given=LINE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"200 page frames x 1200 mappings of one page" in done.stderr
    done = run("decide", "--ndjson", "-", given=LINE + b"\n" + json.dumps(EVENT).encode())
    problem, decision = map(json.loads, done.stdout.splitlines())
    assert refused(problem)
    assert decision["action"] == "signal"


def test_facts_that_are_kept_for_the_source_count_and_no_pointer_leads_to_them() -> None:
    sent = {name: LARGE[name] for name in ("source", "policy", "notification", "status_block")}
    with client(create_app(Settings())) as calling:
        calling("PUT", "/v1/hosts/node-1", json=LARGE["host"]).raise_for_status()
        problem = calling("POST", "/v1/decisions", json=sent).json()
    assert problem["type"] == TYPE
    assert [error["pointer"] for error in problem["errors"]] == ["/status_block", ""]


def test_pages_that_earlier_events_poisoned_multiply_with_mappings() -> None:
    """The kernel worker's queue holds 16 of the page frames, and all 64 that were poisoned before are met by each process."""
    sent = {"source": "node-1", "notification": "sea", "status_block": block(64)}
    facts = {"kernel": "6.12.107", "arm_error_types": "uefi-2.10", "pages": [huge(2000)]}
    with client(create_app(Settings())) as calling:
        calling("POST", "/v1/decisions", json=sent | {"policy": "uniform", "host": {"pages": [huge(0)]}}).raise_for_status()
        calling("PUT", "/v1/hosts/node-1", json=facts).raise_for_status()
        problem = calling("POST", "/v1/decisions", json=sent).json()
    assert problem.get("type") == TYPE, problem
    assert problem["detail"].startswith("64 stored poisoned pages x 2000 mappings of one page")


def test_the_limit_is_a_setting() -> None:
    sent = LARGE | {"status_block": block(20), "host": LARGE["host"] | {"pages": [huge(100)]}}
    assert caller(Settings())("POST", "/v1/decisions", json=sent).status_code == 201
    problem = caller(Settings(max_workload=10_000))("POST", "/v1/decisions", json=sent).json()
    assert problem["detail"].startswith("20 page frames x 100 mappings of one page")
    assert problem["detail"].endswith("`max_workload` is 10000")
