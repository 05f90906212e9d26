"""TLS: certificates, client certificates, invalid files."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT, run
from tests.service.support.certificates import CertificateAuthority

PASSWORD = "swordfish"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(folder: Path) -> CertificateAuthority:
    return CertificateAuthority(folder, "authority")


@pytest.fixture
def trusting(authority: CertificateAuthority) -> Iterator[httpx.Client]:
    with httpx.Client(verify=ssl.create_default_context(cafile=str(authority.file))) as client:
        yield client


def test_it_decides_over_tls_and_tells_browsers_to_stay_with_it(authority: CertificateAuthority, trusting: httpx.Client) -> None:
    certificate, key = authority.sign("server")
    with running(Settings(tls_certificate=certificate, tls_key=key)) as url:
        answer = trusting.post(f"{url}/v1/decisions", json=EVENT)

        assert url.startswith("https://")
        assert answer.json()["action"] == "signal"
        assert answer.headers["strict-transport-security"]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url.replace("https", "http") + "/healthz")


def test_certificate_and_key_may_be_one_file_and_the_key_locked(
    authority: CertificateAuthority, folder: Path, trusting: httpx.Client
) -> None:
    certificate, key = authority.sign("locked", PASSWORD)
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    with running(Settings(tls_certificate=both, tls_key_password=SecretStr(PASSWORD))) as url:
        assert trusting.get(f"{url}/healthz").status_code == 200


def test_clients_show_a_certificate_of_the_authority_that_is_asked_for(authority: CertificateAuthority, folder: Path) -> None:
    certificate, key = authority.sign("server")
    clients = CertificateAuthority(folder, "clients")
    with running(Settings(tls_certificate=certificate, tls_key=key, tls_client_ca=clients.file)) as url:

        def ask(shown: tuple[Path, Path] | None) -> int:
            context = ssl.create_default_context(cafile=str(authority.file))
            if shown is not None:
                context.load_cert_chain(*shown)
            with httpx.Client(verify=context) as client:
                return client.get(f"{url}/healthz").status_code

        assert ask(clients.sign("fleet")) == 200
        for wrong in (None, authority.sign("stranger")):
            with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
                ask(wrong)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--tls-cert", "{folder}/none.crt"], "`tls_certificate`, `tls_key`: no such file"),
        (["--tls-cert", "{folder}/text"], "invalid content"),
        (["--tls-cert", "{crt}", "--tls-key", "{other}"], "invalid content"),
        (["--tls-cert", "{crt}", "--tls-key", "{locked}"], "wrong `tls_key_password`"),
        (["--tls-cert", "{crt}", "--tls-key", "{key}", "--tls-client-ca", "{folder}/text"], "`tls_client_ca`: invalid content"),
        (["--tls-key", "{key}"], "requires `tls_certificate`"),
    ],
)
def test_files_that_cannot_be_used_are_said_at_once(
    authority: CertificateAuthority, folder: Path, arguments: list[str], complaint: str
) -> None:
    certificate, key = authority.sign("server")
    (folder / "text").write_text("hello\n")
    files = {
        "folder": folder,
        "crt": certificate,
        "key": key,
        "other": authority.sign("other")[1],
        "locked": authority.sign("shut", PASSWORD)[1],
    }
    done = run("serve", "--port", "0", "--store", "memory:", *(argument.format(**files) for argument in arguments))

    assert done.returncode == 2
    assert complaint in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
