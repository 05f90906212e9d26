"""Costs of event streams: per filter, not per subscriber."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from ras_triage.service.http.streaming import events, subscriptions
from ras_triage.service.http.streaming.subscriptions import Streams, Subscription
from ras_triage.service.security.keys import create
from ras_triage.service.store.port import Filter, Store, StreamedDecision
from ras_triage.service.store.sqlite import SqliteStore
from ras_triage.service.store.temporary import TemporaryStore
from tests.service.support.secured_application import kind
from tests.service.support.server_process import Service, serving
from tests.service.support.stored_decisions import NOON, entry

T = TypeVar("T")

URL = "/v1/decisions/stream"
ANY = Filter()


class CountingStore(TemporaryStore):
    """A store that counts the reads of streams."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[Filter] = Counter()

    def after_sequence(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        self.reads[asked] += 1
        return super().after_sequence(sequence, asked, limit)


def streams_of(store: Store, max_subscriptions: int = 1000, max_filters: int = 1000) -> Streams:
    """Streams that read a store in this thread."""

    async def read(ask: Callable[[Store], T]) -> T:
        await asyncio.sleep(0)
        return ask(store)

    return Streams(read, max_subscriptions, max_filters)


async def always() -> bool:
    return True


async def settled() -> None:
    """Everything that can be done now is done."""
    for _ in range(50):
        await asyncio.sleep(0)


class Reader:
    """A subscriber whose client takes everything, or nothing while it is `held`."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.text = b""
        self.free = asyncio.Event()
        self.free.set()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for piece in self.subscription.events():
            await self.free.wait()
            self.text += piece
        self.subscription.close()

    @property
    def events(self) -> list[tuple[str, int, Any]]:
        """Kind, id and data of each event that has one."""
        blocks = [dict(re.findall(r"^(\w+): (.*)$", block, re.MULTILINE)) for block in self.text.decode().split("\n\n")]
        return [(block["event"], int(block["id"]), json.loads(block["data"])) for block in blocks if "data" in block]

    @property
    def sequences(self) -> list[int]:
        return [sequence for what, sequence, _ in self.events if what == "decision"]


def test_a_decision_is_read_and_rendered_once_for_all_subscribers_with_the_same_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: Counter[int] = Counter()

    def counting(kind: str, sequence: int, data: Any) -> bytes:
        rendered[sequence] += 1
        return render(kind, sequence, data)

    render = events.render
    monkeypatch.setattr(events, "render", counting)
    monkeypatch.setattr(subscriptions, "PAUSE_S", 0.0)
    store = CountingStore()
    some = Filter(source=("node-2",))

    async def work() -> list[Reader]:
        streams = streams_of(store)
        readers = [Reader(await streams.subscribe(asked, None, "client", always)) for asked in (ANY, some) for _ in range(100)]
        for start in range(0, 500, 50):
            store.append([entry(number, source=f"node-{number % 5}") for number in range(start, start + 50)])
            streams.notify()
            await settled()
        streams.stop()
        await asyncio.gather(*(reader.task for reader in readers))
        assert streams.statistics == (0, 0)
        return readers

    readers = asyncio.run(work())
    assert all(reader.sequences == list(range(1, 501)) for reader in readers[:100])
    assert all(reader.sequences == list(range(3, 501, 5)) for reader in readers[100:])
    assert rendered == {number: 2 if number % 5 == 3 else 1 for number in range(1, 501)}
    assert set(store.reads) == {ANY, some}
    assert max(store.reads.values()) <= 2 * 10 + 1, "reads grow with the subscribers"


def test_a_client_that_does_not_read_causes_no_reads_and_no_renderings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "PAUSE_S", 0.0)

    async def reads(stalled: int) -> Counter[Filter]:
        store = CountingStore()
        streams = streams_of(store)
        readers = [Reader(await streams.subscribe(ANY, None, "client", always)) for _ in range(1 + stalled)]
        for reader in readers[1:]:
            reader.free.clear()
        for number in range(40):
            store.append([entry(number)])
            streams.notify()
            await settled()
        assert readers[0].sequences == list(range(1, 41))
        assert not any(reader.events for reader in readers[1:])
        for reader in readers:
            reader.task.cancel()
            reader.subscription.close()
        return store.reads

    assert asyncio.run(reads(200)) == asyncio.run(reads(0))


positions = st.none() | st.integers(0, 15)
keeping = st.tuples(st.just("keep"), st.integers(1, 8))
actions = st.one_of(
    keeping,
    keeping,
    st.tuples(st.just("purge"), st.integers(1, 12)),
    st.tuples(st.just("join"), st.tuples(positions, st.sampled_from((ANY, Filter(source=("node-1",)))))),
    st.tuples(st.just("hold"), st.integers(0, 5)),
    st.tuples(st.just("free"), st.integers(0, 5)),
    st.tuples(st.just("tidy"), st.none()),
)


@given(done=st.lists(actions, min_size=12, max_size=40), kept=st.sampled_from((1, 2000, 1 << 20)), piece=st.sampled_from((1, 1500)))
def test_no_subscriber_misses_or_repeats_a_decision_however_far_it_is_behind(done: list[tuple[str, Any]], kept: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, small in (("CACHE_BYTES", kept), ("PIECE_BYTES", piece), ("READ_DECISIONS", 5), ("PAUSE_S", 0.0)):
            patch.setattr(subscriptions, name, small)
        asyncio.run(_play(done))


async def _play(done: list[tuple[str, Any]]) -> None:
    store, ever = TemporaryStore(), 0
    streams = streams_of(store)
    readers: list[tuple[int, Filter, Reader]] = []
    for what, how in done:
        if what == "keep":
            store.append([entry(ever + number, source=f"node-{(ever + number) % 2}") for number in range(how)])
            ever += how
            streams.notify()
        elif what == "purge":
            store.purge_larger(-1, NOON, how)
        elif what == "join":
            last, asked = how
            readers.append((min(ever if last is None else last, ever), asked, Reader(await streams.subscribe(asked, last, "c", always))))
        elif what == "tidy":
            _tidy(streams)
        elif readers:
            _hold(readers[how % len(readers)][2], what == "hold")
        await settled()
    await _finish(streams, [reader for _, _, reader in readers])
    for start, asked, reader in readers:
        _check(start, ever, asked, reader)


def _tidy(streams: Streams) -> None:
    for feed in streams._feeds.values():
        feed.forget_sent()


def _hold(reader: Reader, held: bool) -> None:
    (reader.free.clear if held else reader.free.set)()


async def _finish(streams: Streams, readers: list[Reader]) -> None:
    """All take what there is."""
    for reader in readers:
        _hold(reader, held=False)
    for _ in range(60):
        await settled()
    streams.stop()
    await asyncio.gather(*(reader.task for reader in readers))


def _check(start: int, ever: int, asked: Filter, reader: Reader) -> None:
    """What a reader missed was purged, and it was told so before it went beyond."""
    expected = [number for number in range(start + 1, ever + 1) if not asked.source or number % 2 == 0]
    assert reader.sequences == sorted(set(reader.sequences))
    assert set(reader.sequences) <= set(expected)
    missed, at = set(expected) - set(reader.sequences), start
    told = 0
    for what, sequence, data in reader.events:
        if what == "purged":
            told += data["decisions"]
        else:
            assert not any(at < number < sequence for number in missed) or told, "a decision is missing, and nobody said so"
            at = sequence
    assert told >= len({number for number in missed if number < at})


@contextmanager
def streaming(server: str, **headers: str) -> Iterator[socket.socket]:
    """A client of a stream that reads nothing beyond the head of the answer, on a socket that takes little."""
    url = httpx.URL(server)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect((url.host, url.port))
        told = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        client.sendall(f"GET {URL} HTTP/1.1\r\nHost: 127.0.0.1\r\n{told}\r\n".encode())
        head = b""
        while b"ras-triage\n" not in head:
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 200"), head
        yield client


def decide(url: str, first: int, count: int) -> None:
    lines = (json.dumps({"source": "s", "id": f"e-{number}", "notification": "polled"}) for number in range(first, first + count))
    answer = httpx.post(f"{url}/v1/decisions/batch", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}, timeout=60)
    assert answer.status_code == 200


def rest(client: socket.socket) -> bytes:
    """What comes until the connection is cut, however."""
    found = b""
    try:
        while piece := client.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def test_a_client_that_does_not_read_is_cut_off_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "STALLED_S", 0.5)
    monkeypatch.setattr(subscriptions, "CHECK_S", 0.2)
    count, deadline = 2000, time.monotonic() + 20
    with running(Settings()) as url, ExitStack() as stack:
        stalled = [stack.enter_context(streaming(url)) for _ in range(5)]
        with httpx.stream("GET", f"{url}{URL}", timeout=20) as reading:
            lines = reading.iter_lines()
            decide(url, 0, count)
            live = list(islice((line for line in lines if line.startswith("data:")), count))
        while open_streams(url) > 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        decide(url, count, 10)
        for client in stalled:
            seen = rest(client)
            whole = seen[: seen.rindex(b"\n\n")].decode()
            ids = [int(found) for found in re.findall(r"^id: (\d+)$", whole, re.MULTILINE)]
            assert 0 < ids[-1] < count
            again = stack.enter_context(httpx.stream("GET", f"{url}{URL}", headers={"last-event-id": str(ids[-1])}, timeout=20))
            data = (json.loads(line[5:])["event_id"] for line in again.iter_lines() if line.startswith("data:"))
            assert list(islice(data, count + 10 - ids[-1])) == [f"e-{number}" for number in range(ids[-1], count + 10)]
    assert len(live) == count


def open_streams(url: str) -> int:
    found = re.search(r"^ras_triage_streams (\d+)", httpx.get(f"{url}/metrics", timeout=20).text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_clients_that_do_not_read_take_little_memory(tmp_path: Path) -> None:
    def memory(service: Service) -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service, ExitStack() as stack:
        url = service.url
        decide(url, 0, 1000)
        for _ in range(150):
            stack.enter_context(streaming(url))
        before = memory(service)
        decide(url, 1000, 3000)
        assert memory(service) - before < 40 << 20, "about 2 MB were decided, 300 MB for 150 clients"


def test_stopping_does_not_wait_for_clients_that_do_not_read(tmp_path: Path) -> None:
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service, streaming(service.url):
        decide(service.url, 0, 3000)
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        assert time.monotonic() - begun < 7
    assert "Traceback" not in "".join(service.log)


def test_more_streams_or_filters_than_may_be_open_are_told_to_come_again() -> None:
    with running(Settings(max_streams=4, max_stream_filters=4)) as url, ExitStack() as stack:

        def watch(**asked: str) -> httpx.Response:
            answer = stack.enter_context(httpx.stream("GET", f"{url}{URL}", params=asked, timeout=20))
            if answer.status_code != 200:
                answer.read()
                assert (kind(answer), answer.headers["retry-after"]) == ((503, "busy"), "5")
            return answer

        first = [watch(source="a"), watch(source="b")]
        assert "limit of 2 different filters of event streams per client" in watch(source="c").json()["detail"]
        first += [watch(source="a"), watch(source="b")]
        assert "limit of 4 open event streams" in watch(source="a").json()["detail"]
        first[0].close()
        deadline = time.monotonic() + 10
        while watch(source="a").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_whoever_may_read_is_asked_once_for_all_streams_of_a_client_and_all_of_them_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "CHECK_S", 0.02)
    asked = 0
    allowed = True

    async def check() -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.001)
        return allowed

    async def work() -> None:
        nonlocal allowed
        store = TemporaryStore()
        streams = streams_of(store)
        readers = [Reader(await streams.subscribe(ANY, None, "key", check)) for _ in range(100)]
        other = Reader(await streams.subscribe(ANY, None, "other key", always))
        for number in range(10):
            store.append([entry(number)])
            streams.notify()
            await asyncio.sleep(0.05)
        assert 0 < asked <= 100, "it is asked for each stream"
        allowed = False
        supervising = asyncio.create_task(streams.supervise())
        await asyncio.wait_for(asyncio.gather(*(reader.task for reader in readers)), 10)
        assert streams.statistics == (1, 1)
        store.append([entry(10)])
        streams.notify()
        await asyncio.sleep(0.1)
        assert other.sequences == list(range(1, 12))
        streams.stop()
        await other.task
        supervising.cancel()

    asyncio.run(work())


def open_beside(url: str, path: Path) -> closing[SqliteStore]:
    """The store of a service, once that has made it."""
    assert httpx.get(f"{url}/healthz", timeout=20).status_code == 200
    return closing(SqliteStore(path, exclusive=False))


def test_a_stream_of_a_revoked_key_ends_although_nothing_is_decided(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with running(Settings(store=f"sqlite:///{path}")) as url, open_beside(url, path) as store:
        key, shown = create("x", ["read"], 0)
        store.add_api_key(create("other", ["read"], 0)[0])
        store.add_api_key(key)
        with httpx.stream("GET", f"{url}{URL}", headers={"authorization": f"Bearer {shown}"}, timeout=10) as answer:
            assert answer.status_code == 200
            store.revoke_api_key(key.id, 1)
            assert b"data" not in b"".join(answer.iter_raw())


class Broken(TemporaryStore):
    """A store in which one decision is a defect."""

    def after_sequence(self, sequence: int, asked: Filter, limit: int) -> tuple[list[StreamedDecision], int]:
        found, up_to = super().after_sequence(sequence, asked, limit)
        if any(streamed.summary.event_id == "event-3" for streamed in found):
            raise RuntimeError("planted")
        return found, up_to


def test_a_defect_ends_the_streams_of_a_filter_and_those_of_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "PAUSE_S", 0.0)

    async def work() -> None:
        store = Broken()
        streams = streams_of(store)
        broken = Reader(await streams.subscribe(ANY, None, "c", always))
        sound = Reader(await streams.subscribe(Filter(source=("node-2",)), None, "c", always))
        for number in (1, 2, 3, 4):
            store.append([entry(number, source="node-2" if number == 4 else "node-1")])
            streams.notify()
            await settled()
        await asyncio.wait_for(broken.task, 5)
        assert (broken.sequences, sound.sequences) == ([1, 2], [4])
        with pytest.raises(RuntimeError):
            await streams.subscribe(ANY, 2, "c", always)
        assert streams.statistics == (1, 1)
        streams.stop()
        await sound.task

    asyncio.run(work())


def test_a_stream_without_events_shows_that_it_lives_and_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(subscriptions, "CHECK_S", 0.02)

    async def work() -> None:
        store = TemporaryStore()
        streams = streams_of(store)
        supervising = asyncio.create_task(streams.supervise())
        reader = Reader(await streams.subscribe(Filter(source=("nobody",)), None, "c", always))
        store.append([entry(number) for number in range(3)])
        streams.notify()
        while b": nothing new\nid: 3\n\n" not in reader.text:
            await asyncio.sleep(0.02)
        assert reader.events == []
        streams.stop()
        await reader.task
        supervising.cancel()

    asyncio.run(asyncio.wait_for(work(), 10))


def test_a_subscriber_that_is_refused_leaves_nothing_behind() -> None:
    async def work() -> None:
        streams = streams_of(TemporaryStore(), max_filters=1)
        first = await streams.subscribe(ANY, None, "a", always)
        for number in range(5):
            with pytest.raises(ProblemError):
                await streams.subscribe(Filter(source=(f"{number}",)), None, f"client {number}", always)
        assert streams.statistics == (1, 1)
        assert list(streams._accesses) == ["a"]
        first.close()
        assert (streams.statistics, streams._accesses) == ((0, 0), {})
        streams.close()

    asyncio.run(work())
