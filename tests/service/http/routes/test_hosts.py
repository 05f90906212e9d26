"""Host facts, decisions that use them, poisoned pages, and recent records."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ras_triage.service.http.app import create_app
from tests.service.support.application import BLOCK, EVENT, Call, client

ABORT: dict[str, Any] = {key: EVENT[key] for key in ("notification", "status_block")}
"""An event that says nothing of its host."""

FATAL: dict[str, Any] = {"notification": "sea", "status_block": {"severity": "fatal", "sections": [{"type": "memory"}]}}


@pytest.fixture(scope="module")
def call() -> Iterator[Call]:
    with client(create_app()) as call:
        yield call


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """One of the test's own."""
    return str(request.node.name)


def put(call: Call, source: str, host: Any, **headers: str) -> httpx.Response:
    return call("PUT", f"/v1/hosts/{source}", json=host, headers={name.replace("_", "-"): value for name, value in headers.items()})


def decide(call: Call, source: str, event: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = call("POST", "/v1/decisions", json={**(ABORT if event is None else event), "source": source})
    assert answer.status_code == 201
    decision: dict[str, Any] = answer.json()
    return decision


def poisoned(call: Call, source: str) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = call("GET", f"/v1/poisoned-pages/{source}").json()["pages"]
    return pages


# Facts.


def test_kept_facts_go_into_events_that_bring_none_and_the_decision_names_their_version(call: Call, source: str) -> None:
    before = decide(call, source, {"notification": "sea"})
    kept = put(call, source, EVENT["host"]).json()
    after = decide(call, source)

    assert before["host_facts"] is None
    assert before["policy"]["name"] == "uniform"
    assert after["policy"]["name"] == "linux-6.12.107"
    assert after["host_facts"] == {"version": 1, "digest": kept["digest"], "poisoned": [], "duplicate": False}
    brought = call("POST", "/v1/decisions?dry_run=true", json={**ABORT, "host": EVENT["host"]}).json()
    assert (after["action"], after["plan"], after["rationale"]) == (brought["action"], brought["plan"], brought["rationale"])


def test_facts_of_the_event_outrank_kept_ones_also_when_they_are_empty(call: Call, source: str) -> None:
    put(call, source, {"kernel": "6.12.107"})

    assert decide(call, source, {"notification": "sea", "host": {}})["policy"]["name"] == "uniform"
    brought = decide(call, source, {"notification": "sea", "host": {"kernel": "7.3.4"}})
    assert brought["policy"]["name"] == "linux-7.3.4"
    assert brought["host_facts"] is None


def test_facts_are_one_sources_own(call: Call, source: str) -> None:
    put(call, source, {"kernel": "6.12.107"})

    assert decide(call, f"{source}-other", {"notification": "sea"})["host_facts"] is None
    nameless = call("POST", "/v1/decisions", json={"notification": "sea"}).json()
    assert nameless["host_facts"] is None


def test_what_is_put_comes_back_without_what_was_not_said(call: Call, source: str) -> None:
    answer = put(call, source, {"kernel": "6.12.107", "pages": []})

    assert answer.status_code == 200
    assert answer.json()["host"] == {"kernel": "6.12.107", "pages": []}
    assert call("GET", f"/v1/hosts/{source}").json() == answer.json()
    assert answer.json()["digest"].startswith("sha256:")
    assert answer.json()["changed_at"].endswith("Z")


def test_an_old_decision_names_a_version_that_can_still_be_read(call: Call, source: str) -> None:
    put(call, source, {"kernel": "6.12.107"})
    decision = decide(call, source, {"notification": "sea"})
    put(call, source, {"kernel": "7.3.4"})
    call("DELETE", f"/v1/hosts/{source}")

    used = decision["host_facts"]
    old = call("GET", f"/v1/hosts/{source}?version={used['version']}").json()
    assert (old["host"], old["digest"]) == ({"kernel": "6.12.107"}, used["digest"])
    missing = call("GET", f"/v1/hosts/{source}?version=9")
    assert (missing.status_code, missing.json()["detail"]) == (404, f"no version 9 of the facts is stored for source `{source}`")
    assert call("GET", f"/v1/hosts/{source}").status_code == 404
    assert decide(call, source, {"notification": "polled"})["host_facts"] is None


def test_a_version_goes_up_with_every_change_also_across_a_deletion(call: Call, source: str) -> None:
    versions = [put(call, source, {"kernel": kernel}).json()["version"] for kernel in ("6.12.107", "6.12.107", "7.3.4")]
    assert call("DELETE", f"/v1/hosts/{source}").status_code == 204

    assert versions == [1, 2, 3]
    assert call("DELETE", f"/v1/hosts/{source}").status_code == 404
    assert put(call, source, {}).json()["version"] == 5


def test_a_change_under_a_condition_is_made_only_where_it_holds(call: Call, source: str) -> None:
    assert put(call, source, {}, if_match='"1"').status_code == 412
    assert put(call, source, {}, if_match='"0"').headers["etag"] == '"1"'
    assert call("GET", f"/v1/hosts/{source}").headers["etag"] == '"1"'
    refused = put(call, source, {"kernel": "7.3.4"}, if_match='"0"')
    assert refused.status_code == 412
    assert '"1"' in refused.json()["detail"]
    assert call("DELETE", f"/v1/hosts/{source}", headers={"if-match": '"9"'}).status_code == 412
    assert call("GET", f"/v1/hosts/{source}").json()["host"] == {}
    assert put(call, source, {}, if_match='"1"').headers["etag"] == '"2"'
    assert put(call, source, {}, if_match="*").headers["etag"] == '"3"'


def test_any_one_of_several_tags_will_do_and_a_star_needs_something_there(call: Call, source: str) -> None:
    """RFC 9110 13.1.1."""
    assert put(call, source, {}, if_match="*").status_code == 412
    put(call, source, {})
    assert put(call, source, {}, if_match='"7", "1"').status_code == 200
    assert put(call, source, {}, if_match='W/"2"').status_code == 412


def test_facts_that_are_none_are_refused_with_a_pointer_and_change_nothing(call: Call, source: str) -> None:
    put(call, source, {"kernel": "6.12.107"})
    refused = put(call, source, {"page_size": 1})

    assert refused.status_code == 422
    assert refused.json()["type"] == "urn:ras-triage:problem:invalid-host"
    assert refused.json()["errors"][0]["pointer"] == "/page_size"
    assert call("GET", f"/v1/hosts/{source}").json()["version"] == 1


@pytest.mark.parametrize("name", ["rack 1/node", "a%2Fb", "node%3F", "\u00e4", "..x", "x" * 256])
def test_a_source_may_have_any_name_that_an_event_may(call: Call, name: str) -> None:
    kept = put(call, name, {"kernel": "7.3.4"}).json()

    assert decide(call, kept["source"], {"notification": "sea"})["host_facts"]["version"] == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_name_that_no_event_can_have_is_nobodys(call: Call, method: str) -> None:
    answer = call(method, f"/v1/hosts/{'x' * 257}", **({"json": {}} if method == "PUT" else {}))

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


# Poisoned pages.


def test_a_poisoned_page_is_remembered_and_told_to_the_next_event(call: Call, source: str) -> None:
    first = decide(call, source, EVENT)
    assert poisoned(call, source) == [{"physical_address": "0x56edd000", "shift": 12}]

    facts = {key: value for key, value in EVENT["host"].items() if key != "pages"}
    again = decide(call, source, {**EVENT, "host": facts})
    assert first["host_facts"] is None
    assert again["host_facts"] == {"version": None, "digest": None, "poisoned": ["0x56edd000"], "duplicate": False}
    same = call(
        "POST",
        "/v1/decisions?dry_run=true",
        json={**EVENT, "host": {**facts, "pages": [{"physical_address": "0x56edd000", "poisoned": True}]}},
    )
    assert again["plan"] == same.json()["plan"]


def test_an_event_that_says_which_pages_are_poisoned_is_believed(call: Call, source: str) -> None:
    decide(call, source, EVENT)

    assert decide(call, source, EVENT)["host_facts"] is None
    page = {name: fact for name, fact in EVENT["host"]["pages"][0].items() if name != "poisoned"}
    silent = {**EVENT, "host": {**EVENT["host"], "pages": [page]}}
    assert decide(call, source, silent)["host_facts"]["poisoned"] == ["0x56edd000"]


def test_a_poisoned_page_is_told_to_an_event_that_only_has_a_fact_about_it(call: Call, source: str) -> None:
    decide(call, source, EVENT)

    page = {name: fact for name, fact in EVENT["host"]["pages"][0].items() if name != "poisoned"}
    answer = decide(call, source, {"notification": "polled", "host": {**EVENT["host"], "pages": [page]}})
    assert answer["host_facts"]["poisoned"] == ["0x56edd000"]
    assert [(step["code"], step["address"]) for step in answer["next_access"]] == [("BUS_MCEERR_AR", "0xffff897d5000")]


# Recent records.


FORGETFUL = {**EVENT, "host": {name: fact for name, fact in EVENT["host"].items() if name != "recent"}}
"""Leaves it to the service which records were handled before."""


def at(second: int, event: dict[str, Any] = FORGETFUL) -> dict[str, Any]:
    return {**event, "time": f"2026-11-29T10:00:{second:02}Z"}


def is_duplicate(answer: dict[str, Any]) -> bool:
    assert (answer["host_facts"] is not None and answer["host_facts"]["duplicate"]) == any(
        "byte-identical" in step.get("why", "") for step in answer["plan"]
    )
    return answer["host_facts"] is not None


def test_a_record_that_its_source_reports_again_within_ten_seconds_is_a_duplicate(call: Call, source: str) -> None:
    assert [is_duplicate(decide(call, source, at(second))) for second in (0, 9, 10)] == [False, True, False]
    assert not is_duplicate(decide(call, f"{source} and another", at(11)))


def test_without_times_the_time_of_the_decision_counts(call: Call, source: str) -> None:
    assert [is_duplicate(decide(call, source, FORGETFUL)) for _ in range(2)] == [False, True]


def test_an_event_that_says_which_records_were_handled_is_believed(call: Call, source: str) -> None:
    assert [is_duplicate(decide(call, source, event)) for event in (FORGETFUL, EVENT, FORGETFUL)] == [False, False, True]


def test_a_malformed_record_is_not_remembered(call: Call, source: str) -> None:
    malformed = {**FORGETFUL, "status_block": base64.b64encode(BLOCK[:12] + b"\1" + BLOCK[13:]).decode()}
    assert [decide(call, source, malformed)["host_facts"] for _ in range(2)] == [None, None]


def test_a_panic_forgets_the_records(call: Call, source: str) -> None:
    decide(call, source, at(0))
    assert decide(call, source, FATAL)["action"] == "panic"
    assert not is_duplicate(decide(call, source, at(5)))


def test_a_dry_run_is_told_of_records_and_leaves_none(call: Call, source: str) -> None:
    def tried() -> dict[str, Any]:
        answer: dict[str, Any] = call("POST", "/v1/decisions?dry_run=true", json={**FORGETFUL, "source": source}).json()
        return answer

    assert [is_duplicate(tried()) for _ in range(2)] == [False, False]
    decide(call, source, FORGETFUL)
    assert is_duplicate(tried())


def test_imported_errors_are_no_reports(call: Call, source: str) -> None:
    line = json.dumps({**FORGETFUL, "source": source}).encode()
    *found, _ = (json.loads(one) for one in call("POST", "/v1/import", content=line + b"\n" + line).content.splitlines())
    assert [is_duplicate(one["decision"]) for one in found] == [False, False]


def test_a_duplicate_within_a_batch_is_one(call: Call, source: str) -> None:
    event = {**FORGETFUL, "source": source}
    assert [is_duplicate(answer) for answer in call("POST", "/v1/decisions/batch", json=[event, event]).json()] == [False, True]


def test_a_poisoned_page_is_told_beside_kept_facts_and_only_where_an_address_lies_in_it(call: Call, source: str) -> None:
    put(call, source, EVENT["host"])
    decide(call, source)

    assert decide(call, source)["host_facts"]["poisoned"] == ["0x56edd000"]
    elsewhere = {"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x1000"}]}
    assert decide(call, source, {**ABORT, "status_block": elsewhere})["host_facts"]["poisoned"] == []


def test_a_reset_forgets_the_pages(call: Call, source: str) -> None:
    put(call, source, EVENT["host"])
    decide(call, source)

    assert call("DELETE", f"/v1/poisoned-pages/{source}").status_code == 204
    assert poisoned(call, source) == []
    assert decide(call, source)["host_facts"]["poisoned"] == []


def test_a_panic_forgets_the_pages_because_the_machine_starts_again(call: Call, source: str) -> None:
    decide(call, source, EVENT)
    assert poisoned(call, source)

    assert decide(call, source, FATAL)["action"] == "panic"
    assert poisoned(call, source) == []


def test_a_dry_run_poisons_nothing_and_forgets_nothing(call: Call, source: str) -> None:
    call("POST", "/v1/decisions?dry_run=true", json={**EVENT, "source": source})
    assert poisoned(call, source) == []
    decide(call, source, EVENT)
    assert call("POST", "/v1/decisions?dry_run=true", json={**FATAL, "source": source}).json()["action"] == "panic"

    assert poisoned(call, source)


def test_pages_poisoned_within_a_batch_are_told_to_the_batchs_next_event(call: Call, source: str) -> None:
    facts = {key: value for key, value in EVENT["host"].items() if key != "pages"}
    first, second = call(
        "POST", "/v1/decisions/batch", json=[{**EVENT, "source": source}, {**EVENT, "source": source, "host": facts}]
    ).json()

    assert first["host_facts"] is None
    assert second["host_facts"]["poisoned"] == ["0x56edd000"]
