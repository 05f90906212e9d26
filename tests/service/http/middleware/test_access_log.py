"""Access log: request ids, traces, disconnects, defects."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ras_triage.service.http.app import create_app
from ras_triage.service.http.middleware.access_log import AccessLogMiddleware
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.metrics import Metrics
from ras_triage.service.telemetry.tracing import outgoing_headers
from tests.service.support.application import EVENT

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def ask(app: ASGIApp, method: str = "GET", path: str = "/", **arguments: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        async with started(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(run())


def started(app: ASGIApp) -> AbstractAsyncContextManager[Any]:
    """A whole application runs while it is called."""
    return app.router.lifespan_context(app) if isinstance(app, FastAPI) else nullcontext()


@pytest.fixture
def access(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "ras_triage")
    return caplog


def facts(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """Those of the one access line."""
    (record,) = (record for record in caplog.records if record.name == "ras_triage.access")
    found: dict[str, Any] = record.__dict__["facts"]
    return found


class Stub:
    """An application of one behaviour."""

    def __init__(self, *messages: Message, error: Exception | None = None) -> None:
        self.messages = messages
        self.error = error
        self.seen: dict[str, Any] = {}

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.seen = {**logs.bound(), **outgoing_headers()}
        for message in self.messages:
            await send(dict(message))
        if self.error is not None:
            raise self.error


BEGIN = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"part", "more_body": True}
END = {"type": "http.response.body", "body": b"end"}


def test_every_answer_has_an_id() -> None:
    app = create_app()

    for method, path in [("GET", "/healthz"), ("GET", "/nothing"), ("PUT", "/v1/decisions"), ("POST", "/v1/decisions"), ("GET", "/docs")]:
        assert UUID(ask(app, method, path).headers["x-request-id"]).version == 7


def test_an_id_of_the_client_is_kept_if_it_is_sane() -> None:
    stub = Stub(BEGIN, END)

    assert (
        ask(AccessLogMiddleware(stub, Metrics()), headers={"x-request-id": "batch-7/line:12"}).headers["x-request-id"] == "batch-7/line:12"
    )
    assert stub.seen["request_id"] == "batch-7/line:12"


@pytest.mark.parametrize("name", [b"", b"two words", b"a" * 129, b"\xc3\xa4", b"a\tb", b'"quoted"', b"<script>"])
def test_an_id_that_is_not_sane_is_replaced(name: bytes) -> None:
    answer = ask(AccessLogMiddleware(Stub(BEGIN, END), Metrics()), headers=[(b"x-request-id", name)])

    assert UUID(answer.headers["x-request-id"])


def test_the_line_says_what_was_asked_and_how_it_went(access: pytest.LogCaptureFixture) -> None:
    answer = ask(create_app(), "GET", "/v1/policies/linux-4.19.0", headers={"authorization": "Bearer secret"})

    line = facts(access)
    assert line.pop("duration_ms") > 0
    assert line == {
        "method": "GET",
        "route": "/v1/policies/{name}",
        "status": 404,
        "bytes_in": 0,
        "bytes_out": len(answer.content),
        "client": "127.0.0.1",
    }


def test_what_leads_nowhere_has_no_template(access: pytest.LogCaptureFixture) -> None:
    ask(create_app(), "GET", "/no/such/thing")

    assert (facts(access)["route"], facts(access)["status"]) == ("other", 404)


def test_the_trace_goes_to_the_log_and_on_to_whom_we_call() -> None:
    stub = Stub(BEGIN, END)
    ask(AccessLogMiddleware(stub, Metrics()), headers={"traceparent": PARENT, "tracestate": "congo=1"})

    assert (stub.seen["trace_id"], stub.seen["traceparent"], stub.seen["tracestate"]) == (TRACE, PARENT, "congo=1")


def test_without_a_trace_nothing_is_passed_on() -> None:
    stub = Stub(BEGIN, END)
    observed = AccessLogMiddleware(stub, Metrics())
    ask(observed, headers={"traceparent": PARENT})
    ask(observed, headers={"traceparent": "nonsense", "tracestate": "congo=1"})

    assert set(stub.seen) == {"request_id"}


def test_bodies_stream_through_both_ways() -> None:
    """Each part of the body is answered before the next one is sent."""
    order: list[str] = []

    async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(BEGIN))
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def run() -> None:
        parts = iter([b"a", b"b", b"c"])

        async def receive() -> Message:
            part = next(parts)
            order.append(f"in {part.decode()}")
            return {"type": "http.request", "body": part, "more_body": part != b"c"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body":
                order.append(f"out {message['body'].decode()}")

        await AccessLogMiddleware(echo, Metrics())({"type": "http", "method": "POST", "headers": [], "client": None}, receive, send)

    asyncio.run(run())
    assert order == ["in a", "out a", "in b", "out b", "in c", "out c"]


def test_bytes_are_counted_both_ways(access: pytest.LogCaptureFixture) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"12345"

    ask(AccessLogMiddleware(Stub(BEGIN, PART, END), Metrics()), "POST", content=body())

    assert (facts(access)["bytes_in"], facts(access)["bytes_out"]) == (15, 7)


def go_away(app: ASGIApp, *sent: Message, path: str = "/v1/decisions", content_type: str = "application/json") -> list[Message]:
    """Call an application as a client that sends this and is gone."""
    answered: list[Message] = []

    async def run() -> None:
        messages = iter(sent)

        async def receive() -> Message:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Message) -> None:
            answered.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
        server = {"scheme": "http", "server": ("x", 80), "client": ("127.0.0.1", 1), "root_path": "", "http_version": "1.1"}
        async with started(app):
            await app(
                {
                    **scope,
                    **server,
                    "headers": [(b"host", b"127.0.0.1"), (b"content-type", content_type.encode())],
                    "asgi": {"version": "3.0", "spec_version": "2.3"},
                },
                receive,
                send,
            )

    asyncio.run(run())
    return answered


def test_a_client_that_goes_away_while_it_sends_is_a_line_and_no_defect(access: pytest.LogCaptureFixture) -> None:
    assert go_away(create_app(), {"type": "http.request", "body": b'{"source"', "more_body": True}) == []

    assert (facts(access)["status"], facts(access)["bytes_in"]) == (499, 9)
    assert [record.levelname for record in access.records] == ["INFO"]


def test_a_client_that_goes_away_in_the_middle_of_a_batch_is_a_line_and_no_defect(access: pytest.LogCaptureFixture) -> None:
    part = {"type": "http.request", "body": b'{"notification": "sea"}\n{', "more_body": True}
    go_away(create_app(), part, path="/v1/decisions/batch", content_type="application/x-ndjson")

    assert (facts(access)["route"], facts(access)["status"]) == ("/v1/decisions/batch", 499)
    assert [record.levelname for record in access.records] == ["INFO"]


def test_a_client_that_goes_away_while_it_reads_is_a_line_and_no_defect(access: pytest.LogCaptureFixture) -> None:
    async def watched(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(BEGIN))
        await send(dict(PART))
        assert (await receive())["type"] == "http.disconnect"

    go_away(AccessLogMiddleware(watched, Metrics()))

    assert (facts(access)["status"], facts(access)["bytes_out"]) == (499, 4)


def test_a_client_that_goes_away_is_not_answered_by_whoever_goes_on(access: pytest.LogCaptureFixture) -> None:
    async def stubborn(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(BEGIN))
        assert (await receive())["type"] == "http.disconnect"
        await send(dict(END))

    go_away(AccessLogMiddleware(stubborn, Metrics()))

    assert facts(access)["status"] == 499


def test_a_client_that_goes_away_with_its_answer_was_answered(access: pytest.LogCaptureFixture) -> None:
    async def answered(_scope: Scope, receive: Receive, send: Send) -> None:
        await send(dict(BEGIN))
        await send(dict(END))
        await receive()

    go_away(AccessLogMiddleware(answered, Metrics()))

    assert facts(access)["status"] == 200


def test_a_client_that_goes_away_is_told_by_an_exception_too(access: pytest.LogCaptureFixture) -> None:
    ask_and_ignore(AccessLogMiddleware(Stub(BEGIN, error=ClientDisconnect()), Metrics()))

    assert facts(access)["status"] == 499


def ask_and_ignore(app: ASGIApp) -> list[Message]:
    return go_away(app, {"type": "http.request", "body": b""})


def test_a_defect_is_answered_as_a_problem_with_an_id_and_logged_without_its_text(access: pytest.LogCaptureFixture) -> None:
    answer = ask(AccessLogMiddleware(Stub(error=RuntimeError("AQAAAA==")), Metrics()))

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:ras-triage:problem:internal"
    assert UUID(answer.headers["x-request-id"])
    (defect,) = (record for record in access.records if record.getMessage() == "defect")
    assert defect.__dict__["facts"]["error"] == "RuntimeError"
    assert re.search(r"test_access_log\.py:\d+ __call__$", defect.__dict__["facts"]["frames"][-1])
    assert facts(access)["status"] == 500


def test_a_defect_in_the_middle_of_an_answer_breaks_it_off(access: pytest.LogCaptureFixture) -> None:
    answered = ask_and_ignore(AccessLogMiddleware(Stub(BEGIN, PART, error=RuntimeError()), Metrics()))

    assert [message["type"] for message in answered] == ["http.response.start", "http.response.body"]
    assert facts(access)["status"] == 500


def test_a_request_that_is_cancelled_is_accounted_for(access: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    async def run() -> None:
        async def forever(*_: Any) -> None:
            await asyncio.sleep(60)

        call: Any = AccessLogMiddleware(forever, metrics)({"type": "http", "method": "GET", "headers": []}, _nothing, _nothing)
        task = asyncio.create_task(call)
        await asyncio.sleep(0)
        assert metrics.in_progress == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert facts(access)["status"] == 500
    assert metrics.in_progress == 0


async def _nothing(*_: Any) -> Any:
    return None


def test_the_start_and_stop_of_the_application_pass_through() -> None:
    seen: list[str] = []

    async def app(scope: Scope, *_: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(AccessLogMiddleware(app, Metrics())({"type": "lifespan"}, _nothing, _nothing))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_neither_an_event_nor_a_secret_is_logged(access: pytest.LogCaptureFixture) -> None:
    secret = "c2VjcmV0LWtleQ"
    headers = {"authorization": f"Bearer {secret}", "cookie": secret, "x-request-id": f" {secret} "}
    app = create_app()

    @app.post("/defect")
    async def defect() -> None:
        raise ValueError(f"{secret} {EVENT['status_block']}")

    for path in ("/v1/decisions", f"/v1/decisions?key={secret}", "/v1/decode", "/v1/nothing", "/defect"):
        for event in (EVENT, {**EVENT, "status_block": "%%%AQAA"}, {**EVENT, "x": secret}):
            ask(app, "POST", path, json=event, headers=headers)

    written = "\n".join(logs.JsonLines().format(record) for record in access.records)
    assert len(access.records) > 15
    assert not [word for word in (secret, "Bearer", "%%%", EVENT["status_block"][:12]) if word in written]
