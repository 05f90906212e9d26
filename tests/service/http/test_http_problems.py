"""Problems of single requests, with pointers into the request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from ras_triage.models.event import Event, event_key
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.service.support.application import EVENT, Call, caller

PREFIX = "urn:ras-triage:problem:"
CALL = caller()


def problem(answer: httpx.Response) -> dict[str, Any]:
    """The answer's problem, its envelope checked."""
    document: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["type"].startswith(PREFIX)
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    assert all(fault["pointer"] == "" or fault["pointer"].startswith("/") for fault in document["errors"])
    assert all(fault["detail"] for fault in document["errors"])
    return document


REFUSED = [
    ("GET", "/nothing", 404, "not-found"),
    ("GET", "/v1/nothing", 404, "not-found"),
    ("GET", "/v1/nothing/", 404, "not-found"),
    ("GET", "/v1/decisions//", 404, "not-found"),
    ("DELETE", "/v1/decisions", 405, "method-not-allowed"),
    ("DELETE", "/v1/policies", 405, "method-not-allowed"),
    ("PUT", "/v1/decode", 405, "method-not-allowed"),
    ("POST", "/healthz", 405, "method-not-allowed"),
    ("POST", "/v1/decisions", 400, "invalid-json"),
    ("POST", "/v1/decisions?dryrun=true", 422, "invalid-parameter"),
    ("POST", "/v1/decisions?dry_run=perhaps", 422, "invalid-parameter"),
    ("POST", "/v1/decode?x=1", 422, "invalid-parameter"),
    ("GET", "/v1/policies?x=1", 422, "invalid-parameter"),
    ("GET", "/v1/policies/nonsense", 404, "unknown-policy"),
    ("GET", "/v1/policies/linux-4.19.0", 404, "unknown-policy"),
    ("GET", "/v1/policies/uniform/diff/nonsense", 404, "unknown-policy"),
]


@pytest.mark.parametrize(("method", "path", "status", "kind"), REFUSED)
def test_every_refusal_is_a_problem_document(call: Call, method: str, path: str, status: int, kind: str) -> None:
    document = problem(call(method, path))

    assert (document["status"], document["type"]) == (status, PREFIX + kind)


def test_a_method_that_is_not_allowed_says_which_are(call: Call) -> None:
    assert call("GET", "/v1/decode").headers["allow"] == "POST"
    assert call("PATCH", "/v1/decisions").headers["allow"] == "GET, HEAD, POST"
    assert call("POST", "/v1/hosts/node-1").headers["allow"] == "DELETE, GET, HEAD, PUT"
    assert call("OPTIONS", "/v1/decisions/batch").headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        (b"", 0),
        (b'{"notification":\n"sea",\n}', 24),
        (b'{"\xc3\xa4":x}', 6),
        (b'{"source":"\xff"}', 11),
        (b'{"notification":"sea"} {}', 23),
        (b'{"notification":', 16),
    ],
)
def test_json_that_is_not_json_is_refused_with_its_offset(call: Call, text: bytes, offset: int) -> None:
    document = problem(call("POST", "/v1/decisions", content=text))

    assert document["type"] == PREFIX + "invalid-json"
    assert document["errors"][0]["offset"] == offset


def test_deep_nesting_is_refused(call: Call) -> None:
    document = problem(call("POST", "/v1/decisions", content=b'{"host":' + b"[" * 100_000))

    assert document["type"] == PREFIX + "invalid-json"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"x": 1}, "/x"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"notification": "nonsense"}, "/notification"),
        ({"notification": {"type": "nonsense"}}, "/notification/type"),
        ({"notification": {}}, "/notification/type"),
        ({"notification": {"type": "sea", "syndrome": "12"}}, "/notification/syndrome"),
        ({"notification": {"type": "sea", "syndrome": 1 << 64}}, "/notification/syndrome"),
        ({"notification": {"type": "sea", "syndrome": "0x" + "f" * 20_000}}, "/notification/syndrome"),
        ({"notification": {"type": "sea", "syndrome": "0x1_0"}}, "/notification/syndrome"),
        ({"time": "yesterday"}, "/time"),
        ({"status_block": "***"}, "/status_block"),
        ({"status_block": 5}, "/status_block"),
        ({"status_block": "A" * (1 << 21)}, "/status_block"),
        (
            {"status_block": {"severity": "fatal", "sections": [{"type": "memory", "physical_address": "z"}]}},
            "/status_block/sections/0/physical_address",
        ),
        ({"status_block": {"severity": "fatal", "sections": [{"type": "memory", "memory": 1}]}}, "/status_block/sections/0/memory"),
        ({"status_block": {"severity": "fatal", "sections": [{"type": "nonsense"}]}}, "/status_block/sections/0"),
        ({"status_block": {"sections": []}}, "/status_block/severity"),
        ({"host": {"sysctl": {"vm.enable_soft_offline": 2}}}, "/host/sysctl/vm.enable_soft_offline"),
        ({"host": {"pages": [{"physical_address": 0}, {"state": "free"}]}}, "/host/pages/1/physical_address"),
        ({"host": {"tasks": [{"pid": 1}, {"pid": 1}]}}, "/host"),
        ({"policy": "nonsense"}, "/policy"),
        ({"host": {"kernel": "nonsense"}}, "/host/kernel"),
    ],
)
def test_the_pointer_names_what_is_wrong(call: Call, change: dict[str, Any], pointer: str) -> None:
    document = problem(call("POST", "/v1/decisions", json={**EVENT, **change}))

    assert document["status"] == 422
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]


def test_everything_that_is_wrong_is_said_at_once(call: Call) -> None:
    document = problem(call("POST", "/v1/decisions", json={"notification": "x", "y": 1, "host": {"page_size": 1}}))

    assert sorted(fault["pointer"] for fault in document["errors"]) == ["/host/page_size", "/notification", "/y"]


def test_no_problem_speaks_of_types_of_the_implementation(call: Call) -> None:
    event = {"notification": 5, "host": 5, "status_block": {"severity": {}, "sections": {}}}
    text = call("POST", "/v1/decisions", json=event).text

    assert not [name for name in ("Host", "Notification", "tuple", "dict", "instance", "Input", "Value error") if name in text]


def test_what_the_sender_wrote_is_not_repeated_at_length(call: Call) -> None:
    answer = call("POST", "/v1/decisions", json={**EVENT, "policy": "linux-" + "9" * 100, "notification": "x" * 100_000})

    assert len(problem(answer)["detail"]) < 1000


def test_countless_mistakes_make_a_short_problem(call: Call) -> None:
    answer = call("POST", "/v1/decisions", json={**EVENT, "host": {"pages": [1] * 50_000}})

    problem(answer)
    assert len(answer.content) < 50_000


LIMIT = 10_000


def test_a_body_over_the_limit_is_refused() -> None:
    call = caller(Settings(max_body_bytes=LIMIT))

    for path in ("/v1/decisions", "/v1/decode"):
        assert problem(call("POST", path, content=b" " * (LIMIT + 1)))["type"] == PREFIX + "payload-too-large"
        assert problem(call("POST", path, content=b" " * LIMIT))["type"] != PREFIX + "payload-too-large"


def test_a_body_that_does_not_say_its_length_is_read_no_further_than_the_limit() -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1000
            yield b" " * 1000

    answer = caller(Settings(max_body_bytes=LIMIT))("POST", "/v1/decisions", content=chunks())

    assert problem(answer)["status"] == 413
    assert sent <= LIMIT + 1000


def test_a_defect_is_a_problem_that_gives_nothing_away() -> None:
    app = create_app()

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("secret")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://x") as client:
            return await client.get("/defect")

    answer = asyncio.run(ask())
    assert problem(answer)["type"] == PREFIX + "internal"
    assert "secret" not in answer.text


def is_json(body: bytes) -> bool:
    try:
        from_json(body)
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(st.binary(max_size=300))
@example(b"\xff")
@example(b"{}")
@example(b'{"notification":"sea"}')  # Hypothesis also draws literals of the code, and some are events
def test_any_body_is_answered(body: bytes) -> None:
    answer = CALL("POST", "/v1/decisions", content=body)

    if answer.status_code == 201:
        assert answer.json()["event_key"] == event_key(Event.model_validate_json(body))
    else:
        assert problem(answer)["status"] == (422 if is_json(body) else 400)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from(["id", "source", "time", "policy", "notification", "status_block", "host"]), JSON)
def test_any_value_of_a_field_is_answered_with_a_pointer_into_the_request(field: str, value: Any) -> None:
    event = {**EVENT, field: value}
    answer = CALL("POST", "/v1/decisions", content=json.dumps(event).encode())

    if answer.status_code != 201:
        assert problem(answer)["status"] == 422
        assert all(fault["pointer"].startswith(f"/{field}") for fault in answer.json()["errors"])


def slots(count: int, **same: str) -> dict[str, Any]:
    """An event whose VM has that many slots; what is not the same in all of them lies apart."""
    table = [{"slot": n, "guest_phys_addr": n << 12, "memory_size": 4096, "userspace_addr": n << 12, **same} for n in range(count)]
    return {**EVENT, "host": {"vms": [{"id": "vm-1", "pid": 103, "memslots": table}]}}


@pytest.mark.parametrize(
    ("event", "pointer", "words"),
    [
        (slots(20_000, guest_phys_addr="0x40000000"), "/host/vms/0/memslots/1", "overlaps entry 0"),
        (slots(20_000, guest_phys_addr="0xfffffffffffff000"), "/host/vms/0/memslots/0", "exceeds 64 bits"),
        (slots(20_000, memory_size="0x0"), "/host/vms/0/memslots/0", "deletes a slot"),
        (slots(40_000), "/host/vms/0/memslots", "should not be longer than 32767"),
    ],
)
def test_a_slot_table_that_kvm_would_not_take_is_refused_at_its_slot(
    shared_call: Call, event: dict[str, Any], pointer: str, words: str
) -> None:
    document = problem(shared_call("POST", "/v1/decisions", json=event))

    assert document["status"] == 422
    assert [fault["pointer"] for fault in document["errors"]] == [pointer]
    assert words in document["errors"][0]["detail"]


def test_a_hundred_thousand_slots_are_more_than_is_read(call: Call) -> None:
    assert problem(call("POST", "/v1/decisions", json=slots(100_000)))["status"] == 413
