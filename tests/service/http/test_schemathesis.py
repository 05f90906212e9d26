"""Schemathesis against a server: every response conforms to the OpenAPI document."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.generation.meta import CoveragePhaseData
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    missing_required_header,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.effort import effort
from tests.service.support.application import EVENT, caller

EXAMPLES = effort(10, 200)
CASES = effort(1, 10_000)

ENDLESS = "/v1/decisions/stream"
"""Answers a good request without end, where Schemathesis waits for one: tested below, and in `test_http_stream`."""

NAMED_LIKE_DECISIONS = ("/v1/decisions/batch", "/v1/decisions/stream-tickets")
"""GET is possible there, and asks for the decision of this name: the document has it in another place than where its `Allow` is checked."""

CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    missing_required_header,
    unsupported_method,
    allow_header_conformance,
]
"""Not among them, whether data after the schema is taken and other data refused: JSON Schema cannot say all that an event has to hold to
(a slot overlaps another, base64 in a string, two tasks of one pid), and what the service takes beyond the schema (numbers in hexadecimal,
a parameter's empty value) is no mistake."""


def document() -> dict[str, Any]:
    """The document with `default` taken out, behind which any status could hide."""
    found = deepcopy(caller()("GET", "/openapi.json").json())
    for operations in found["paths"].values():
        for operation in operations.values():
            del operation["responses"]["default"]
    return found


@schemathesis.serializer("application/x-ndjson")
def lines(_context: schemathesis.SerializationContext, value: Any) -> bytes:
    """The schema of NDJSON is text: lines of whatever was thought of, with an event among them."""
    return b"\n".join((str(value).encode("utf-8", "surrogateescape"), json.dumps(EVENT).encode(), json.dumps(value, default=str).encode()))


SCHEMA = schemathesis.openapi.from_dict(document())
SCHEMA.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


found: Counter[tuple[str, str, str]] = Counter()


@SCHEMA.hook
def filter_case(_context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Keep one case of each mistake in each field; an event has 5,500, with every wrong type in every place."""
    phase = case.meta.phase.data
    if not isinstance(phase, CoveragePhaseData):
        return True
    kind = (case.operation.label, phase.scenario, phase.description)
    found[kind] += 1
    return found[kind] <= CASES


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(store="memory:")) as url:
        yield url


@SCHEMA.exclude(path=ENDLESS).parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_is_answered_as_the_document_says(case: schemathesis.Case, url: str) -> None:
    excluded = [allow_header_conformance] if case.path in NAMED_LIKE_DECISIONS else []
    case.call_and_validate(base_url=url, checks=CHECKS, excluded_checks=excluded, timeout=60)


@pytest.mark.parametrize("last", ["", "-1", "x", "9" * 40, "\u00b2", "1 2"])
def test_a_stream_that_cannot_be_resumed_is_refused_as_the_document_says(url: str, last: str) -> None:
    answer = httpx.get(f"{url}{ENDLESS}", headers={"Last-Event-ID": last.encode()})

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("query", ["?nonsense=1", "?since=yesterday", "?physical_address=-1", "?cursor=x"])
def test_a_stream_of_nothing_that_there_is_is_refused_as_the_document_says(url: str, query: str) -> None:
    answer = httpx.get(f"{url}{ENDLESS}{query}")

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_stream_begins_as_the_document_says(url: str) -> None:
    with httpx.stream("GET", f"{url}{ENDLESS}") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert next(answer.iter_lines()).startswith(":")
