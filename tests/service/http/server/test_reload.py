"""Reload of the settings on SIGHUP."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from ras_triage.policies.catalog.choice import load_policy
from ras_triage.service.config.settings import InvalidSetting, Oidc, Settings
from ras_triage.service.http.server.reload import Reload, merge
from ras_triage.service.http.server.run import running as running_here
from ras_triage.service.security.keys import create, file_entry
from tests.paths import ROOT
from tests.service.support.application import EVENT
from tests.service.support.certificates import CertificateAuthority
from tests.service.support.server_process import Service

RELOADED = "settings.reload"
REFUSED = "settings not reloaded"


class Reloading:
    """A service with a settings file and a policy of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "config.toml"
        self.policy = folder / "ours.toml"
        self.write()
        self.service = Service("--config", str(self.file), "--store", f"sqlite:///{folder / 'store.db'}")
        self.url = self.service.url

    def write(self, text: str = "", *, flag: bool = False, workers: int = 2) -> None:
        self.policy.write_text(f'name = "ours"\nbase = "uniform"\n[flags]\nreads_every_notification = {str(flag).lower()}\n')
        self.file.write_text(f'policy_files = ["{self.policy}"]\nbatch_workers = {workers}\n{text}')

    def reload(self, expected: str) -> str:
        """Send the signal, and wait for the line that says what came of it."""
        before = len(self.service.log)
        self.service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in self.service.log[before:]:
                if RELOADED in line or REFUSED in line:
                    assert expected in line
                    return line
            time.sleep(0.02)
        raise AssertionError("".join(self.service.log[before:]))

    def logged(self, text: str) -> bool:
        """Whether a line says this, or soon does."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if any(text in line for line in self.service.log):
                return True
            time.sleep(0.02)
        return False

    def digest(self) -> str:
        """Of the policy, as a decision has it."""
        answer = httpx.post(f"{self.url}/v1/decisions", params={"dry_run": True}, json={**EVENT, "policy": "ours"}, timeout=20)
        return str(answer.json()["policy"]["digest"])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    found = Reloading(tmp_path_factory.mktemp("reloading"))
    yield found
    found.service.kill()


@pytest.fixture
def service(running: Reloading) -> Iterator[Reloading]:
    """One with its first settings."""
    yield running
    running.write()
    running.reload(RELOADED)


def test_policies_change_and_a_batch_under_way_goes_on_with_the_new_ones(service: Reloading) -> None:
    first = service.digest()
    lines = (json.dumps({**EVENT, "id": f"e-{number}", "policy": "ours"}).encode() + b"\n" for number in range(3000))

    def body() -> Iterator[bytes]:
        for number, line in enumerate(lines):
            if number == 1500:
                time.sleep(0.5)
                service.write(flag=True)
                assert "changed=policy_files" in service.reload(RELOADED)
            yield line

    headers = {"content-type": "application/x-ndjson"}
    answer = httpx.post(f"{service.url}/v1/decisions/batch", content=body(), headers=headers, timeout=60)
    digests = [json.loads(line)["policy"]["digest"] for line in answer.text.splitlines()]

    second = service.digest()
    assert first != second
    assert len(digests) == 3000
    assert (digests[0], digests[-1]) == (first, second)
    assert set(digests) == {first, second}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("retention_days = -1\nlog_level = 'error'\n", "`retention_days`"),
        ("policies = 1\nlog_level = 'error'\n", "unknown setting"),
        ("keys_file = '/nonexistent'\nlog_level = 'error'\n", "no such file"),
        ("default_policy = 'linux-1.0'\n", "linux-1.0"),
        ("[[\n", "config.toml"),
    ],
)
def test_settings_that_cannot_be_used_change_nothing_at_all(service: Reloading, text: str, reason: str) -> None:
    before = service.digest()
    service.write(text, flag=True)

    assert reason in service.reload(REFUSED)
    assert service.digest() == before
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    assert service.logged("route=/healthz status=200"), "the level of the log is as it was"


def test_a_policy_file_that_cannot_be_read_changes_nothing(service: Reloading) -> None:
    before = service.digest()
    service.policy.write_text("name = 'ours'\nbase = 'nothing'\n")

    assert "nothing" in service.reload(REFUSED)
    assert service.digest() == before


def test_what_cannot_change_is_named_and_the_rest_is_used(service: Reloading) -> None:
    service.write("max_in_flight = 7\nretention_days = 3.0\n", workers=1)
    assert "changed=retention_days" in service.reload(RELOADED)

    assert service.logged('settings that need a restart names="batch_workers, max_in_flight"')
    assert httpx.get(f"{service.url}/v1/store").json()["retention_days"] == 3


def test_rates_and_the_level_of_the_log_change(service: Reloading) -> None:
    service.write("rate_limit = 0.01\nrate_burst = 1\nlog_level = 'error'\n")
    service.reload(RELOADED)

    assert [httpx.get(f"{service.url}/v1/policies").status_code for _ in range(2)] == [200, 429]
    before = len(service.service.log)
    httpx.get(f"{service.url}/healthz")
    service.write()
    service.reload(RELOADED)
    assert not any("route=/healthz" in line for line in service.service.log[before:])
    assert [httpx.get(f"{service.url}/v1/policies").status_code for _ in range(3)] == [200] * 3


def test_a_keys_file_closes_the_service_and_cannot_be_taken_away_again(tmp_path: Path) -> None:
    found = Reloading(tmp_path)
    key, shown = create("somebody", ["read"], 0)
    (tmp_path / "keys.toml").write_text(file_entry(key))
    try:
        assert httpx.get(f"{found.url}/v1/policies").status_code == 200
        found.write(f"keys_file = '{tmp_path / 'keys.toml'}'\n")
        found.reload(RELOADED)
        assert httpx.get(f"{found.url}/v1/policies").status_code == 401
        assert httpx.get(f"{found.url}/v1/policies", headers={"authorization": f"Bearer {shown}"}).status_code == 200

        found.write()
        assert "this needs a restart" in found.reload(REFUSED)
        assert httpx.get(f"{found.url}/v1/policies").status_code == 401
    finally:
        found.service.kill()


def test_new_connections_get_the_new_certificate_and_old_ones_go_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = CertificateAuthority(tmp_path, "authority")
    certificate, key = authority.sign("server")
    settings = Settings(tls_certificate=certificate, tls_key=key)
    reload = Reload(lambda: settings)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    with running_here(settings, reload=reload) as url, httpx.Client(verify=trusting) as old:
        assert old.get(f"{url}/healthz").status_code == 200
        first = shown(url, trusting)
        authority.sign("server")
        reload.request()
        deadline = time.monotonic() + 10
        while (second := shown(url, trusting)) == first:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert old.get(f"{url}/healthz").status_code == 200

        key.write_text("no key")
        reload.request()
        while REFUSED not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert shown(url, trusting) == second


def shown(url: str, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    address = httpx.URL(url)
    with (
        socket.create_connection((address.host, address.port or 0)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"").serial_number


def test_a_service_whose_terminal_is_closed_stops() -> None:
    outer, inner = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(inner, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "ras_triage.service.cli.main", "serve", "--port", "0", "--store", "memory:"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509
    )
    os.close(inner)
    said = b""
    while b"running on" not in said:
        said += os.read(outer, 1 << 16)
    os.close(outer)
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_a_reload_keeps_stored_policies(service: Reloading) -> None:
    stored = httpx.put(f"{service.url}/v1/policies/stored", json={"base": "linux-6.1.100"}, timeout=20).json()
    service.write("log_level = 'warning'\n", flag=True)
    assert "policy_files" in service.reload(RELOADED)
    answer = httpx.post(f"{service.url}/v1/decisions", params={"dry_run": True}, json={**EVENT, "policy": "stored"}, timeout=20)
    assert answer.json()["policy"] == {"name": "stored", "digest": stored["digest"]}


def test_a_policy_that_says_the_same_is_not_changed() -> None:
    text = 'name = "ours"\nbase = "uniform"\n[flags]\nqueued_accumulates = true\n'
    old, same, other = (Settings(custom_policies={"ours": load_policy(one, ())}) for one in (text, text, text.replace("true", "false")))

    assert merge(old, same).changed == ()
    assert merge(old, same).settings.custom_policies is old.custom_policies
    assert merge(old, other).changed == ("policy_files",)


def test_what_is_not_known_to_be_changeable_needs_a_restart() -> None:
    fixed = {"host": "::1", "port": 9, "store": "sqlite:///x", "batch_workers": 3, "otel": True, "trusted_proxies": ("10.0.0.1",)}
    found = merge(Settings(), Settings(**fixed))

    assert found.settings == Settings()
    assert (found.changed, set(found.need_restart)) == ((), set(fixed))


def test_tls_is_neither_begun_nor_ended_by_a_reload(tmp_path: Path) -> None:
    secure = Settings(tls_certificate=tmp_path / "c", tls_key=tmp_path / "k")
    for old, new in ((Settings(), secure), (secure, Settings())):
        found = merge(old, new)
        assert (found.settings, found.changed) == (old, ())
        assert set(found.need_restart) == {"tls_certificate", "tls_key"}


@pytest.mark.parametrize("old", [Settings(keys_file=Path("x")), Settings(oidc=Oidc("https://i", "a"))])
def test_the_last_that_closes_a_service_stays(old: Settings) -> None:
    with pytest.raises(InvalidSetting):
        merge(old, Settings())
    assert merge(old, Settings(keys_file=Path("y"))).settings.keys_file == Path("y")
