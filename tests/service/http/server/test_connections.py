"""Connection limits, deadlines and eviction."""

from __future__ import annotations

import gc
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.limits.concurrency import ActiveRequest
from ras_triage.service.http.server import protocol
from ras_triage.service.http.server.connections import Connection, connection_limit
from ras_triage.service.http.server.peers import TrustedProxies, peer_of
from ras_triage.service.http.server.run import running
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.logs import LogRateLimit
from tests.service.support.certificates import CertificateAuthority
from tests.service.support.raw_connections import address, connect, head, is_closed, metric, problem, read_until, received, wait_until

MOST, SHARE = 40, 20
BRISK = {"head_timeout_s": 0.5, "keep_alive_s": 0.5, "answer_timeout_s": 0.5}
PATIENT = {"head_timeout_s": 60.0, "keep_alive_s": 60.0}
GET = head("/healthz", method="GET")


@pytest.fixture(scope="module")
def brisk() -> Iterator[str]:
    """A service with short deadlines."""
    with running(Settings(**BRISK)) as url:  # type: ignore[arg-type]
        yield url


@pytest.fixture
def crowded() -> Iterator[str]:
    """A service with few connections and no deadlines that matter."""
    with running(Settings(max_connections=MOST, max_connections_per_peer=SHARE, **PATIENT)) as url:  # type: ignore[arg-type]
        yield url


# Deadlines.


def test_a_connection_that_never_sends_a_byte_is_closed(brisk: str) -> None:
    before = metric(brisk, "closed_connections_total", reason="idle")
    with connect(brisk) as silent:
        assert received(silent) == b""
    assert metric(brisk, "closed_connections_total", reason="idle") == before + 1


def test_a_head_that_drips_is_answered_with_408_and_closed(brisk: str) -> None:
    with connect(brisk) as slow:
        for byte in GET[:-4]:
            slow.sendall(bytes([byte]))
            time.sleep(0.05)
            if is_closed_for_sending(slow):
                break
        answer = received(slow)

    status, kind, document = problem(answer)
    assert (status, kind) == (408, "request-timeout")
    assert document["detail"] == "request head not complete within 0.5 s"


def is_closed_for_sending(connection: socket.socket) -> bool:
    """Return whether the other side has answered or closed."""
    connection.setblocking(False)
    try:
        return len(connection.recv(1, socket.MSG_PEEK)) >= 0
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(20)


def test_a_connection_is_kept_for_the_next_request_and_closed_without_one(brisk: str) -> None:
    with connect(brisk) as kept:
        for _ in range(3):
            kept.sendall(GET)
            assert read_until(kept, b'{"status":"ok"}').startswith(b"HTTP/1.1 200")
            time.sleep(0.2)
        assert received(kept) == b""


def test_a_client_that_never_reads_its_answers_is_disconnected(brisk: str) -> None:
    """Its answers together are longer than what the sockets hold, so the service cannot get rid of one."""
    with connect(brisk, receive_buffer=4096) as deaf:
        deaf.sendall(head("/openapi.json", method="GET") * 200)
        wait_until(lambda: metric(brisk, "closed_connections_total", reason="answer_timeout") == 1)
        assert metric(brisk, "requests_under_way") == 1, "only the one that reads the metrics"


def test_a_client_that_reads_slowly_gets_its_answers(brisk: str) -> None:
    requests = 20
    with connect(brisk, receive_buffer=16_384) as slow:
        slow.sendall(head("/openapi.json", method="GET") * (requests - 1) + head("/healthz", "Connection: close", method="GET"))
        pieces = []
        while piece := slow.recv(1 << 16):
            pieces.append(piece)
            time.sleep(0.001)
    assert b"".join(pieces).count(b"HTTP/1.1 200") == requests


def test_the_rest_of_a_body_is_dropped_after_its_answer_but_not_for_ever(brisk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.5)
    with connect(brisk) as endless:
        endless.sendall(head("/v1/nothing", "Content-Length: 100000000"))
        assert endless.recv(1 << 16).startswith(b"HTTP/1.1 404")
        wait_until(lambda: sends_nothing_more(endless))
    assert metric(brisk, "closed_connections_total", reason="body_unread") == 1


def sends_nothing_more(connection: socket.socket) -> bool:
    """Send a byte, and return whether the other side has closed the connection."""
    try:
        connection.sendall(b"x")
    except OSError:
        return True
    return False


def test_a_client_gets_to_read_the_answer_that_came_before_it_had_sent_everything(brisk: str) -> None:
    with connect(brisk) as eager:
        eager.sendall(
            head("/v1/decisions", "Content-Length: 8000000") + b" " * 8_000_000 + head("/healthz", "Connection: close", method="GET")
        )
        answer = received(eager)

    assert answer.startswith(b"HTTP/1.1 413")
    assert answer.count(b"HTTP/1.1 200") == 1, "and the next request on the same connection"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_an_answer_that_comes_early_is_not_lost_when_the_connection_is_closed_behind_it(brisk: str, version: str) -> None:
    """As a proxy sees it that speaks HTTP/1.0 or `Connection: close` to the service."""
    body = 6_000_000
    request = head("/v1/decisions", f"Content-Length: {body}", "Connection: close").replace(b"HTTP/1.1", version.encode())
    with connect(brisk) as eager:
        eager.sendall(request)
        for _ in range(body // 100_000):
            eager.sendall(b" " * 100_000)
        assert received(eager).startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_on_sending_after_its_connection_was_closed_is_cut_off(brisk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.3)
    with connect(brisk) as endless:
        endless.sendall(b"nonsense\r\n\r\n")
        assert problem(received(endless))[0] == 400
        wait_until(lambda: sends_nothing_more(endless))


def test_a_connection_whose_body_was_dropped_is_good_for_the_next_request(crowded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 1.0)
    with connect(crowded) as kept:
        kept.sendall(head("/v1/nothing", "Content-Length: 10") + b"x" * 5)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 404")
        kept.sendall(b"x" * 5)
        time.sleep(1.6)
        kept.sendall(GET)
        assert b"HTTP/1.1 200" in read_until(kept, b'{"status":"ok"}')


def test_a_connection_whose_body_was_dropped_is_closed_without_a_next_request(brisk: str) -> None:
    with connect(brisk) as idle:
        idle.sendall(head("/v1/nothing", "Content-Length: 10") + b"x" * 5)
        assert idle.recv(1 << 16).startswith(b"HTTP/1.1 404")
        idle.sendall(b"x" * 5)
        assert b"HTTP/1.1" not in received(idle), "closed in silence"


def test_a_tls_handshake_has_a_deadline_and_counts_as_a_connection(tmp_path: Path) -> None:
    certificate, key = CertificateAuthority(tmp_path, "authority").sign("server")
    settings = Settings(tls_certificate=certificate, tls_key=key, max_connections=3, **BRISK)  # type: ignore[arg-type]
    with running(settings) as url, ExitStack() as stack:
        first = stack.enter_context(connect(url))
        assert received(first) == b""
        silent = [stack.enter_context(connect(url)) for _ in range(4)]
        assert httpx.get(f"{url}/healthz", verify=False).status_code == 200
        wait_until(lambda: is_closed(silent[0]))


# Limits.


def opened(stack: ExitStack, url: str, count: int, source: str = "127.0.0.1") -> list[socket.socket]:
    """Open connections one after the other, and wait until the service knows of them."""
    connections = [stack.enter_context(connect(url, source)) for _ in range(count)]
    assert httpx.get(f"{url}/healthz").status_code == 200
    return connections


def test_idle_connections_keep_nobody_out(crowded: str) -> None:
    with ExitStack() as stack:
        idle = opened(stack, crowded, 3 * MOST)
        for _ in range(3):
            assert httpx.get(f"{crowded}/readyz").status_code == 200
        closed = [is_closed(connection) for connection in idle]

    assert closed == sorted(closed, reverse=True), "the oldest make room"
    assert 2 * MOST <= sum(closed) < 3 * MOST
    assert metric(crowded, "closed_connections_total", reason="evicted") >= 2 * MOST
    assert metric(crowded, "connections") <= MOST


def test_connections_that_were_used_before_make_room_as_well(crowded: str) -> None:
    with ExitStack() as stack:
        used = [stack.enter_context(connect(crowded)) for _ in range(SHARE)]
        for connection in used:
            connection.sendall(GET)
            read_until(connection, b'{"status":"ok"}')
        opened(stack, crowded, SHARE)

        assert all(map(is_closed, used))


def test_all_peers_together_have_a_limit(crowded: str) -> None:
    with ExitStack() as stack:
        for peer in range(2, 6):
            opened(stack, crowded, SHARE - 1, f"127.0.0.{peer}")

        assert metric(crowded, "connections") <= MOST
        assert httpx.get(f"{crowded}/readyz").status_code == 200


def test_one_peer_has_a_share_and_evicts_only_its_own(crowded: str) -> None:
    with ExitStack() as stack:
        others = opened(stack, crowded, 5, "127.0.0.2")
        mine = opened(stack, crowded, 2 * MOST, "127.0.0.3")

        assert not any(map(is_closed, others))
        assert sum(not is_closed(connection) for connection in mine) == SHARE


def test_a_request_under_way_is_not_evicted_for_idle_connections(crowded: str) -> None:
    with ExitStack() as stack:
        stream = stack.enter_context(connect(crowded))
        stream.sendall(head("/v1/decisions/stream", method="GET"))
        read_until(stream, b"ras-triage")
        opened(stack, crowded, 3 * MOST)

        assert not is_closed(stream)


def test_where_no_connection_is_idle_the_one_that_is_stalled_longest_makes_room(crowded: str) -> None:
    with ExitStack() as stack:
        stalled = [stack.enter_context(connect(crowded)) for _ in range(SHARE)]
        for connection in stalled:
            connection.sendall(head("/v1/decisions", "Content-Length: 9") + b"{")

        def is_answered() -> bool:
            """Until a request has stalled for long enough, a new connection is closed."""
            try:
                return httpx.get(f"{crowded}/healthz").status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(is_answered)
        assert 1 <= sum(map(is_closed, stalled)) <= 3


def test_connections_leave_descriptors_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert connection_limit(4096) == 768
    assert connection_limit(100) == 100
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connection_limit(4096) == 4096


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Take all file descriptors of this process, in which the service runs too."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_a_descriptor_left_an_idle_connection_makes_room(crowded: str) -> None:
    with ExitStack() as stack:
        idle = opened(stack, crowded, 3)
        late = stack.enter_context(socket.socket())
        late.settimeout(20)
        with no_descriptor_left():
            late.connect(address(crowded))
            late.sendall(GET)
            assert read_until(late, b'{"status":"ok"}').startswith(b"HTTP/1.1 200")
        assert any(map(is_closed, idle))


def test_without_a_descriptor_left_it_tries_again_after_pauses_and_says_so_once(crowded: str, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        stream = stack.enter_context(connect(crowded))
        stream.sendall(head("/v1/decisions/stream", method="GET"))
        read_until(stream, b"ras-triage")
        late = stack.enter_context(socket.socket())
        late.settimeout(20)
        with no_descriptor_left():
            late.connect(address(crowded))
            late.sendall(GET)
            time.sleep(0.6)
            assert not is_closed(stream)
        assert read_until(late, b'{"status":"ok"}').startswith(b"HTTP/1.1 200")

    assert 1 < metric(crowded, "closed_connections_total", reason="descriptors") < 10
    assert [record.getMessage() for record in caplog.records].count("connections cannot be accepted") == 1


def test_nothing_of_a_connection_or_request_is_left_to_the_garbage_collector(brisk: str) -> None:
    gc.collect()
    before = alive()
    gc.disable()
    try:
        for _ in range(10):
            with connect(brisk) as connection:
                connection.sendall(head("/v1/decisions", "Content-Length: 2", "Connection: close") + b"{}")
                received(connection)
        wait_until(lambda: alive() <= before)
    finally:
        gc.enable()


def alive() -> int:
    """Return how many objects of connections and requests there are, garbage included."""
    return sum(isinstance(one, protocol.HttpProtocol | Connection | ActiveRequest) for one in gc.get_objects())


# Log lines.


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 3)), max_size=60))
def test_every_line_is_written_or_counted_as_left_out(events: list[tuple[str, float]]) -> None:
    now = 0.0
    limit = LogRateLimit(lines=2, period_s=1.0, clock=lambda: now)
    written = told = 0
    for kind, pause in events:
        now += pause
        allowed, suppressed = limit.allows(kind)
        written += allowed
        told += suppressed + sum(count for _, count in limit.take_suppressed())
    now += 2.0
    told += sum(count for _, count in limit.take_suppressed())

    assert written + told == len(events)
    assert limit.take_suppressed() == []


def test_no_more_lines_than_allowed_are_written_in_a_period() -> None:
    limit = LogRateLimit(lines=3, period_s=1.0, clock=lambda: 0.0)

    assert [limit.allows("x")[0] for _ in range(6)] == [True] * 3 + [False] * 3
    assert limit.allows("y") == (True, 0)


def test_a_line_says_how_many_were_left_out_before_it(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(logs, "_LIMIT", LogRateLimit(lines=1, clock=lambda: now))
    for _ in range(5):
        logs.log_limited(30, "refused", kind="refused")
    now = 1.5
    logs.log_limited(30, "refused", kind="refused")
    logs.log_limited(30, "refused", kind="refused")
    now = 3.0
    logs.report_suppressed()

    facts = [record.__dict__["facts"] for record in caplog.records]
    assert facts == [{}, {"suppressed": 4}, {"kind": "refused", "suppressed": 1}]


# Peers.


def test_addresses_of_one_site_are_one_peer() -> None:
    assert peer_of("192.0.2.1") == "192.0.2.1"
    assert peer_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert peer_of("2001:db8::1") == peer_of("2001:db8:0:0:ffff::2") == "2001:db8::/64"
    assert peer_of("2001:db8:0:1::1") != peer_of("2001:db8::1")
    assert peer_of("fe80::1%eth0") == "fe80::/64"
    assert peer_of("") == ""
    assert peer_of("unix") == "unix"


def test_a_proxy_is_known_by_address_or_network() -> None:
    proxies = TrustedProxies(("10.0.0.1", "192.0.2.0/24", "proxy.example"))

    assert [host in proxies for host in ("10.0.0.1", "192.0.2.9", "10.0.0.2", "", "::1")] == [True, True, False, False, False]
    assert "anything" in TrustedProxies(("*",))


def test_a_proxy_has_no_share_of_connections() -> None:
    settings = Settings(max_connections=MOST, max_connections_per_peer=3, trusted_proxies=("127.0.0.1",), **PATIENT)  # type: ignore[arg-type]
    with running(settings) as url, ExitStack() as stack:
        connections = opened(stack, url, 20)
        with closing(connect(url)):
            assert not any(map(is_closed, connections))
