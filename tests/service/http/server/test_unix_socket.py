"""Service on a Unix domain socket: permissions, stale sockets, peers, clients."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from ras_triage.service.client import AsyncClient, Client, StreamedDecision, Unreachable
from ras_triage.service.http.server.peers import TrustedProxies, peer_of
from ras_triage.service.http.server.unix_socket import UnixListener
from tests.service.support.application import EVENT, run
from tests.service.support.server_process import Service, serving

MEMORY = ("--store", "memory:")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving("--uds", str(tmp_path_factory.mktemp("run") / "http.sock"), *MEMORY) as service:
        yield service


@pytest.fixture(scope="module")
def path(service: Service) -> Path:
    return Path(service.options[1])


@contextmanager
def connection(path: Path) -> Iterator[httpx.Client]:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
        yield client


def test_events_are_decided_over_the_socket_and_no_port_is_open(service: Service, path: Path) -> None:
    with connection(path) as client:
        decided = client.post("/v1/decisions", json=EVENT)
        assert decided.status_code == 201
        assert client.get(decided.headers["location"]).json() == decided.json()

    assert service.port == "0"
    listening = Path(f"/proc/{service.process.pid}/net/tcp").read_text().splitlines()
    inodes = {os.readlink(entry) for entry in Path(f"/proc/{service.process.pid}/fd").iterdir() if entry.exists() or entry.is_symlink()}
    assert not [line for line in listening if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in inodes]


def test_the_socket_is_for_its_owner_alone(path: Path) -> None:
    found = path.stat()

    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o600)


def test_a_setting_opens_the_socket_to_a_group_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'uds = "{tmp_path}/http.sock"\nuds_mode = "660"\nstore = "memory:"\n')
    previous = os.umask(0o077)
    try:
        with serving("--config", str(tmp_path / "config.toml")):
            assert stat.S_IMODE((tmp_path / "http.sock").stat().st_mode) == 0o660
    finally:
        os.umask(previous)


@pytest.mark.parametrize("mode", ["rw", "888", "66", "0o660", ""])
def test_permissions_that_are_none_are_refused(tmp_path: Path, mode: str) -> None:
    (tmp_path / "config.toml").write_text(f'uds_mode = "{mode}"\n')
    done = run("serve", "--config", str(tmp_path / "config.toml"))

    assert done.returncode == 2
    assert b"`uds_mode`" in done.stderr


def test_the_host_is_checked_as_on_loopback(path: Path) -> None:
    with connection(path) as client:
        assert client.get("/v1/policies", headers={"Host": "rebound.example"}).status_code == 421
        assert client.post("/v1/decode", json={}, headers={"Origin": "https://elsewhere.example"}).status_code == 403


def test_the_access_log_has_the_user_at_the_other_end(service: Service, path: Path) -> None:
    with connection(path) as client:
        client.get("/v1/policies", headers={"X-Request-Id": "whose"})
    deadline = time.monotonic() + 10
    while not (lines := [line for line in service.log if "request_id=whose" in line]) and time.monotonic() < deadline:
        time.sleep(0.02)

    assert f"client=uid:{os.getuid()}" in lines[0]


def test_the_connections_of_a_user_are_limited_as_those_of_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_MAX_CONNECTIONS_PER_PEER", "2")
    path = tmp_path / "http.sock"
    with serving("--uds", str(path), *MEMORY) as service:
        opened = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for one in opened:
            one.connect(str(path))
        deadline = time.monotonic() + 10
        while not any("connection closed" in line and "evicted" in line for line in service.log) and time.monotonic() < deadline:
            time.sleep(0.02)
        for one in opened:
            one.close()

        assert any(f"client=uid:{os.getuid()}" in line and "evicted" in line for line in service.log)


def test_a_user_may_be_a_trusted_proxy() -> None:
    assert peer_of("uid:33") == "uid:33"
    assert "uid:33" in TrustedProxies(("uid:33", "10.0.0.1"))
    assert "uid:34" not in TrustedProxies(("uid:33", "10.0.0.1"))


def test_a_proxy_over_the_socket_forwards_for_its_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAS_TRIAGE_TRUSTED_PROXIES", f"uid:{os.getuid()}")
    with serving("--uds", str(tmp_path / "http.sock"), *MEMORY) as service, connection(tmp_path / "http.sock") as client:
        client.get("/v1/policies", headers={"X-Forwarded-For": "192.0.2.7"})
        deadline = time.monotonic() + 10
        while not (lines := [line for line in service.log if "route=/v1/policies" in line]) and time.monotonic() < deadline:
            time.sleep(0.02)

        assert "client=192.0.2.7" in lines[0]


def test_a_socket_that_a_killed_service_left_is_replaced_and_a_stopped_one_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    service = Service("--uds", str(path), *MEMORY)
    service.kill()
    assert path.is_socket()

    with serving("--uds", str(path), *MEMORY) as again:
        with connection(path) as client:
            assert client.get("/healthz").status_code == 200
        again.process.send_signal(signal.SIGTERM)
        assert again.process.wait(20) == 0
        assert not path.exists()


def test_a_socket_in_use_and_any_other_file_are_left_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place, reason in ((path, b"another process listens on this socket"), (tmp_path / "file", b"exists and is not a socket")):
        done = run("serve", "--uds", str(place), *MEMORY)
        assert (done.returncode, reason in done.stderr) == (3, True), done.stderr

    assert (tmp_path / "file").read_text() == "mine"
    with connection(path) as client:
        assert client.get("/healthz").status_code == 200


def test_a_path_that_is_too_long_says_how_long_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="at most 107 bytes"):
        UnixListener(tmp_path / ("x" * 108), 0o600)


def test_a_server_that_stops_leaves_the_socket_of_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    first = UnixListener(path, 0o600)
    path.unlink()
    second = UnixListener(path, 0o600)
    first.remove()
    assert path.is_socket()
    second.remove()
    assert not path.exists()
    for listener in (first, second):
        listener.socket.close()


def test_other_machines_cannot_connect_so_that_no_key_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with serving("--host", "0.0.0.0", "--uds", str(path), *MEMORY), connection(path) as client:
        assert client.get("/v1/policies").status_code == 200


@pytest.mark.parametrize("escaped", [False, True])
def test_the_clients_take_the_path_as_a_url(path: Path, escaped: bool) -> None:
    url = f"http+unix://{quote(str(path), safe='') if escaped else path}"

    async def ask() -> str | None:
        async with AsyncClient(url) as client:
            return (await client.decide(EVENT)).id

    with Client(url) as client:
        first = client.decide(EVENT)
        assert client.get(first.id or "") == first
        assert client.get(asyncio.run(ask()) or "").event_key == first.event_key
        newest = next(iter(client.watch(last_event_id="0")))
        assert isinstance(newest, StreamedDecision)


def test_a_client_without_a_service_says_so(tmp_path: Path) -> None:
    with Client(f"http+unix://{tmp_path}/none.sock", retry=None) as client, pytest.raises(Unreachable):
        client.health()


def test_the_command_line_takes_the_path_as_a_url(path: Path) -> None:
    with connection(path) as client:
        identity = client.post("/v1/decisions", json=EVENT).json()["id"]
    done = run("show", identity, "--json", "--server", f"http+unix://{path}")

    assert (done.returncode, identity.encode() in done.stdout) == (0, True), done.stderr
