"""Client limits against services that send malformed or oversized responses."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ras_triage.service.client import (
    AsyncClient,
    Client,
    ClientError,
    ProblemResponse,
    ResponseLimits,
    Retry,
    UnexpectedResponse,
    Unreachable,
)
from ras_triage.service.client.retry import retry_after_s
from tests.service.support import scripted_server
from tests.service.support.scripted_server import Asked, head

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SMALL = ResponseLimits(body_bytes=64 << 10, line_bytes=64 << 10, values=1000)
QUICK = Retry(attempts=2, first_s=0.001, longest_s=0.01)

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

PAGES = b'{"source":"x","pages":[]}'
"""What `poisoned_pages` expects."""

Ask = Callable[..., Any]


def ask_blocking(url: str, call: str, *arguments: Any, **options: Any) -> Any:
    """The first result of a call of `Client`."""
    transport = httpx.HTTPTransport(verify=False)  # which needs no time to read the machine's certificates
    with Client(url, **{"retry": QUICK, "limits": SMALL, "transport": transport, **options}) as client:
        found = getattr(client, call)(*arguments)
        return next(found) if isinstance(found, Iterator) else found


def ask_awaiting(url: str, call: str, *arguments: Any, **options: Any) -> Any:
    """The first result of a call of `AsyncClient`."""

    async def ask() -> Any:
        transport = httpx.AsyncHTTPTransport(verify=False)
        async with AsyncClient(url, **{"retry": QUICK, "limits": SMALL, "transport": transport, **options}) as client:
            found = getattr(client, call)(*arguments)
            return await (anext(found) if hasattr(found, "__anext__") else found)

    return asyncio.run(ask())


both = pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting])


def always(answer: bytes) -> scripted_server.Answer:
    return lambda asked: asked.send(answer)


def without_end(start: bytes, piece: bytes) -> scripted_server.Answer:
    return lambda asked: asked.send_without_end(start, piece)


@both
@pytest.mark.parametrize(
    ("call", "arguments", "answer", "reason"),
    [
        ("get_json", ["x"], without_end(head(), b"x" * 4096), "response body longer than 65536 bytes"),
        ("poisoned_pages", ["x"], without_end(head(), b" " * 4096), "response body longer than 65536 bytes"),
        ("decide_lines", [[b"{}"]], without_end(head(NDJSON), b"x" * 4096), "line longer than 65536 bytes"),
        ("decide_lines", [[b"{}"]], without_end(head(NDJSON), b"\n" * 4096), "line longer than 65536 bytes"),
        ("decide_lines", [[b"{}"]], without_end(head(NDJSON), b" \r\n" * 999), "line longer than 65536 bytes"),
        ("watch", [], without_end(head(EVENTS), b"x" * 4096), "server-sent event longer than 65536 bytes"),
        ("watch", [], without_end(head(EVENTS), b"data: x\n" * 512), "server-sent event longer than 65536 bytes"),
        ("watch", [], without_end(head(EVENTS), b"data: x\r\n" * 512), "server-sent event longer than 65536 bytes"),
        ("watch", [], without_end(head(EVENTS), b"data: x\r" * 512), "server-sent event longer than 65536 bytes"),
        ("watch", [], without_end(head(EVENTS), b": x\n" * 1024), "server-sent event longer than 65536 bytes"),
        ("poisoned_pages", ["x"], always(head() + b'{"pages":[' + b"0," * 1001 + b"0]}"), "more than 1000 JSON values in a response"),
        ("decide_lines", [[b"{}"]], always(head(NDJSON) + b"," * 1001 + b"\n"), "more than 1000 JSON values in a response"),
        ("decide_lines", [[b"{}"]], always(head(NDJSON) + b"," * 1001), "more than 1000 JSON values in a response"),
        ("watch", [], always(head(EVENTS) + b"event: decision\ndata: %b\n\n" % (b"," * 1001)), "more than 1000 JSON values in a response"),
    ],
)  # fmt: skip
def test_an_answer_without_end_or_measure_is_given_up(
    ask: Ask, call: str, arguments: list[Any], answer: scripted_server.Answer, reason: str
) -> None:
    with scripted_server.serving(answer) as url, pytest.raises(UnexpectedResponse, match=reason):
        ask(url, call, *arguments)


@both
def test_answers_up_to_the_limits_are_read(ask: Ask) -> None:
    events = b"".join(b"id: %d\nevent: newer\ndata: %b\n\n" % (number, b"x" * 60_000) for number in range(9))
    purged = b'id: 9\nevent: purged\ndata: {"decisions":3}\n\n'
    with scripted_server.serving(always(head(EVENTS) + events + purged)) as url:
        assert ask(url, "watch").event_id == "9"
    with scripted_server.serving(always(head() + PAGES.ljust(64 << 10))) as url:
        assert ask(url, "poisoned_pages", "x").source == "x"
    with scripted_server.serving(always(head(NDJSON) + b"\n \n" + b'{"a":1}'.ljust(60_000) + b"\n")) as url:
        assert json.loads(ask(url, "decide_lines", [b"{}"])) == {"a": 1}


@both
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "zstd"])
@pytest.mark.parametrize(
    ("call", "arguments", "media_type"),
    [("get_json", ["x"], "application/json"), ("decide_lines", [[b"{}"]], NDJSON), ("watch", [], EVENTS)],
)
def test_a_little_that_unpacks_to_very_much_is_given_up(ask: Ask, encoding: str, call: str, arguments: list[Any], media_type: str) -> None:
    with scripted_server.serving(always(head(media_type, content_encoding=encoding) + BOMBS[encoding])) as url:
        tracemalloc.start()
        try:
            with pytest.raises(UnexpectedResponse, match="longer than 65536 bytes"):
                ask(url, call, *arguments)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


ZEROS = bytes(64 << 20)
GZIP = gzip.compress(ZEROS, 1, mtime=0)
BOMBS = {"gzip": GZIP, "x-gzip": GZIP, "zstd": zstd.compress(ZEROS)}
del ZEROS


@both
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [("gzip", gzip.compress(PAGES, mtime=0)), ("zstd", zstd.compress(PAGES)), ("identity", PAGES)],
    ids=["gzip", "zstd", "identity"],
)
def test_what_is_packed_as_was_asked_for_is_unpacked(ask: Ask, encoding: str, packed: bytes) -> None:
    asked: list[Asked] = []
    answer = head(content_encoding=encoding) + packed
    with scripted_server.serving(lambda one: (asked.append(one), one.send(answer))[1]) as url:
        assert ask(url, "poisoned_pages", "x").source == "x"
    assert asked[0].headers["accept-encoding"] == "gzip, zstd"


@both
@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("br", PAGES, "unexpected content encoding `br`"),
        ("gzip, gzip", gzip.compress(gzip.compress(PAGES, mtime=0), mtime=0), "content encoding `gzip, gzip`"),
        ("gzip", b"x" * 100, "does not match its content encoding"),
        ("zstd", b"x" * 100, "does not match its content encoding"),
    ],
    ids=["not requested", "twice", "no gzip", "no zstd"],
)
def test_what_is_packed_otherwise_is_no_answer(ask: Ask, encoding: str, body: bytes, reason: str) -> None:
    with (
        scripted_server.serving(always(head(content_encoding=encoding) + body)) as url,
        pytest.raises(UnexpectedResponse, match=reason),
    ):
        ask(url, "poisoned_pages", "x")


@both
def test_an_answer_that_is_cut_within_its_packed_data_is_asked_for_again(ask: Ask) -> None:
    answers = [head(content_encoding="gzip") + gzip.compress(PAGES, mtime=0)[:-3], head() + PAGES]
    with scripted_server.serving(lambda asked: asked.send(answers.pop(0))) as url:
        assert ask(url, "poisoned_pages", "x").source == "x"


@both
@pytest.mark.parametrize(
    "answer",
    [
        without_end(b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n"),
        without_end(b"HTTP/1.1 200 OK\r\nx-more: ", b"1" * 4096),
        without_end(b"HTTP/1.1 200 ", b"OK" * 4096),
        without_end(b"", b"1" * 4096),
    ],
)
def test_headers_without_end_are_given_up(ask: Ask, answer: scripted_server.Answer) -> None:
    with scripted_server.serving(answer) as url, pytest.raises(Unreachable):
        ask(url, "poisoned_pages", "x")


@both
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
@pytest.mark.parametrize("refusal", [lambda status: without_end(head("text/html", status), b"<p>" * 4096),
                                     lambda status: always(head("text/html", status, content_encoding="br") + b"x"),
                                     lambda status: always(head("text/html", status, content_encoding="gzip") + GZIP)])  # fmt: skip
def test_a_refusal_too_long_to_read_counts_by_its_status(ask: Ask, status: str, refusal: Callable[[str], scripted_server.Answer]) -> None:
    told: list[ClientError] = []
    with scripted_server.serving(refusal(status)) as url, pytest.raises(ProblemResponse) as refused:
        ask(url, "poisoned_pages", "x", on_retry=lambda failure, _: told.append(failure))
    assert (refused.value.problem.status, refused.value.problem.type) == (int(status[:3]), "about:blank")
    assert len(told) == 1


@both
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
@pytest.mark.parametrize(
    ("call", "arguments"),
    [("hosts", []), ("all_poisoned_pages", []), ("poisoned_pages", ["x"]), ("decide", [{}]), ("put_host", ["x", {}]), ("watch", [])],
)
def test_a_redirect_takes_neither_request_nor_token_anywhere(ask: Ask, status: str, call: str, arguments: list[Any]) -> None:
    elsewhere: list[Asked] = []
    with (
        scripted_server.serving(elsewhere.append) as other,
        scripted_server.serving(always(head(status=status, location=f"{other}/v1"))) as url,
        pytest.raises(ProblemResponse) as refused,
    ):
        ask(url, call, *arguments, token="rt_a_secret")
    assert refused.value.problem.status == int(status[:3])
    assert elsewhere == []


@both
def test_cookies_are_not_carried_back(ask: Ask) -> None:
    asked: list[Asked] = []

    def answer(one: Asked) -> None:
        asked.append(one)
        one.send(head(status="503 Busy" if len(asked) < 2 else "200 OK", set_cookie="session=" + "x" * 4000) + PAGES)

    with scripted_server.serving(answer) as url:
        ask(url, "poisoned_pages", "x")
    assert ["cookie" in one.headers for one in asked] == [False, False]


@both
@pytest.mark.parametrize(
    ("told", "pause"), [("1", 0.001), ("86400000", 0.01), ("9" * 4000, 0.01), ("9" * 5000, None), ("-1", None), ("x", None)]
)
def test_a_stream_is_taken_up_again_after_the_longest_pause_at_most(ask: Ask, told: str, pause: float | None) -> None:
    waited: list[float] = []
    answers = [head(EVENTS) + b"retry: %b\n\n" % told.encode(), head(EVENTS, "403 Forbidden")]
    patient = Retry(attempts=2, first_s=0.0001, longest_s=0.01)
    with scripted_server.serving(lambda asked: asked.send(answers.pop(0))) as url, pytest.raises(ProblemResponse):
        ask(url, "watch", retry=patient, on_retry=lambda _, seconds: waited.append(seconds))
    assert len(waited) == 1
    assert waited[0] <= 0.01
    assert pause is None or waited[0] == pytest.approx(pause)


def test_no_pause_is_longer_than_the_longest() -> None:
    assert Retry(first_s=20, longest_s=30, random=lambda: 1.0).pause_s(1, 29.0) == 30


@both
@pytest.mark.parametrize("told", ["31", "9" * 4000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_beyond_the_longest_is_not_waited_for(ask: Ask, told: str) -> None:
    with scripted_server.serving(always(head(status="503 Busy", retry_after=told))) as url, pytest.raises(ProblemResponse) as refused:
        ask(url, "poisoned_pages", "x", retry=Retry(attempts=None))
    assert (refused.value.retry_after_s or 0) > 30


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\w*", fullmatch=True)))
def test_whatever_retry_after_says_is_seconds_or_nothing(text: str) -> None:
    found = retry_after_s(text)
    assert found is None or found >= 0


@both
def test_what_a_service_says_is_one_short_line_without_control_characters(ask: Ask) -> None:
    attack = "\x1b]0;owned\x07\u202e\u2028\r\nforged \x9b31m" + "x" * 5000
    problem = json.dumps({"type": "x", "title": attack, "status": 422, "detail": attack}, ensure_ascii=False).encode()
    with scripted_server.serving(always(head(status="422 No") + problem)) as url, pytest.raises(ProblemResponse) as refused:
        ask(url, "poisoned_pages", "x")
    text = str(refused.value)
    assert text.startswith(r"\x1b]0;owned\x07\u202e\u2028\r\nforged \x9b31mxxx")
    assert text.isprintable()
    assert len(text) < 1100
    assert refused.value.problem.title == attack
    with scripted_server.serving(always(head("text/\x1b[31m") + b"x")) as url, pytest.raises(ClientError) as unknown:
        ask(url, "poisoned_pages", "x")
    assert str(unknown.value).isprintable()


@both
@pytest.mark.parametrize("identity", ["é", "\x1b[31m", "a\u2028b"])
def test_an_event_id_that_no_header_can_carry_is_no_answer(ask: Ask, identity: str) -> None:
    stream = f'id: {identity}\nevent: purged\ndata: {{"decisions":1}}\n\n'.encode()
    with (
        scripted_server.serving(always(head(EVENTS) + stream)) as url,
        pytest.raises(UnexpectedResponse, match="id of a server-sent event"),
    ):
        ask(url, "watch")


def test_an_event_id_that_no_header_can_carry_is_not_asked_with() -> None:
    with pytest.raises(ValueError, match="expected printable ASCII"):
        Client().watch(last_event_id="é")


@both
def test_a_charset_does_not_change_how_a_stream_is_read(ask: Ask) -> None:
    stream = b'id: 1\nevent: purged\ndata: {"decisions":1}\n\n'
    with scripted_server.serving(always(head(f"{EVENTS}; charset=zlib_codec") + stream)) as url:
        assert ask(url, "watch").event_id == "1"


@both
@pytest.mark.parametrize("page", [b'{"decisions":[],"next":"again"}', b'{"decisions":[],"next":""}'])
def test_a_list_that_leads_nowhere_ends(ask: Ask, page: bytes) -> None:
    with scripted_server.serving(always(head() + page)) as url, pytest.raises(UnexpectedResponse, match="endless list at `/v1/decisions`"):
        ask(url, "decisions")


CALLS: list[tuple[str, list[Any]]] = [
    ("decide", [{}]), ("decide_lines", [[b"{}"]]), ("decide_many", [[b"{}"]]), ("decide_summaries", [[b"{}"]]), ("get", ["x"]),
    ("get_json", ["x"]), ("event", ["x"]), ("alternatives", ["x"]), ("decisions", []),
    ("stats", []), ("watch", []), ("hosts", []), ("put_host", ["x", {}]),
    ("host", ["x"]), ("delete_host", ["x"]), ("store", []), ("all_poisoned_pages", []), ("poisoned_pages", ["x"]),
    ("forget_poisoned_pages", ["x"]), ("decode", [b"x"]), ("syndromes", []), ("policies", []), ("policy", ["x"]),
    ("policy_diff", ["x", "y"]), ("health", []), ("create_replay", ["x"]), ("replay", ["x"]), ("replays", []),
    ("remove_replay", ["x"]), ("put_policy", ["x", {}]),
]  # fmt: skip


def test_every_call_is_asked_below() -> None:
    calls = {name for name in dir(Client) if not name.startswith("_")} - {"close", "with_headers"}
    assert {name for name, _ in CALLS} == calls


BODIES = st.one_of(
    st.binary(max_size=60),
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
                 | st.dictionaries(st.sampled_from(["type", "title", "status", "detail", "decisions", "next", "pages"]), inner, max_size=7),
                 max_leaves=9).map(lambda content: json.dumps(content).encode()),
    st.sampled_from([b"id: 1\nevent: decision\ndata: {}\n\n", b"event: purged\ndata: {\"decisions\": \"x\"}\n\n", b"retry: 9\n\n"]),
)  # fmt: skip


@both
def test_an_answer_with_very_many_errors_is_told_by_their_number(ask: Ask) -> None:
    body = b'{"source":"x","pages":[' + b"0," * 20_000 + b"0]}"
    with scripted_server.serving(always(head() + body)) as url, pytest.raises(UnexpectedResponse, match="20001 values are not valid"):
        ask(url, "poisoned_pages", "x", limits=ResponseLimits())


@both
def test_whatever_a_service_answers_only_client_errors_are_raised(ask: Ask) -> None:
    answers: list[bytes] = [b""]
    never = Retry(attempts=1)

    @settings(max_examples=40)
    @given(
        st.sampled_from(CALLS),
        st.sampled_from(["200 OK", "204 No", "302 Found", "404 No", "503 Busy", "999 \x1b"]),
        st.sampled_from(["application/json", NDJSON, EVENTS, ""]),
        BODIES,
    )
    def check(call: tuple[str, list[Any]], status: str, media_type: str, body: bytes) -> None:
        answers[0] = head(media_type, status) + body
        with suppress(ClientError, StopIteration, StopAsyncIteration):
            ask(url, call[0], *call[1], retry=never)

    with scripted_server.serving(lambda asked: asked.send(answers[0])) as url:
        check()
