"""Client batches: chunks, retries, responses that are cut."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

from ras_triage.models.event import Event, event_key
from ras_triage.service.api.problems import Problem
from ras_triage.service.client import AsyncClient, Client, ProblemResponse, Retry, UnexpectedResponse, Unreachable
from ras_triage.service.client.chunk_state import MAX_EARLY_ENDS, PLACEHOLDER
from ras_triage.service.client.chunks import FLUSH, MAX_BYTES, MAX_EVENTS, chunks, event_line
from tests.service.support.application import EVENT
from tests.service.support.disconnecting_service import CutOff, serving

QUICK = Retry(attempts=4, first_s=0.001)

Send = Callable[..., list[bytes]]


def blocking(url: str, events: Iterable[Any], retry: Retry = QUICK, **options: Any) -> list[bytes]:
    with Client(url, retry=retry) as client:
        return list(client.decide_lines(events, **options))


def awaiting(url: str, events: Iterable[Any], retry: Retry = QUICK, **options: Any) -> list[bytes]:
    async def run() -> list[bytes]:
        async with AsyncClient(url, retry=retry) as client:
            return [line async for line in client.decide_lines(events, **options)]

    return asyncio.run(run())


both = pytest.mark.parametrize("send", [blocking, awaiting])

MANY = [{"n": n} for n in range(12)]


def said(lines: Iterable[bytes]) -> list[int]:
    return [json.loads(line)["said"]["n"] for line in lines]


@both
def test_events_are_answered_in_order_in_groups_of_five_hundred(send: Send) -> None:
    service = CutOff([])
    with serving(service) as url:
        lines = send(url, ({"n": n} for n in range(1200)))

    assert said(lines) == list(range(1200))
    assert [asked.body.count(b"\n") for asked in service.asked] == [500, 500, 200]
    assert len({asked.headers["idempotency-key"] for asked in service.asked}) == 3


@both
def test_a_cut_anywhere_in_an_answer_leaves_no_gap_and_no_duplicate(send: Send) -> None:
    whole = len(b"".join(CutOff([])._decide("key", place, json.dumps(event).encode()) for place, event in enumerate(MANY)))
    for cut in range(0, whole, 37):
        service = CutOff([cut])
        with serving(service) as url:
            lines = send(url, MANY)

        assert said(lines) == list(range(len(MANY))), f"cut after {cut} bytes"
        assert len({json.loads(line)["id"] for line in lines}) == len(MANY)
        answered = service.asked[1].body.count(PLACEHOLDER)
        assert service.asked[0].body.splitlines()[answered:] == service.asked[1].body.splitlines()[answered:]
        assert service.asked[0].headers["idempotency-key"] == service.asked[1].headers["idempotency-key"]


def test_answers_are_given_before_the_cut_and_are_not_given_again() -> None:
    service = CutOff([400])
    failures: list[str] = []
    with serving(service) as url, Client(url, retry=QUICK, on_retry=lambda failure, _: failures.append(type(failure).__name__)) as client:
        repeats = [json.loads(line)["repeat"] for line in client.decide_lines(MANY)]

    assert failures == ["Unreachable"]
    assert repeats[0] is False
    assert repeats == sorted(repeats), "first what came before the cut, then what was recognised"
    assert repeats[-1] is True


@both
def test_a_service_that_gets_a_little_further_each_time_is_not_given_up(send: Send) -> None:
    service = CutOff([80 * times + 79 for times in range(12)])
    with serving(service) as url:
        lines = send(url, MANY)

    assert said(lines) == list(range(len(MANY)))
    assert len(service.asked) > QUICK.attempts  # type: ignore[operator]


@both
def test_a_service_that_gets_no_further_is_given_up_after_so_many_attempts(send: Send) -> None:
    service = CutOff([10] * 100)
    with serving(service) as url, pytest.raises(Unreachable):
        send(url, MANY)

    assert len(service.asked) == 4


@both
def test_a_run_that_begins_again_asks_for_whole_groups_under_the_same_keys(send: Send) -> None:
    events = [{"n": n} for n in range(1200)]
    first, again = CutOff([]), CutOff([])
    with serving(first) as url:
        before = send(url, events, idempotency_key="k")
    with serving(again) as url:
        again.decided = first.decided
        after = send(url, events, idempotency_key="k", answered=700)

    assert said(after) == list(range(700, 1200))
    assert [asked.headers["idempotency-key"] for asked in again.asked] == ["k-501", "k-1001"]
    assert [json.loads(line)["id"] for line in after] == [json.loads(line)["id"] for line in before[700:]]


@both
def test_nothing_is_asked_where_everything_is_answered(send: Send) -> None:
    service = CutOff([])
    with serving(service) as url:
        assert send(url, MANY, answered=12) == []
    assert service.asked == []


PATIENT = Retry(attempts=6, first_s=0.001)
BAD = json.dumps({"n": 70}, separators=(",", ":")).encode()


@both
@pytest.mark.parametrize(("status", "most"), [(0, MAX_EARLY_ENDS), (413, 9), (500, 9)])
def test_an_event_that_a_service_does_not_bear_is_reported_and_the_rest_goes_on(send: Send, status: int, most: int) -> None:
    service = CutOff([], bad=(BAD, status))
    with serving(service) as url:
        lines = send(url, [{"n": n} for n in range(120)], PATIENT)

    assert said(lines[:70] + lines[71:]) == [n for n in range(120) if n != 70]
    assert json.loads(lines[70])["status"] == (status or 502)
    sent = Counter(line for asked in service.asked for line in asked.lines if line != PLACEHOLDER)
    assert max(sent.values()) <= most
    assert len(service.decided) == 119, "each of the others was decided once"


@both
@pytest.mark.parametrize("status", [0, 413, 500])
def test_an_event_that_a_service_does_not_bear_is_reported_where_it_is_the_only_one(send: Send, status: int) -> None:
    service = CutOff([], bad=(BAD, status))
    with serving(service) as url:
        (line,) = send(url, [{"n": 70}], PATIENT)

    assert json.loads(line)["status"] == (status or 502)


@both
@pytest.mark.parametrize("status", [413, 500])
def test_a_service_that_refuses_everything_is_given_up_and_no_event_is_blamed(send: Send, status: int) -> None:
    service = CutOff([], bad=(PLACEHOLDER, status), refuses_all=True)
    with serving(service) as url, pytest.raises(ProblemResponse) as refused:
        send(url, MANY, PATIENT)

    assert refused.value.problem.status == status


def test_no_event_is_sent_again_that_was_answered() -> None:
    service = CutOff([], bad=(BAD, 0))
    with serving(service) as url:
        blocking(url, [{"n": n} for n in range(120)], PATIENT)

    answered: set[bytes] = set()
    for asked in service.asked:
        assert answered.isdisjoint(asked.lines)
        answered.update(asked.lines[: asked.lines.index(BAD)] if BAD in asked.lines else asked.lines)
        answered.discard(PLACEHOLDER)


def answering(*bodies: bytes | tuple[int, bytes]) -> tuple[Client, list[httpx.Request]]:
    """A client of a service that gives these answers, one after the other."""
    asked: list[httpx.Request] = []
    left: Iterator[bytes | tuple[int, bytes]] = iter(bodies)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = next(left)
        status, body = found if isinstance(found, tuple) else (200, found)
        return httpx.Response(status, content=body, headers={"content-type": "application/x-ndjson"})

    return Client("http://ras-triage", retry=QUICK, transport=httpx.MockTransport(handle)), asked


BUSY = b'{"type":"urn:ras-triage:problem:busy","title":"busy","status":503,"detail":"later"}'
INVALID = b'{"type":"urn:ras-triage:problem:invalid-event","title":"not a valid event","status":422,"detail":"no"}'


def test_an_event_that_the_service_could_not_take_now_is_sent_again_in_its_place() -> None:
    client, asked = answering(b'{"a":1}\n' + BUSY + b'\n{"a":3}\n', INVALID + b'\n{"a":2}\n')

    assert list(client.decide_lines([{"n": 1}, {"n": 2}, {"n": 3}])) == [b'{"a":1}', b'{"a":2}', b'{"a":3}']
    assert [request.content for request in asked] == [b'{"n":1}\n{"n":2}\n{"n":3}\n', b'null\n{"n":2}\n']


def test_a_service_that_never_takes_an_event_is_given_up_with_its_problem() -> None:
    client, asked = answering(*[BUSY + b"\n"] * 4)

    with pytest.raises(ProblemResponse, match="busy: later"):
        list(client.decide_lines([{}]))
    assert len(asked) == 4


def test_a_refused_event_has_its_problem_in_its_place_and_is_not_sent_again() -> None:
    client, asked = answering((207, INVALID + b"\n"))

    (problem,) = client.decide_many([{}])
    assert problem == Problem("urn:ras-triage:problem:invalid-event", "not a valid event", 422, "no")
    assert len(asked) == 1


def test_a_refused_batch_is_not_sent_again() -> None:
    client, asked = answering((401, INVALID.replace(b"422", b"401")))

    with pytest.raises(ProblemResponse) as refused:
        list(client.decide_lines([{}]))
    assert refused.value.problem.status == 401
    assert len(asked) == 1


def test_an_answer_that_ends_early_without_an_error_is_asked_for_again() -> None:
    client, _ = answering(b'{"a":1}\n{"a', b'{"a":1}\n{"a":2}')

    assert list(client.decide_lines([{}, {}])) == [b'{"a":1}', b'{"a":2}']


def test_more_answers_than_events_are_not_an_answer() -> None:
    client, _ = answering(b'{"a":1}\n{"a":2}\n')

    with pytest.raises(UnexpectedResponse, match="more results than the 1 events"):
        list(client.decide_lines([{}]))


def test_a_line_is_not_ended_by_what_json_may_have_in_a_string() -> None:
    text = '{"a":"one\u2028two\x85three\x0b"}'.encode()
    client, _ = answering(text + b"\n\n" + text + b"\n")

    assert list(client.decide_lines([{}, {}])) == [text, text]


def test_a_group_ends_at_a_mebibyte_and_a_longer_event_goes_alone() -> None:
    events = [b"1" * 1000] * 2 + [b"2" * (MAX_BYTES + 1)] + [b"3"] * (MAX_EVENTS + 1)
    groups = list(chunks(events))

    assert [(group.first, len(group.lines)) for group in groups] == [(0, 2), (2, 1), (3, 500), (503, 1)]


def test_what_is_no_line_is_sent_as_one_that_is_refused_in_its_place() -> None:
    assert event_line(b'{\n "a": 1\n}\n') == b'{  "a": 1 }'
    for none in (b"", b" \n ", b'{"a":\n', b'"\n"'):
        sent = event_line(none)
        assert sent.strip()
        assert b"\n" not in sent
        with pytest.raises(json.JSONDecodeError):
            json.loads(sent)


def test_events_are_taken_only_as_they_are_sent() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"n": taken}

    with serving(CutOff([])) as url, Client(url) as client:
        lines = client.decide_lines(endless())
        assert said([next(lines)]) == [1]
        lines.close()  # type: ignore[attr-defined]

    assert taken <= MAX_EVENTS + 1


def test_a_model_is_sent_as_the_same_event_without_what_it_does_not_say() -> None:
    given = {**EVENT, "host": {**EVENT["host"], "current": None, "sysctl": {"kernel.panic": 10}}}
    event = Event.model_validate_json(json.dumps(given))

    assert event_key(Event.model_validate_json(event_line(event))) == event_key(event)
    assert json.loads(event_line(event))["host"]["current"] is None
    assert json.loads(event_line(Event.model_validate({"notification": "sea"}))) == {"notification": {"type": "sea"}}


def test_a_flush_ends_a_chunk_and_keeps_the_count() -> None:
    parts = list(chunks([FLUSH, b"1", b"2", FLUSH, FLUSH, b"3"]))
    assert [(part.first, part.lines) for part in parts] == [(0, (b"1", b"2")), (2, (b"3",))]
