"""Size limits of problem documents that repeat input."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event
from ras_triage.service.api.problems import (
    MAX_DETAIL,
    ErrorDetail,
    Problem,
    invalid,
    invalid_parameter,
    malformed,
    pointer_to,
    problem_json,
)
from tests.service.support.application import EVENT, Call

LONG = "n" * (1 << 20)
PATH = "p" * 10_000

REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/decisions", {"json": {**EVENT, LONG: 1}}),
    ("POST", "/v1/decisions", {"json": {**EVENT, "host": {"sysctl": {LONG: 1}}}}),
    ("POST", "/v1/decisions", {"json": {**EVENT, "policy": LONG}}),
    ("POST", "/v1/decisions", {"json": {**EVENT, "status_block": {"severity": "fatal", "sections": [{"type": LONG}]}}}),
    ("POST", "/v1/decisions", {"json": {**EVENT, "status_block": {"severity": "fatal", "sections": [{"type": "memory", LONG: 1}]}}}),
    ("POST", "/v1/decode", {"json": {"status_block": "", LONG: 1}}),
    ("POST", "/v1/syndromes", {"json": {LONG: 1}}),
    ("PUT", "/v1/hosts/node-1", {"json": {LONG: 1}}),
    ("POST", "/v1/decisions/batch", {"json": [{**EVENT, LONG: 1}]}),
    ("GET", f"/{PATH}", {}),
    ("GET", f"/v1/decisions/{PATH}", {}),
    ("GET", f"/v1/decisions/{PATH}/event", {}),
    ("GET", f"/v1/hosts/{PATH}", {}),
    ("GET", f"/v1/policies/{PATH}", {}),
    ("GET", f"/v1/policies?{PATH}=1", {}),
    ("GET", f"/v1/decisions?action={PATH}", {}),
    ("GET", f"/v1/decisions?severity={PATH}", {}),
    ("POST", f"/v1/decisions?dry_run={PATH}", {"json": EVENT}),
    ("POST", f"/v1/import?as={PATH}", {"content": b""}),
    ("POST", f"/v1/import?kernel={PATH}", {"content": b""}),
    (PATH, "/v1/decisions", {}),
    ("POST", "/v1/decisions", {"json": EVENT, "headers": {"idempotency-key": PATH}}),
    ("POST", "/v1/decisions", {"json": EVENT, "headers": {"content-encoding": PATH}}),
    ("POST", "/v1/decisions", {"json": EVENT, "headers": {"origin": f"http://{PATH}"}}),
    ("POST", "/v1/decisions", {"json": EVENT, "headers": {"host": PATH}}),
    ("GET", "/v1/decisions/stream", {"headers": {"last-event-id": PATH}}),
]


@pytest.mark.parametrize(("method", "path", "arguments"), REQUESTS, ids=range(len(REQUESTS)))
def test_input_that_a_problem_repeats_is_cut(shared_call: Call, method: str, path: str, arguments: dict[str, Any]) -> None:
    answer = shared_call(method, path, **arguments)

    assert answer.status_code >= 400 or answer.status_code == 207
    assert len(answer.content) < 4000


def test_a_hundred_long_members_make_a_problem_of_bounded_size(shared_call: Call) -> None:
    names = {f"{number}{'n' * 5000}": {"deep": 1} for number in range(200)}
    answer = shared_call("POST", "/v1/decisions", json={**EVENT, "host": names})

    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 100
    assert len(answer.content) < 100_000


def test_a_shortened_pointer_keeps_the_members_that_lead_to_the_fault(shared_call: Call) -> None:
    (fault,) = shared_call("POST", "/v1/decisions", json={**EVENT, "host": {"sysctl": {LONG: 1}}}).json()["errors"]

    assert fault["pointer"] == f"/host/sysctl/{'n' * 63}…"


@given(st.lists(st.text(max_size=400) | st.integers(0, 1 << 70), max_size=300))
def test_a_pointer_is_short_and_every_token_is_escaped(path: list[Any]) -> None:
    pointer = pointer_to(path)

    assert len(pointer) <= MAX_DETAIL
    assert pointer == "" or pointer.startswith("/")
    assert all(rest[:1] in ("0", "1") for rest in pointer.split("~")[1:])
    if sum(len(str(step)) + 3 for step in path) < 200 and all(len(str(step)) <= 64 for step in path) and len(path) < 30:
        tokens = pointer.split("/")[1:]
        assert [token.replace("~1", "/").replace("~0", "~") for token in tokens] == [str(step) for step in path]


@given(st.text(min_size=200, max_size=5000))
def test_every_text_of_a_problem_is_bounded_whoever_makes_it(text: str) -> None:
    problems = [
        Problem("urn:x", "x", 400, text * 10, (ErrorDetail(text, text, parameter=text, field=text),)),
        invalid_parameter(text, text),
        malformed(MalformedBytes(text, offset=0, field=text)),
    ]

    for problem in problems:
        assert len(problem.detail) <= 1000
        assert all(len(part) <= MAX_DETAIL for fault in problem.errors for part in (fault.pointer, fault.detail, fault.parameter or ""))
        from_json(problem_json(problem))


EVENTS = TypeAdapter(Event)


@given(st.integers(0, 30_000), st.integers(0, 30_000), st.integers(0, 50))
def test_the_offset_of_broken_json_is_exact_however_many_lines_there_are(before: int, after: int, column: int) -> None:
    document = b"{" + b"\n" * before + b" " * column + b"x" + b"\n" * after
    with pytest.raises(ValidationError) as caught:
        EVENTS.validate_json(document)

    assert invalid(caught.value, document, "event", Event).errors[0].offset == document.index(b"x")


def test_millions_of_empty_lines_before_a_fault_are_not_walked_one_by_one() -> None:
    """Counted by operations: a search for one line feed after the other would be 4 million of them."""
    searches = 0

    class Counting(bytes):
        def index(self, *arguments: Any) -> int:
            nonlocal searches
            searches += 1
            return super().index(*arguments)

    document = Counting(b"\n" * (4 << 20) + b"x")
    with pytest.raises(ValidationError) as caught:
        EVENTS.validate_json(bytes(document))

    assert invalid(caught.value, document, "event", Event).errors[0].offset == 4 << 20
    assert searches <= 4096
