"""Problem documents of every operation, for every kind of invalid request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Match

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from ras_triage.service.security.guard import Security
from ras_triage.service.security.keys import create
from ras_triage.service.store.port import ApiKey, QueryTooSlow, Store, StoreDamaged, StoreError, StoreUnavailable
from ras_triage.service.store.temporary import TemporaryStore
from ras_triage.service.store.writer import Writer
from tests.service.support.application import EVENT, Call, client

URN: Final = re.compile(r"urn:ras-triage:problem:[a-z]+(-[a-z0-9]+)*")

PLACES: Final = {"identity": "018f0000-0000-7000-8000-000000000000", "name": "uniform", "a": "uniform", "b": "uniform", "source": "node-1"}

FILES: Final = ("/openapi.json", "/page/{name}", "/docs", "/docs/oauth2-redirect", "/static-offline-docs")
"""What is no operation, and not in the document."""

OPEN: Final = ("/", "/healthz", "/readyz")

WITHOUT_LIMITS: Final = ("/healthz", "/readyz", "/metrics")

ASK_NOTHING: Final = ("/", "/healthz")
"""Paths of routes that use nothing of the application."""

QUESTIONS: Final = ("/v1/decode", "/v1/syndromes")
"""Paths for which every scope is enough."""

Operation = tuple[str, str]
"""Method and path template."""


def operations() -> list[Operation]:
    paths = create_app().openapi()["paths"]
    return sorted((method.upper(), path) for path, methods in paths.items() for method in methods)


OPERATIONS: Final = operations()
TAKE_BODIES: Final = [("POST", "/v1/decisions"), ("POST", "/v1/decisions/batch"), ("POST", "/v1/decode"), ("POST", "/v1/syndromes")]
TAKE_BODIES += [("PUT", "/v1/hosts/{source}"), ("PUT", "/v1/policies/{name}")]
ASK_THE_STORE: Final = [("POST", "/v1/decisions")] + [
    (method, path)
    for method, path in OPERATIONS
    if path.startswith(("/v1/hosts", "/v1/poisoned-pages", "/v1/store", "/v1/decisions")) and method != "POST"
]


def where(path: str) -> str:
    return path.format(**PLACES)


def body(method: str, path: str) -> dict[str, Any]:
    """A body that an operation can do something with."""
    if (method, path) not in TAKE_BODIES:
        return {}
    return {"json": {**EVENT, "id": "e-1"} if path == "/v1/decisions" else [EVENT] if path.endswith("batch") else EVENT["host"]}


def enveloped(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """The problem in an answer, everything checked that all of them have in common."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["type"]) == (status, f"urn:ras-triage:problem:{kind}"), document
    assert URN.fullmatch(document["type"])
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    assert set(document) <= {"type", "title", "status", "detail", "errors", "conflict"}
    assert all({"pointer", "detail"} <= set(fault) for fault in document["errors"])
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) > 0
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    if status == 405:
        assert answer.headers["allow"]
    return document


class Failing:
    """A store that fails in one way, whatever it is asked."""

    def __init__(self, error: StoreError) -> None:
        self._error = error
        self._store = TemporaryStore()

    def __getattr__(self, name: str) -> Any:
        if name in ("close", "api_keys", "policies"):
            return getattr(self._store, name)

        def fail(*_: Any) -> Any:
            raise self._error

        return fail


@contextmanager
def calling(settings: Settings | None = None, store: Store | Failing | None = None, app: FastAPI | None = None) -> Iterator[Call]:
    with client(app or create_app(settings, cast("Store | None", store))) as call:
        yield call


@pytest.fixture(scope="module")
def open_call() -> Iterator[Call]:
    with calling(Settings(max_body_bytes=2000, max_batch_bytes=2000)) as call:
        yield call


def test_every_route_is_in_the_list(open_call: Call) -> None:
    """What the router answers is in the document that the tests below go through, or is one of the files."""
    app = create_app()
    templates: set[str] = set()

    def collect(routes: Any) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                collect(inner.routes)
            else:
                templates.add(route.path_format.partition("{path}")[0].rstrip("/") or "/")

    collect(app.routes)
    documented = {path for _, path in OPERATIONS}
    assert {template for template in templates if template not in FILES} == documented
    for method, path in OPERATIONS:
        scope = {"type": "http", "method": method, "path": where(path), "headers": [], "root_path": "", "query_string": b""}
        assert any(route.matches(scope)[0] is Match.FULL for route in app.routes)
        assert open_call("PATCH", where(path)).status_code == 405


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_method_that_is_not_possible(open_call: Call, method: str, path: str) -> None:
    enveloped(open_call("PATCH", where(path), **body(method, path)), 405, "method-not-allowed")


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[1].startswith("/v1/")])
def test_a_parameter_that_is_not_known(open_call: Call, method: str, path: str) -> None:
    document = enveloped(open_call(method, f"{where(path)}?nonsense=1", **body(method, path)), 422, "invalid-parameter")

    assert document["errors"][0]["parameter"] == "nonsense"


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_a_path_that_does_not_exist(open_call: Call, method: str, path: str) -> None:
    if "{source}" not in path and path != "/v1/poisoned-pages":  # a source's name may have anything in it
        answer = open_call(method, f"{where(path)}/no/such/thing", **body(method, path))
        enveloped(answer, 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v1/decisions/{identity}", "not-found"),
        ("GET", "/v1/decisions/{identity}/event", "not-found"),
        ("GET", "/v1/hosts/{source}", "not-found"),
        ("DELETE", "/v1/hosts/{source}", "not-found"),
        ("GET", "/v1/policies/nonsense", "unknown-policy"),
        ("GET", "/v1/policies/uniform/diff/nonsense", "unknown-policy"),
        ("GET", "/v1/policies/nonsense/diff/uniform", "unknown-policy"),
    ],
)
def test_an_item_that_does_not_exist(open_call: Call, method: str, path: str, kind: str) -> None:
    enveloped(open_call(method, where(path)), 404, kind)


@pytest.mark.parametrize(("method", "path"), TAKE_BODIES)
def test_a_body_that_cannot_be_read(open_call: Call, method: str, path: str) -> None:
    json = {"content-type": "application/json"}
    url = where(path)

    broken = open_call(method, url, content=b"{", headers=json)
    enveloped(broken, 400, "invalid-batch" if path.endswith("batch") else "invalid-json")
    enveloped(open_call(method, url, content=b" " * 2001, headers=json), 413, "payload-too-large")
    enveloped(open_call(method, url, content=b"{}", headers={**json, "content-encoding": "br"}), 415, "unsupported-encoding")
    enveloped(open_call(method, url, content=b"{}", headers={**json, "content-encoding": "gzip"}), 400, "malformed-encoding")


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/decisions", "invalid-event"),
        ("POST", "/v1/decode", "invalid-request"),
        ("POST", "/v1/syndromes", "invalid-request"),
        ("PUT", "/v1/hosts/{source}", "invalid-host"),
        ("PUT", "/v1/policies/{name}", "invalid-policy"),
    ],
)
def test_a_body_that_is_something_else(open_call: Call, method: str, path: str, kind: str) -> None:
    enveloped(open_call(method, where(path), json={"nonsense": 1}), 422, kind)


@pytest.mark.parametrize(
    ("method", "url", "headers", "status", "kind"),
    [
        ("POST", "/v1/decisions", {"idempotency-key": ""}, 400, "invalid-header"),
        ("POST", "/v1/decisions/batch", {"idempotency-key": "k" * 256}, 400, "invalid-header"),
        ("GET", "/v1/decisions/stream", {"last-event-id": "x"}, 400, "invalid-header"),
        ("PUT", "/v1/hosts/node-1", {"if-match": '"7"'}, 412, "precondition-failed"),
        ("DELETE", "/v1/hosts/node-1", {"if-match": '"7"'}, 412, "precondition-failed"),
        ("GET", "/v1/decisions?limit=0", {}, 422, "invalid-parameter"),
        ("GET", "/v1/decisions?cursor=x", {}, 422, "invalid-parameter"),
        ("GET", "/v1/decisions/stats?bucket=0", {}, 422, "invalid-parameter"),
        ("GET", "/v1/decisions/stats?group_by=colour", {}, 422, "invalid-parameter"),
        ("GET", "/v1/hosts/node-1?version=x", {}, 422, "invalid-parameter"),
        ("POST", "/v1/decisions?dry_run=perhaps", {}, 422, "invalid-parameter"),
    ],
)
def test_a_header_or_parameter_that_has_no_such_value(
    open_call: Call, method: str, url: str, headers: dict[str, str], status: int, kind: str
) -> None:
    content = body(method, url.partition("?")[0]) or ({"json": {}} if method == "PUT" else {})
    enveloped(open_call(method, url, headers=headers, **content), status, kind)


def test_two_events_of_one_name(open_call: Call) -> None:
    open_call("POST", "/v1/decisions", json={**EVENT, "id": "twice"})

    document = enveloped(
        open_call("POST", "/v1/decisions", json={**EVENT, "id": "twice", "source": "node-17", "host": {}}), 409, "conflict"
    )

    assert set(document["conflict"]) == {"decision", "first_event_key", "event_key"}


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[1] not in (*OPEN, "/metrics")])
def test_untrusted_host_and_origin(open_call: Call, method: str, path: str) -> None:
    enveloped(open_call(method, where(path), headers={"host": "rebound.example"}, **body(method, path)), 421, "misdirected-request")
    if method != "GET":
        answer = open_call(method, where(path), headers={"origin": "https://elsewhere.example"}, **body(method, path))
        enveloped(answer, 403, "cross-origin")


@pytest.fixture(scope="module")
def closed() -> Iterator[tuple[Call, dict[str, str]]]:
    """A service with keys, and one with each scope."""
    keys: list[ApiKey] = []
    shown: dict[str, str] = {}
    for scope in ("decide", "read", "admin"):
        key, shown[scope] = create("somebody", (scope,), 0)
        keys.append(key)
    settings = Settings(rate_limit=1.0, rate_burst=1000)
    app = create_app(settings)

    async def load() -> list[ApiKey]:
        return keys

    app.state.security = Security(settings, load)
    with calling(app=app) as call:
        yield call, shown


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[1] not in OPEN])
def test_missing_and_insufficient_credentials(closed: tuple[Call, dict[str, str]], method: str, path: str) -> None:
    call, keys = closed
    scope = "read" if method == "POST" and path != "/v1/decisions/stream-tickets" else "decide"

    enveloped(call(method, where(path), **body(method, path)), 401, "unauthenticated")
    unknown = {"authorization": f"Bearer {keys['read'][:-4]}xxxx"}
    enveloped(call(method, where(path), headers=unknown, **body(method, path)), 401, "unauthenticated")
    if path not in QUESTIONS:
        known = {"authorization": f"Bearer {keys[scope]}"}
        enveloped(call(method, where(path), headers=known, **body(method, path)), 403, "forbidden")


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[1] not in OPEN])
def test_rate_limit_exceeded(method: str, path: str) -> None:
    with calling(Settings(rate_limit=0.001, rate_burst=1)) as call:
        call("GET", "/v1/policies")
        enveloped(call(method, where(path), **body(method, path)), 429, "rate-limited")


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_oversized_headers_and_too_many_requests(method: str, path: str) -> None:
    with calling(Settings(max_header_bytes=500, max_in_flight=0)) as call:
        enveloped(call(method, where(path), headers={"x": "y" * 500}, **body(method, path)), 431, "headers-too-large")
        if path not in WITHOUT_LIMITS:
            enveloped(call(method, where(path), **body(method, path)), 503, "busy")


FAILURES: Final = [
    (StoreUnavailable("secret"), 503, "store-unavailable"),
    (StoreDamaged("secret"), 500, "store-damaged"),
    (QueryTooSlow("secret"), 503, "query-too-slow"),
]


@pytest.mark.parametrize(("error", "status", "kind"), FAILURES)
def test_a_store_that_fails(error: StoreError, status: int, kind: str) -> None:
    with calling(store=Failing(error)) as call:
        for method, path in ASK_THE_STORE:
            answer = call(method, where(path), **body(method, path))
            enveloped(answer, status, kind)
            assert "secret" not in answer.text
        enveloped(call("GET", "/readyz"), 503, "not-ready")


def test_a_store_that_fails_in_a_batch_is_a_problem_in_the_place_of_each_answer() -> None:
    with calling(store=Failing(StoreUnavailable("secret"))) as call:
        answer = call("POST", "/v1/decisions/batch", json=[EVENT | {"id": "1"}, EVENT | {"id": "2"}])

    assert answer.status_code == 207
    assert [item["type"] for item in answer.json()] == ["urn:ras-triage:problem:store-unavailable"] * 2
    assert [item["retry_after_s"] for item in answer.json()] == [1, 1], "as the header of a single answer says"
    assert "secret" not in answer.text


def test_a_store_that_fails_in_an_import_is_a_problem_with_a_hint_in_the_line_of_each_error() -> None:
    with calling(store=Failing(StoreUnavailable("secret"))) as call:
        answer = call("POST", "/v1/import", content=b'{"notification":"polled","id":"1"}\n')

    assert '"type":"urn:ras-triage:problem:store-unavailable"' in answer.text
    assert '"retry_after_s":1' in answer.text


def test_a_queue_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "_has_room", lambda *_: False)
    with calling() as call:
        enveloped(call("POST", "/v1/decisions", json=EVENT), 503, "busy")
        assert "decisions wait to be written" in enveloped(call("GET", "/readyz"), 503, "not-ready")["detail"]
        assert call("GET", "/healthz").status_code == 200


def test_a_problem_that_no_retry_mends_has_no_hint(open_call: Call) -> None:
    (item,) = open_call("POST", "/v1/decisions/batch", json=[{"notification": "nonsense"}]).json()

    assert "retry_after_s" not in item


@pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if one[1] not in ASK_NOTHING])
def test_a_defect(method: str, path: str) -> None:
    """Everything that a route can ask for is gone."""
    app = create_app()
    with calling(app=app) as call:
        kept = app.state.runtime
        del app.state.runtime, app.state.settings
        app.state.metrics.render = None
        app.state.security = None if path != "/metrics" else app.state.security
        try:
            enveloped(call(method, where(path), **body(method, path)), 500, "internal")
        finally:
            app.state.runtime = kept
