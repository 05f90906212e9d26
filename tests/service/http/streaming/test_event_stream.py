"""Event stream of a real server: no gaps and no repeats after a reconnect."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread, Timer

import httpx
import pytest
from httpx_sse import ServerSentEvent, connect_sse

from ras_triage.service.http.app import create_app
from ras_triage.service.http.streaming import subscriptions
from ras_triage.service.store.port import Filter, StoreUnavailable, StreamedDecision
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.application import EVENT, client
from tests.service.support.server_process import Service, serving

URL = "/v1/decisions/stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving("--store", f"sqlite:///{tmp_path_factory.mktemp('stream') / 'store.db'}") as service:
        yield service


def decide(server: Service, source: str, numbers: range) -> None:
    events = [{"source": source, "id": f"e-{number}", "notification": "polled"} for number in numbers]
    content = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    answer = httpx.post(f"{server.url}/v1/decisions/batch", content=content, headers={"content-type": "application/x-ndjson"})
    assert answer.status_code == 200


def told(server: Service, last: str | None, count: int, **asked: str) -> list[ServerSentEvent]:
    """The next events with something in them, at most `count`; then the connection is cut."""
    headers = {} if last is None else {"last-event-id": last}
    found: list[ServerSentEvent] = []
    with httpx.Client(timeout=20) as asking, connect_sse(asking, "GET", f"{server.url}{URL}", params=asked, headers=headers) as source:
        assert source.response.status_code == 200
        for event in source.iter_sse():
            if event.data:
                found.append(event)
            if len(found) == count:
                return found
    return found


def ids(events: list[ServerSentEvent]) -> list[str]:
    return [event.json()["event_id"] for event in events]


def blocks(answer: httpx.Response) -> list[dict[str, str]]:
    """Everything that a stream said, without the comments."""
    said = (block for block in answer.text.split("\n\n") if block)
    return [dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")) for block in said]


def test_a_reader_that_is_cut_off_again_and_again_misses_nothing_and_sees_nothing_twice(server: Service) -> None:
    count = 600
    writing = Thread(target=lambda: [decide(server, "cut", range(start, start + 20)) for start in range(0, count, 20)])
    writing.start()
    found: list[ServerSentEvent] = []
    random = Random(4)
    while len(found) < count:
        found += told(server, found[-1].id if found else "0", min(random.randint(1, 90), count - len(found)), source="cut")
    writing.join()

    assert ids(found) == [f"e-{number}" for number in range(count)]
    sequences = [int(event.id) for event in found]
    assert sequences == sorted(set(sequences))
    assert {event.event for event in found} == {"decision"}


def test_an_event_holds_what_a_list_shows(server: Service) -> None:
    answer = httpx.post(f"{server.url}/v1/decisions", json={**EVENT, "source": "shown"})
    (event,) = told(server, "0", 1, source="shown")

    (listed,) = httpx.get(f"{server.url}/v1/decisions", params={"source": "shown"}).json()["decisions"]
    assert event.json() == listed
    assert listed["id"] == answer.json()["id"]


def test_without_a_place_it_begins_with_what_is_decided_from_now_on_and_says_where_that_is(server: Service) -> None:
    decide(server, "now", range(3))
    with httpx.Client(timeout=20) as asking, asking.stream("GET", f"{server.url}{URL}", params={"source": "now"}) as answer:
        lines = answer.iter_lines()
        opening = [next(lines) for _ in range(3)]
        decide(server, "now", range(3, 5))
        rest = (line for line in lines if line.startswith("data:"))
        live = [json.loads(next(rest).removeprefix("data:"))["event_id"] for _ in range(2)]

    assert opening[0].startswith(":")
    assert opening[1].startswith("id: ")
    assert opening[2] == ""
    assert live == ["e-3", "e-4"]
    assert ids(told(server, opening[1].removeprefix("id: "), 2, source="now")) == ["e-3", "e-4"]


def test_a_place_beyond_the_newest_is_now(server: Service) -> None:
    with httpx.Client(timeout=20) as asking:
        with asking.stream("GET", f"{server.url}{URL}") as answer:
            now = [line for line, _ in zip(answer.iter_lines(), range(2), strict=False)][1]
        with asking.stream("GET", f"{server.url}{URL}", headers={"last-event-id": "999999999999"}) as answer:
            assert [line for line, _ in zip(answer.iter_lines(), range(2), strict=False)][1] == now


def test_a_filter_lets_only_its_own_through(server: Service) -> None:
    decide(server, "one", range(2))
    decide(server, "other", range(2))
    decide(server, "one", range(2, 4))

    assert ids(told(server, "0", 4, source="one")) == [f"e-{number}" for number in range(4)]


def test_it_ends_when_the_server_stops_and_goes_on_with_the_next(tmp_path: Path) -> None:
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as server:
        decide(server, "stopped", range(2))
        with httpx.Client(timeout=20) as asking, connect_sse(asking, "GET", f"{server.url}{URL}", headers={"last-event-id": "0"}) as source:
            events = (event for event in source.iter_sse() if event.data)
            seen = [next(events), next(events)]
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert list(events) == []
        server.process.wait(20)
        assert time.monotonic() - began < 8
        assert server.process.returncode == 0
        server.start()
        decide(server, "stopped", range(2, 4))

        assert ids(seen + told(server, seen[-1].id, 2)) == ["e-0", "e-1", "e-2", "e-3"]
        assert "Traceback" not in "".join(server.log)


def test_what_was_purged_before_it_was_seen_is_told() -> None:
    """In this process, where the store can be made to purge at once."""
    app = create_app()
    with client(app) as call:
        for number in range(5):
            call("POST", "/v1/decisions", json={"source": "p", "id": f"e-{number}", "notification": "polled"})
        runtime = app.state.runtime
        assert runtime.store.purge_older(runtime.clock_ms() + 1000, runtime.clock_ms(), 3) == 3
        Timer(0.5, runtime.writer._loop.call_soon_threadsafe, [runtime.stop]).start()
        answer = call("GET", URL, headers={"last-event-id": "1"})

    opening, purged, *decisions = blocks(answer)
    assert opening == {"id": "1"}
    assert purged == {"id": "1", "event": "purged", "data": '{"decisions":2}'}
    assert [json.loads(block["data"])["event_id"] for block in decisions] == ["e-3", "e-4"]


class QuickRetention(TemporaryStore):
    """A store that purges its five oldest decisions before a reader gets what follows the third."""

    def after_sequence(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        if sequence == 3:
            self.purge_older(1 << 53, 0, 5)
        return super().after_sequence(sequence, asked, limit)


def test_what_is_purged_while_a_reader_is_behind_is_told_once_and_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "READ_DECISIONS", 2)
    app = create_app(store=QuickRetention())
    with client(app) as call:
        for number in range(9):
            call("POST", "/v1/decisions", json={"source": "p", "id": f"e-{number}", "notification": "polled"})
        runtime = app.state.runtime
        Timer(1, runtime.writer._loop.call_soon_threadsafe, [runtime.stop]).start()
        _, *told = blocks(call("GET", URL, headers={"last-event-id": "1"}))

    assert [(block["id"], block["event"]) for block in told] == [
        ("2", "decision"),
        ("3", "decision"),
        ("3", "purged"),
        *((str(sequence), "decision") for sequence in range(6, 10)),
    ]
    assert told[2]["data"] == '{"decisions":2}'


class FailingSoon(TemporaryStore):
    """A store that gives a reader one look."""

    looks = 0

    def after_sequence(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        self.looks += 1
        if self.looks > 1:
            raise StoreUnavailable("secret")
        return super().after_sequence(sequence, asked, limit)


def test_a_store_that_fails_on_the_way_ends_it_and_the_reader_that_comes_again_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with client(create_app(store=FailingSoon())) as call:
        call("POST", "/v1/decisions", json={"source": "f", "id": "e-0", "notification": "polled"})
        answer = call("GET", URL, headers={"last-event-id": "0"})
        again = call("GET", URL, headers={"last-event-id": "1"})

    assert answer.status_code == 200
    assert [block["id"] for block in blocks(answer)] == ["0", "1"]
    assert (again.status_code, again.json()["type"]) == (503, "urn:ras-triage:problem:store-unavailable")
    assert "secret" not in again.text
    assert "defect" not in caplog.text
