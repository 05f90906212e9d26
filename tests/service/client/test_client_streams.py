"""Client event streams: reconnects, heartbeats, purges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from itertools import islice

import httpx
import pytest

from ras_triage.service.client import (
    AsyncClient,
    Client,
    ProblemResponse,
    PurgedDecisions,
    Retry,
    StreamedDecision,
    StreamItem,
    Unreachable,
)

QUICK = Retry(attempts=3, first_s=0.001)

SUMMARY = {
    "id": "0199",
    "decided_at": "2026-11-22T10:00:00.000Z",
    "source": "node-17",
    "event_id": None,
    "event_key": "sha256:1",
    "policy": {"name": "uniform", "digest": "sha256:2"},
    "action": "signal",
    "certainty": "certain",
    "notification": "sea",
    "severity": "recoverable",
    "sections": ["memory"],
    "physical_addresses": ["0x56edd040"],
}


def decision(sequence: int) -> bytes:
    return b"id: %d\nevent: decision\ndata: %b\n\n" % (sequence, json.dumps(SUMMARY).encode())


class Streams:
    """Streams that end, one after the other."""

    def __init__(self, *bodies: bytes | int) -> None:
        self.bodies = list(bodies)
        self.asked_from: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked_from.append(request.headers.get("last-event-id"))
        body = self.bodies.pop(0) if self.bodies else 503
        if isinstance(body, int):
            return httpx.Response(body, content=b"", headers={"content-type": "text/plain"})
        return httpx.Response(200, content=b"retry: 1\n\n" + body, headers={"content-type": "text/event-stream; charset=utf-8"})


def watch_blocking(streams: Streams, count: int) -> list[StreamItem]:
    with Client("http://x", retry=QUICK, transport=httpx.MockTransport(streams)) as client:
        return list(islice(client.watch(source="node-17"), count))


def watch_awaiting(streams: Streams, count: int) -> list[StreamItem]:
    async def run() -> list[StreamItem]:
        found: list[StreamItem] = []
        async with AsyncClient("http://x", retry=QUICK, transport=httpx.MockTransport(streams)) as client:
            async for one in client.watch(source="node-17"):
                found.append(one)
                if len(found) == count:
                    break
        return found

    return asyncio.run(run())


both = pytest.mark.parametrize("watch", [watch_blocking, watch_awaiting])
Watch = Callable[[Streams, int], list[StreamItem]]


@both
def test_a_stream_that_ends_is_taken_up_behind_the_last_decision(watch: Watch) -> None:
    streams = Streams(decision(1) + decision(2), b"", 503, decision(3))

    found = watch(streams, 3)
    assert [one.event_id for one in found] == ["1", "2", "3"]
    assert streams.asked_from == [None, "2", "2", "2"]
    assert isinstance(found[0], StreamedDecision)
    assert found[0].decision.physical_addresses == ("0x56edd040",)


@both
def test_a_decision_that_was_cut_is_not_told_and_not_taken_for_the_last(watch: Watch) -> None:
    cut = decision(2)
    for length in range(len(cut) - 1):
        streams = Streams(decision(1) + cut[:length], cut)
        assert [one.event_id for one in watch(streams, 2)] == ["1", "2"]
        assert streams.asked_from == [None, "1"], f"cut after {length} bytes"


@both
def test_heartbeats_and_unknown_kinds_are_passed_over_and_what_was_purged_is_told(watch: Watch) -> None:
    purged = b'id: 7\nevent: purged\ndata: {"decisions": 3}\n\n'
    streams = Streams(b": heartbeat\n\n" + decision(1) + b": heartbeat\n\nevent: newer\ndata: 1\n\n" + purged)

    assert watch(streams, 2)[1] == PurgedDecisions("7", 3)


@both
def test_a_place_that_is_told_before_the_first_decision_is_resumed_from(watch: Watch) -> None:
    streams = Streams(b": heartbeat\nid: 41\n\n", decision(42))

    watch(streams, 1)
    assert streams.asked_from == [None, "41"]


@both
def test_a_refusal_ends_it_and_so_does_a_service_that_does_not_come_back(watch: Watch) -> None:
    with pytest.raises(ProblemResponse):
        watch(Streams(403), 1)
    away = Streams(decision(1))
    with pytest.raises(ProblemResponse):
        watch(away, 2)
    assert len(away.asked_from) == 1 + 2


def test_a_stream_begins_behind_the_place_that_is_given() -> None:
    streams = Streams(decision(6))
    with Client("http://x", retry=QUICK, transport=httpx.MockTransport(streams)) as client:
        next(client.watch(last_event_id="5"))

    assert streams.asked_from == ["5"]


def test_a_connection_that_is_lost_is_told_to_who_wants_to_know() -> None:
    told: list[str] = []

    def lost(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with (
        Client(
            "http://x", retry=QUICK, transport=httpx.MockTransport(lost), on_retry=lambda failure, _: told.append(str(failure))
        ) as client,
        pytest.raises(Unreachable),
    ):
        next(client.watch())
    assert told == ["connection refused"] * 2
