"""Client retries: statuses, delays, deadlines."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from ras_triage.service.client import AsyncClient, Client, ClientError, ProblemResponse, Retry, UnexpectedResponse, Unreachable
from ras_triage.service.client.retry import retry_after_s

QUICK = Retry(attempts=3, first_s=0.001)

POISONED = b'{"source":"node-17","pages":[]}'
PROBLEM = b'{"type":"urn:ras-triage:problem:%b","title":"no","status":%d,"detail":"because"}'

Answers = list[int | Exception]


class Service:
    """Gives these answers, one after the other, then a good one."""

    def __init__(self, answers: Answers, good: bytes = POISONED, headers: dict[str, str] | None = None) -> None:
        self.answers = answers
        self.good = good
        self.headers = headers or {}
        self.asked: list[httpx.Request] = []
        self.waited: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        headers = {"content-type": "application/json", **self.headers}
        return httpx.Response(answer, content=self.good if answer < 300 else PROBLEM % (b"x", answer), headers=headers)

    def client(self, retry: Retry = QUICK, **options: Any) -> Client:
        return Client(
            "http://ras-triage",
            retry=retry,
            transport=httpx.MockTransport(self),
            on_retry=lambda _, seconds: self.waited.append(seconds),
            **options,
        )


def ask_blocking(service: Service) -> str:
    return service.client().poisoned_pages("node-17").source


def ask_awaiting(service: Service) -> str:
    async def run() -> str:
        async with AsyncClient("http://ras-triage", retry=QUICK, transport=httpx.MockTransport(service)) as client:
            return (await client.poisoned_pages("node-17")).source

    return asyncio.run(run())


@pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting])
@pytest.mark.parametrize(
    "trouble",
    [
        429,
        502,
        503,
        504,
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
    ],
    ids=str,
)
def test_trouble_that_passes_is_waited_out(ask: Callable[[Service], str], trouble: int | Exception) -> None:
    service = Service([trouble, trouble])

    assert ask(service) == "node-17"
    assert len(service.asked) == 3


@pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 413, 415, 422, 500])
def test_a_refusal_is_final(ask: Callable[[Service], str], status: int) -> None:
    service = Service([status])

    with pytest.raises(ProblemResponse, match="no: because") as refused:
        ask(service)
    assert refused.value.problem.status == status
    assert len(service.asked) == 1


@pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting])
def test_trouble_that_stays_is_told_after_so_many_attempts(ask: Callable[[Service], str]) -> None:
    lost = Service([httpx.ReadError("reset by peer")] * 9)
    with pytest.raises(Unreachable, match="reset by peer") as gone:
        ask(lost)
    assert isinstance(gone.value.__cause__, httpx.ReadError)
    assert len(lost.asked) == 3

    with pytest.raises(ProblemResponse) as busy:
        ask(Service([503] * 9))
    assert busy.value.problem.status == 503


def test_pauses_double_up_to_the_longest_and_differ_from_client_to_client() -> None:
    late = Retry(attempts=None, first_s=0.1, longest_s=1.0, random=lambda: 1.0)
    early = Retry(attempts=None, first_s=0.1, longest_s=1.0, random=lambda: 0.0)

    assert [late.pause_s(failures, None) for failures in (1, 2, 3, 4, 5, 5000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert [early.pause_s(failures, None) for failures in (1, 2, 5)] == [0.05, 0.1, 0.5]


def test_retry_after_is_kept_to_and_one_beyond_the_longest_pause_is_handed_to_the_caller() -> None:
    assert Retry(random=lambda: 0.0, first_s=0.1).pause_s(1, 7.0) == 7.05
    assert Retry(longest_s=30).pause_s(1, 31.0) is None

    service = Service([503], headers={"retry-after": "3600", "x-request-id": "r-1"})
    with pytest.raises(ProblemResponse) as told:
        service.client().policies()
    assert told.value.retry_after_s == 3600
    assert told.value.request_id == "r-1"
    assert len(service.asked) == 1


def test_retry_after_is_waited_for() -> None:
    service = Service([429], headers={"retry-after": "1"})

    service.client().poisoned_pages("node-17")
    assert 1.0 <= service.waited[0] <= 1.001


def test_retry_after_may_be_a_number_or_a_date_and_nonsense_is_none() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after_s("120") == 120
    assert 85 < (retry_after_s(soon) or 0) <= 90
    assert retry_after_s("Mon, 01 Jan 2001 00:00:00 GMT") == 0
    for nonsense in (None, "", "soon", "-5", "1.5", "٣"):
        assert retry_after_s(nonsense) is None


def test_every_decision_has_a_key_of_its_own_and_keeps_it_when_it_is_asked_for_again() -> None:
    service = Service([httpx.ReadError("reset"), 422, 422])
    client = service.client()
    for _ in range(2):
        with pytest.raises(ProblemResponse):
            client.decide({"notification": "sea"})

    first, again, other = (asked.headers["idempotency-key"] for asked in service.asked)
    assert first == again != other


def test_a_dry_run_keeps_nothing_and_needs_no_key() -> None:
    service = Service([422])
    with pytest.raises(ProblemResponse):
        service.client().decide(b'{"notification":"sea"}', dry_run=True)

    assert service.asked[0].url.query == b"dry_run=true"
    assert "idempotency-key" not in service.asked[0].headers
    assert service.asked[0].content == b'{"notification":"sea"}'


@pytest.mark.parametrize("trouble", [httpx.ReadError("reset"), 502, 504], ids=str)
def test_a_change_under_a_condition_is_not_repeated_where_it_may_have_been_made(trouble: int | Exception) -> None:
    service = Service([trouble])

    with pytest.raises(ClientError):
        service.client().put_host("node-17", {}, if_version=3)
    assert [asked.headers["if-match"] for asked in service.asked] == ['"3"']


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), 503, 429], ids=str)
def test_a_change_under_a_condition_is_repeated_where_it_was_not_made(trouble: int | Exception) -> None:
    kept = b'{"source":"node-17","version":4,"digest":"sha256:1","changed_at":"2026-11-22T10:00:00Z","host":{}}'
    service = Service([trouble], kept)

    assert service.client().put_host("node-17", {}, if_version=3).version == 4
    assert len(service.asked) == 2


def test_a_certificate_that_is_not_trusted_is_not_asked_for_again() -> None:
    untrusted = httpx.ConnectError("certificate verify failed")
    untrusted.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    service = Service([untrusted])

    with pytest.raises(Unreachable, match="certificate verify failed"):
        service.client().policies()
    assert len(service.asked) == 1


def test_health_is_how_it_is_now() -> None:
    assert Service([]).client().health().ready
    sick = Service([503])
    health = sick.client().health()
    assert (health.ready, health.problem.status if health.problem else None, len(sick.asked)) == (False, 503, 1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable):
        client.health()


def test_an_answer_of_another_service_is_no_answer() -> None:
    with pytest.raises(UnexpectedResponse, match="`pages`: field required"):
        Service([], b'{"source":"x"}').client().poisoned_pages("x")
    with pytest.raises(UnexpectedResponse):
        Service([], b"<html>").client().poisoned_pages("x")


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.policies(),
        lambda client: client.get_json("x"),
        lambda client: client.event("x"),
        lambda client: list(client.decide_lines([{"notification": "polled"}])),
        lambda client: next(client.watch()),
    ],
)
def test_a_page_that_somebody_else_answers_is_no_answer(ask: Callable[[Client], object]) -> None:
    page = Service([], b"<html>\nlog in\n</html>\n", {"content-type": "text/html; charset=utf-8"})

    with pytest.raises(UnexpectedResponse, match="unexpected media type `text/html`"):
        ask(page.client())
    assert len(page.asked) == 1


@pytest.mark.parametrize("token", ["", " ", "two words", "rt_a_secret\n", "schlüssel"])
def test_a_token_that_is_none_is_refused_without_being_quoted(token: str) -> None:
    for given in (token, lambda: token):
        with pytest.raises(ValueError, match="invalid token") as refused:
            Service([]).client(token=given).policies()
        assert not token.strip() or token.strip() not in str(refused.value)


def test_a_refusal_that_is_no_problem_document_tells_its_status() -> None:
    def proxy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(413, content=b"<html>too much</html>")

    with pytest.raises(ProblemResponse) as refused:
        Client("http://x", transport=httpx.MockTransport(proxy)).policies()
    assert (refused.value.problem.status, refused.value.problem.type) == (413, "about:blank")


def test_a_field_that_a_newer_service_adds_is_passed_over() -> None:
    assert (
        Service([], b'{"source":"x","pages":[{"physical_address":"0x1000","shift":12,"new":1}],"newer":{}}')
        .client()
        .poisoned_pages("x")
        .pages
    )


def test_the_token_is_asked_for_before_every_attempt_and_shows_nowhere() -> None:
    tokens = iter(["one", "two"])
    service = Service([503])
    client = service.client(token=lambda: next(tokens))
    client.poisoned_pages("x")

    assert [asked.headers["authorization"] for asked in service.asked] == ["Bearer one", "Bearer two"]
    assert "secret" not in repr(Service([]).client(token="secret")._defaults)


def test_headers_of_the_caller_are_carried_and_outrank_the_surroundings() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    service = Service([])
    client = service.client(headers={"x-request-id": "r-1"})
    client.with_headers({"traceparent": trace}).poisoned_pages("x")
    client.poisoned_pages("x")

    first, second = service.asked
    assert (first.headers["traceparent"], first.headers["x-request-id"]) == (trace, "r-1")
    assert "traceparent" not in second.headers


def test_the_trace_that_is_under_way_is_passed_on() -> None:
    trace = pytest.importorskip("opentelemetry.trace", reason="OpenTelemetry is an extra")
    context = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, is_remote=False, trace_flags=trace.TraceFlags(1))
    service = Service([])
    with trace.use_span(trace.NonRecordingSpan(context)):
        service.client().poisoned_pages("x")

    assert service.asked[0].headers["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_names_are_taken_literally() -> None:
    service = Service([])
    service.client().poisoned_pages("rack 1/../node?x=1#é")

    service.client().poisoned_pages("..")

    assert [asked.url.raw_path for asked in service.asked] == [
        b"/v1/poisoned-pages/rack%201%2F..%2Fnode%3Fx%3D1%23%C3%A9",
        b"/v1/poisoned-pages/%2E%2E",
    ]


def test_filters_are_asked_for_as_the_interface_writes_them() -> None:
    service = Service([], b'{"decisions":[],"next":null}')
    since = datetime(2026, 11, 22, 11, tzinfo=UTC)
    assert list(service.client().decisions(action="panic", source=None, physical_address=0x56EDD040, since=since, page_size=7)) == []

    assert dict(service.asked[0].url.params) == {
        "action": "panic",
        "physical_address": "0x56edd040",
        "since": "2026-11-22T11:00:00Z",
        "limit": "7",
    }
    with pytest.raises(ValueError, match="no time zone"):
        list(service.client().decisions(since=datetime(2026, 11, 22)))
