"""One request and its response: writes, framing, checks of what the application sends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from ras_triage.service.api.problems import internal, problem_json
from ras_triage.service.http.server.exchange import Exchange
from ras_triage.service.http.server.request_head import RequestHead

_LOG = logging.getLogger("test")


class Transport(asyncio.Transport):
    """A connection that remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def length(count: int) -> tuple[bytes, bytes]:
    return b"content-length", str(count).encode()


def respond(*messages: Message, method: str = "GET", keep_alive: bool = True) -> Transport:
    """Return the connection after an application sent these messages."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return run(app, method, keep_alive=keep_alive)


def run(app: Any, method: str = "GET", *, keep_alive: bool = True, expects_continue: bool = False) -> Transport:
    async def exchange() -> Transport:
        transport = Transport()
        head = RequestHead(method, b"/", "1.1", [], 0, keep_alive, expects_continue)
        one = Exchange({"type": "http", "method": method}, head, transport, FlowControl(transport), _LOG, lambda: None)
        one.add_body(b"", more=False)
        await one.run(app)
        return transport

    return asyncio.run(exchange())


def test_head_and_body_of_known_length_are_one_write() -> None:
    assert respond(start(200, length(2)), part(b"{}")).writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"]


def test_the_head_of_a_stream_is_written_before_there_is_a_body() -> None:
    transport = respond(start(200), part(b"one", more=True), part(b""))

    assert transport.writes == [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"3\r\none\r\n", b"0\r\n\r\n"]


def test_head_has_the_headers_of_get_and_no_body() -> None:
    assert respond(start(200, length(2)), part(b"{}"), method="HEAD").writes == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"]


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_is_not_framed(status: int) -> None:
    (written,) = respond(start(status), part(b"")).writes
    assert b"transfer-encoding" not in written


def test_a_connection_that_the_client_does_not_keep_is_closed_after_the_response() -> None:
    transport = respond(start(200, length(0)), part(b""), keep_alive=False)

    assert b"connection: close\r\n" in transport.writes[0]
    assert transport.closed


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\x00"])
def test_a_header_that_would_split_the_response_is_an_internal_error(value: bytes) -> None:
    transport = respond(start(200, (b"location", value), length(0)), part(b""))

    assert b"set-cookie" not in b"".join(transport.writes)
    assert transport.closed


@pytest.mark.parametrize("body", [b"", b"ab"])
def test_a_body_that_does_not_have_its_announced_length_ends_the_connection(body: bytes) -> None:
    assert respond(start(200, length(1)), part(body)).closed


def test_an_application_that_fails_before_it_responds_gives_the_problem_internal() -> None:
    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError

    (written,) = run(fail).writes
    assert written.startswith(b"HTTP/1.1 500 ")
    assert written.endswith(problem_json(internal()))


def test_an_application_that_ends_without_a_response_gives_a_500() -> None:
    assert respond().writes[0].startswith(b"HTTP/1.1 500 ")


def test_an_application_that_ends_within_its_response_closes_the_connection() -> None:
    assert respond(start(200), part(b"one", more=True)).closed


def test_the_body_is_received_once_and_asked_for_if_the_client_waits() -> None:
    received: list[Message] = []

    async def read(_scope: Scope, receive: Receive, send: Send) -> None:
        received.append(await receive())
        await send(start(200, length(0)))
        await send(part(b""))
        received.append(await receive())

    transport = run(read, expects_continue=True)
    assert transport.writes[0] == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert [message["type"] for message in received] == ["http.request", "http.disconnect"]
