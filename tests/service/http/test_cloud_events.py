"""CloudEvents 1.0, as the package `cloudevents` writes them, sent to a running service."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from time import sleep
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.service.support.application import EVENT, NDJSON, ndjson
from tests.service.support.server_process import Service, serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TIME = "2026-11-28T10:00:00Z"
DATA = {name: value for name, value in EVENT.items() if name != "source"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as client:
        yield client


def attributes(**more: Any) -> dict[str, Any]:
    return {"type": "com.example.ghes", "source": "/fleet/node-17", "id": uuid4().hex, "time": TIME, **more}


def envelope(data: Any = DATA, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", **attributes(**more), "data": data}


def cloud_event(**more: Any) -> CloudEvent:
    """The package's own event."""
    given = attributes(**more)
    return CloudEvent({**given, "time": datetime.fromisoformat(given["time"])}, data=DATA)


def send(http: httpx.Client, message: HTTPMessage) -> httpx.Response:
    return http.post("/v1/decisions", headers=message.headers, content=message.body)


def structured(http: httpx.Client, content: Any, **headers: str) -> httpx.Response:
    return http.post("/v1/decisions", headers={"content-type": "application/cloudevents+json", **headers}, content=json.dumps(content))


@pytest.mark.parametrize("mode", [to_structured_event, to_binary_event])
def test_the_identity_of_a_cloud_event_is_that_of_the_event(http: httpx.Client, mode: Any) -> None:
    sent = cloud_event(subject="dimm 3", traceparent=PARENT)
    answer = send(http, mode(sent))
    decision = answer.json()
    assert (answer.status_code, decision["source"], decision["action"]) == (201, "/fleet/node-17", "signal")
    kept = http.get(f"/v1/decisions/{decision['id']}/event").json()
    assert {name: kept[name] for name in ("id", "source", "time")} == {"id": sent.get_id(), "source": "/fleet/node-17", "time": TIME}
    assert (kept["data"], kept["subject"], kept["traceparent"]) == (DATA, "dimm 3", PARENT)
    plain = http.post("/v1/decisions?dry_run=true", json={**DATA, "source": "/fleet/node-17", "time": TIME}).json()
    assert {**decision, "id": None, "decided_at": None} == plain


@pytest.mark.parametrize("first", [to_structured_event, to_binary_event])
@pytest.mark.parametrize("again", [to_structured_event, to_binary_event])
def test_a_redelivery_in_either_mode_is_a_repeat(http: httpx.Client, first: Any, again: Any) -> None:
    event = cloud_event()
    one, other = send(http, first(event)), send(http, again(event))
    assert (one.status_code, other.status_code) == (201, 200)
    assert (other.json()["repeat"], other.json()["id"]) == (True, one.json()["id"])


def test_the_same_id_of_another_source_is_another_event(http: httpx.Client) -> None:
    answers = [structured(http, envelope(id="one", source=source)) for source in ("/a", "/b")]
    assert [answer.status_code for answer in answers] == [201, 201]


def test_the_same_id_and_source_with_other_content_is_a_conflict(http: httpx.Client) -> None:
    first = envelope()
    assert structured(http, first).status_code == 201
    assert structured(http, {**first, "data": {"notification": "polled"}}).status_code == 409


def test_a_batch_of_cloud_events_is_decided_in_order(http: httpx.Client) -> None:
    events = [cloud_event(source=f"/node-{number}") for number in range(3)]
    body = b"[" + b",".join(JSONFormat().write(event) for event in events) + b"]"
    answer = http.post("/v1/decisions/batch", headers=BATCH, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert [decision["source"] for decision in answer.json()] == ["/node-0", "/node-1", "/node-2"]
    again = http.post("/v1/decisions/batch", headers=BATCH, content=body).json()
    assert [(one["id"], one["repeat"]) for one in again] == [(one["id"], True) for one in answer.json()]


def test_one_bad_cloud_event_of_a_batch_fails_alone(http: httpx.Client) -> None:
    content = [envelope(), {**envelope(), "specversion": "0.3"}, DATA, envelope(data={"notification": {"type": "seax"}})]
    answer = http.post("/v1/decisions/batch", headers=BATCH, content=json.dumps(content))
    assert answer.status_code == 207
    assert "id" in answer.json()[0]
    assert [one["errors"][0]["pointer"] for one in answer.json()[1:]] == ["/specversion", "/specversion", "/notification/type"]


def test_lines_may_be_cloud_events_and_events(http: httpx.Client) -> None:
    answer = http.post("/v1/decisions/batch", headers=NDJSON, content=ndjson([envelope(), EVENT]))
    assert [json.loads(line)["source"] for line in answer.text.splitlines()] == ["/fleet/node-17", "node-17"]


def test_a_cloud_event_in_base64_is_the_same_event(http: httpx.Client) -> None:
    plain = envelope()
    packed = {name: value for name, value in plain.items() if name != "data"}
    packed["data_base64"] = base64.b64encode(json.dumps(DATA).encode()).decode()
    assert structured(http, plain).status_code == 201
    assert structured(http, packed).status_code == 200


def test_attributes_in_headers_are_percent_encoded(http: httpx.Client) -> None:
    answer = send(http, to_binary_event(cloud_event(source="/halle/nöd 17")))
    assert answer.json()["source"] == "/halle/nöd 17"


@pytest.mark.parametrize(
    ("changes", "pointer", "detail"),
    [
        ({"specversion": "0.3"}, "/specversion", "unknown version `0.3`; expected `1.0`"),
        ({"specversion": None}, "/specversion", "required attribute of a CloudEvent is missing"),
        ({"id": ""}, "/id", "should be text of one character or more"),
        ({"source": None}, "/source", "required attribute of a CloudEvent is missing"),
        ({"type": 7}, "/type", "should be text of one character or more"),
        ({"id": "x" * 257}, "/id", "should not be longer than 256"),
        ({"source": "/" * 257}, "/source", "should not be longer than 256"),
        ({"time": "yesterday"}, "/time", ""),
        ({"datacontenttype": "application/octet-stream"}, "/datacontenttype", "`application/octet-stream` is not JSON"),
        ({"data": None}, "/data", "expected the event in either `data` or `data_base64`"),
        ({"data": "text"}, "", "should be an object"),
        ({"data_base64": "e30="}, "/data", "expected the event in either `data` or `data_base64`"),
        ({"data": {**DATA, "source": "node-3"}}, "/source", "`node-3` differs from the CloudEvent's `source`, `/fleet/node-17`"),
        ({"data": {**DATA, "id": "own"}}, "/id", "`own` differs from the CloudEvent's `id`"),
        ({"data": {**DATA, "time": "2026-11-28T10:00:01Z"}}, "/time", "differs from the CloudEvent's `time`"),
        ({"data": {**DATA, "policy": "linux-1.0"}}, "/policy", "`linux-1.0.x` is older than the change ledger"),
    ],
)
def test_an_invalid_cloud_event_says_what_is_wrong(http: httpx.Client, changes: dict[str, Any], pointer: str, detail: str) -> None:
    answer = structured(http, {**envelope(), **changes})
    (fault,) = answer.json()["errors"]
    assert (answer.status_code, fault["pointer"]) == (422, pointer)
    assert fault["detail"].startswith(detail) or detail in fault["detail"]


def test_equal_identities_inside_and_outside_are_no_conflict(http: httpx.Client) -> None:
    outer = envelope()
    inner = {**DATA, "id": outer["id"], "source": outer["source"], "time": "2026-11-28T11:00:00+01:00"}
    assert structured(http, {**outer, "data": inner}).status_code == 201


def test_a_document_with_the_content_type_of_a_cloud_event_must_be_one(http: httpx.Client) -> None:
    answer = structured(http, EVENT)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/specversion")


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("", BATCH, "`application/cloudevents-batch+json` is for `POST /v1/decisions/batch`"),
        ("", {"content-type": "application/cloudevents+avro"}, "expected `application/cloudevents+json`"),
        ("/batch", {"content-type": "application/cloudevents+json"}, "`application/cloudevents+json` is for `POST /v1/decisions`"),
        ("/batch", {"ce-id": "1"}, "binary mode are for `POST /v1/decisions`"),
        ("", {"ce-data": "1"}, "expected each attribute of the CloudEvent once"),
        ("", {"ce-specversion": "1.0", "ce-source": "%ff"}, "expected percent-encoded UTF-8"),
    ],
)
def test_another_content_mode_names_the_right_one(http: httpx.Client, path: str, headers: dict[str, str], expected: str) -> None:
    answer = http.post(f"/v1/decisions{path}", headers=headers, content=json.dumps(EVENT))
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:ras-triage:problem:invalid-header")
    assert expected in answer.json()["detail"]


def test_binary_mode_without_a_version_is_refused(http: httpx.Client) -> None:
    answer = http.post("/v1/decisions", headers={"ce-id": "1", "ce-source": "/a", "ce-type": "t"}, json=DATA)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/specversion")


@pytest.mark.parametrize(("body", "status"), [(b"", 422), (b"{", 400), (b'{"notification": "sea"}, "source": "/b"', 400), (b"[]", 422)])
def test_the_body_in_binary_mode_is_the_event_alone(http: httpx.Client, body: bytes, status: int) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t", "content-type": "application/json"}
    assert http.post("/v1/decisions", headers=headers, content=body).status_code == status


def test_a_long_body_in_binary_mode_is_kept_and_repeated_too(http: httpx.Client) -> None:
    pages = [{"physical_address": hex(0x100000000 + (number << 12)), "state": "anonymous"} for number in range(1000)]
    data = {**DATA, "host": {**EVENT["host"], "pages": pages}}
    headers = {"ce-specversion": "1.0", "ce-id": uuid4().hex, "ce-source": "/long", "ce-type": "t"}
    first, again = (http.post("/v1/decisions", headers=headers, json=data) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    kept = http.get(f"/v1/decisions/{first.json()['id']}/event").json()
    assert json.loads(base64.b64decode(kept["data_base64"])) == data


@pytest.mark.parametrize("mode", [to_structured_event, to_binary_event])
def test_its_trace_context_is_in_the_log_unless_the_request_has_one(service: Service, mode: Any) -> None:
    message = mode(cloud_event(traceparent=PARENT))
    own = f"00-{'a' * 32}-{'b' * 16}-01"
    for request_id, headers in (("theirs", {}), ("own", {"traceparent": own})):
        sent = {**message.headers, **headers, "x-request-id": f"{mode.__name__}-{request_id}"}
        httpx.post(f"{service.url}/v1/decisions", headers=sent, content=message.body)
    assert TRACE in logged(service, f"{mode.__name__}-theirs")
    assert "a" * 32 in logged(service, f"{mode.__name__}-own")
    assert TRACE not in logged(service, f"{mode.__name__}-own")


def logged(service: Service, request_id: str) -> str:
    """Return the log line of a request, once it is written."""
    for _ in range(200):
        if found := [line for line in service.log if request_id in line]:
            return found[0]
        sleep(0.05)
    raise AssertionError("".join(service.log))
