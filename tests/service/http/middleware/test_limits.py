"""Request limits: headers, concurrency, body size, number of values."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from ras_triage.service.api.json_limits import MAX_VALUES
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.concurrency import ConcurrencyLimits
from ras_triage.service.http.middleware.limits import LimitsMiddleware
from ras_triage.service.http.middleware.security_headers import SecurityHeadersMiddleware
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT, Call, caller
from tests.service.support.secured_application import SecuredApplication, kind

ANSWERS: Any = [{"type": "http.response.start", "status": 200, "headers": []}, {"type": "http.response.body", "body": b""}]


class Slow:
    """An application that answers when it is told to, and knows how many wait."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.waiting = 0

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.waiting += 1
        await self.go.wait()
        self.waiting -= 1
        for message in ANSWERS:
            await send(dict(message))


async def ask(app: Any, path: str = "/v1/policies", **scope: Any) -> dict[str, Any]:
    """What an ASGI application answers: its status, headers and body."""
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    asked = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [], "scheme": "http"}
    await app({**asked, **scope}, receive, send)
    headers = {name.decode(): value.decode() for name, value in said[0]["headers"]}
    return {"status": said[0]["status"], "headers": headers, "body": b"".join(message.get("body", b"") for message in said)}


@pytest.mark.parametrize("scope", [{"headers": [(b"x", b"y" * 200)]}, {"headers": [(b"a", b"")] * 50}, {"query_string": b"q" * 200}])
def test_headers_over_the_limit_are_refused_before_anything_is_read(scope: dict[str, Any]) -> None:
    answer = asyncio.run(ask(LimitsMiddleware(Slow(), Settings(max_header_bytes=200)), **scope))

    problem = json.loads(answer["body"])
    assert (answer["status"], problem["status"], problem["type"]) == (431, 431, "urn:ras-triage:problem:headers-too-large")
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert int(answer["headers"]["content-length"]) == len(answer["body"])


def test_more_requests_than_may_be_under_way_are_told_to_come_again() -> None:
    async def crowd() -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
        slow = Slow()
        app = LimitsMiddleware(slow, Settings(max_in_flight=3))
        under_way = [asyncio.create_task(ask(app)) for _ in range(3)]
        while slow.waiting < 3:
            await asyncio.sleep(0)
        refused = await ask(app)
        probe = asyncio.create_task(ask(app, "/healthz"))
        await asyncio.sleep(0)
        slow.go.set()
        return refused, await probe, await asyncio.gather(*under_way), await ask(app)

    refused, probe, under_way, later = asyncio.run(crowd())
    assert refused["status"] == 503
    assert refused["headers"]["retry-after"] in ("1", "2")
    assert json.loads(refused["body"])["type"] == "urn:ras-triage:problem:busy"
    assert [answer["status"] for answer in (probe, *under_way, later)] == [200] * 5


def test_a_request_that_fails_is_under_way_no_longer() -> None:
    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError

    async def fail_often() -> LimitsMiddleware:
        app = LimitsMiddleware(fail, Settings(max_in_flight=1))
        for _ in range(3):
            with pytest.raises(RuntimeError):
                await ask(app)
        return app

    app = asyncio.run(fail_often())
    assert (app.requests, app.bytes) == (0, 0)


async def _bytes(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * 1000


def test_bodies_that_are_held_together_are_bounded() -> None:
    call = caller(Settings(max_in_flight_bytes=5000))

    assert kind(call("POST", "/v1/decode", content=_bytes(6))) == (503, "busy")
    assert kind(call("POST", "/v1/decode", content=_bytes(5))) == (422, "malformed-bytes")


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decode", "/v1/syndromes"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"host":'])
def test_json_that_is_nested_without_end_is_refused_where_it_gets_too_deep(path: str, opening: bytes, shared_call: Call) -> None:
    answer = shared_call("POST", path, content=opening * 100_000, headers={"content-type": "application/json"})

    assert kind(answer) == (400, "invalid-json")
    assert "recursion limit" in answer.json()["detail"]
    assert 0 < answer.json()["errors"][0]["offset"] < 3000


MILLIONS = [
    lambda: b'{"host":{"pages":[' + b"1," * (2 << 20),
    lambda: b'{"host":{"tasks":[' + b'{"pid":1},' * 400_000,
    lambda: b'{"status_block":{"sections":[' + b"{}," * 1_300_000,
    lambda: b"[" + b"0," * 2_000_000,
    lambda: b'{"values":[' + b"0," * 2_000_000,
]


@pytest.mark.parametrize("make", MILLIONS)
@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decode", "/v1/syndromes"])
def test_millions_of_values_are_refused_before_they_are_taken_apart(path: str, make: Callable[[], bytes], shared_call: Call) -> None:
    answer = shared_call("POST", path, content=make()[: 4 << 20], headers={"content-type": "application/json"})

    assert kind(answer) == (413, "too-many-values")
    assert str(MAX_VALUES) in answer.json()["detail"]


def test_every_response_has_the_security_headers() -> None:
    secured = SecuredApplication()
    for path in ("/healthz", "/v1/policies", "/v1/nothing", "/nothing"):
        headers = secured.request("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "strict-transport-security" not in headers
        assert headers.get("cache-control") == ("no-store" if path.startswith("/v1/") else None)


def test_a_defect_is_answered_with_the_same_headers() -> None:
    secured = SecuredApplication()

    @secured.app.get("/v1/defect")
    async def defect() -> None:
        raise RuntimeError

    async def request_defect() -> httpx.Response:
        transport = httpx.ASGITransport(secured.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/v1/defect")

    answer = asyncio.run(request_defect())
    assert kind(answer) == (500, "internal")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_over_tls_browsers_are_told_to_stay_with_it() -> None:
    answer = asyncio.run(ask(SecurityHeadersMiddleware(_plain), scheme="https"))

    assert answer["headers"]["strict-transport-security"] == "max-age=31536000"


def test_an_answer_that_has_a_header_of_its_own_keeps_it() -> None:
    assert asyncio.run(ask(SecurityHeadersMiddleware(_plain)))["headers"]["cache-control"] == "max-age=1"


async def _plain(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"max-age=1")]})
    await send({"type": "http.response.body", "body": b""})


def test_the_page_to_try_it_on_may_run_what_it_needs_and_nothing_of_elsewhere() -> None:
    answer = SecuredApplication().request("GET", "/docs")
    policy = answer.headers["content-security-policy"]

    assert "script-src 'self' 'unsafe-inline'" in policy
    assert "http" not in policy
    for part in answer.text.split('"'):
        assert not part.startswith(("http:", "https:", "//"))


def test_an_endless_header_is_cut_off_by_a_real_server() -> None:
    with running(Settings(max_header_bytes=4096)) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=10) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
            sent = 0
            try:
                while sent < 10 << 20:
                    sent += connection.send(b"y" * 65536)
            except OSError:
                pass
            assert sent < 10 << 20
        long = httpx.get(f"{url}/healthz", headers={"X": "y" * 5000})
        assert long.status_code in (400, 431)
        assert httpx.get(f"{url}/healthz").status_code == 200


def test_an_event_within_every_limit_is_decided() -> None:
    assert caller()("POST", "/v1/decisions", json=EVENT).status_code == 201


def test_a_batch_that_would_wait_too_long_is_refused_before_anything_is_spent_on_it() -> None:
    reached: list[str] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        reached.append(scope["path"])
        for message in ANSWERS:
            await send(dict(message))

    async def run() -> list[dict[str, Any]]:
        settings = Settings(max_batch_wait_s=5.0)
        limits = ConcurrencyLimits(settings)
        limits.admission.queue("192.0.2.1", 10_000)
        limited = LimitsMiddleware(app, settings, limits)
        paths = ("/v1/decisions/batch", "/v1/import", "/v1/decisions", "/healthz")
        answers = [await ask(limited, path, client=("192.0.2.1", 1)) for path in paths]
        return [*answers, await ask(limited, "/v1/decisions/batch", client=("192.0.2.2", 1))]

    batch, imported, single, probe, other = asyncio.run(run())
    assert [answer["status"] for answer in (batch, imported)] == [503, 503]
    assert 10 <= int(batch["headers"]["retry-after"]) <= 20
    assert [answer["status"] for answer in (single, probe, other)] == [200] * 3
    assert reached == ["/v1/decisions", "/healthz", "/v1/decisions/batch"]
