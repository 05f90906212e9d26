"""Guard: `Host`, `Origin`, keys, scopes, rate limits."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.security.guard import requires
from ras_triage.service.security.principal import SCOPES, granted
from tests.service.support.secured_application import SecuredApplication, kind

DECODE = {"content": b"{}"}


def test_without_keys_loopback_clients_need_no_credentials() -> None:
    secured = SecuredApplication()

    assert secured.request("GET", "/v1/policies").status_code == 200
    assert secured.request("DELETE", "/v1/everything").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "192.168.0.1", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"]
)
def test_a_host_header_of_another_site_is_refused_against_dns_rebinding(host: str) -> None:
    assert kind(SecuredApplication().request("GET", "/v1/policies", headers={"Host": host})) == (421, "misdirected-request")


NO_HOSTS = (
    "[::1]evil.com", "[::1]evil.com:80", "evil.com[::1]", "[::1]]", "[[::1]]", "[::1", "::1]", "::1", "[::1%25lo]", "[127.0.0.1]",
    "[localhost]", "localhost:80:80", "localhost:abc", "localhost:99999", "localhost:-1", "localhost:+1", "localhost: 80",
    "localhost:٨٠", ":80", "", "user@localhost", "user:secret@localhost", "localhost@evil.com", "localhost/", "localhost/evil.com",
    "localhost?x", "localhost#x", "http://localhost", "localhost\\evil.com", " localhost", "localhost ", "local host",
    "localhost, evil.com", "localhost,localhost\t", "lócalhost", "localhost\x00", "local%zzhost", "%", "localhost%",
)  # fmt: skip
"""What is not a host with or without a port (RFC 9110 7.2, RFC 3986 3.2.2)."""

OTHER_HOSTS = (
    "localhost.", "localhost.localdomain", "127.0.0.1.", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.01", "local%68ost",
    "%6cocalhost", "localhost,localhost", "localhost;evil.com", "xn--lcalhost-n0a", "0", "0.0.0.0", "[::]", "[::2]", "[v1.x]", "[fe80::1]",
)  # fmt: skip
"""What is a host, and not this machine as a browser names it."""


def test_only_the_exact_names_of_loopback_are_accepted_as_host() -> None:
    secured = SecuredApplication()
    for host in (*NO_HOSTS, *OTHER_HOSTS):
        answer = secured.request("GET", "/v1/policies", headers=[("Host", host.encode())])
        assert kind(answer) == (421, "misdirected-request"), host


def test_a_malformed_host_is_not_taken_for_a_trusted_one() -> None:
    secured = SecuredApplication(Settings(trusted_hosts=("triage.example", "[fd00::1]", "fd00::2")))
    shown = secured.key("read")

    def status(*hosts: str) -> int:
        return secured.request("GET", "/v1/policies", shown, headers=[("Host", host) for host in hosts]).status_code

    assert [status(host) for host in ("TRIAGE.example:443", "[FD00:0::1]:80", "[fd00::2]", "localhost")] == [200] * 4
    for host in (
        "triage.example.",
        "triage.example:80:80",
        "a@triage.example",
        "triage.example, x",
        "[fd00::1]x",
        "fd00::1",
        "%74riage.example",
    ):
        assert status(host) == 421, host
    assert status("triage.example", "triage.example") == 421
    assert status("triage.example", "evil.example") == 421


def test_with_a_key_any_well_formed_host_is_accepted() -> None:
    secured = SecuredApplication()
    shown = secured.key("read")

    for host in OTHER_HOSTS:
        assert secured.request("GET", "/v1/policies", shown, headers={"Host": host}).status_code == 200, host
    for host in NO_HOSTS:
        assert kind(secured.request("GET", "/v1/policies", shown, headers=[("Host", host.encode())])) == (400, "invalid-header"), host
    two = [("Host", "triage.example"), ("Host", "triage.example")]
    assert kind(secured.request("GET", "/v1/policies", shown, headers=two)) == (400, "invalid-header")


@pytest.mark.parametrize("host", ["triage.example:80", "https://triage.example", "", "a b", "[::1", "triage.example/"])
def test_a_trusted_host_that_no_request_can_name_is_an_invalid_setting(host: str) -> None:
    with pytest.raises(InvalidSetting, match="is not a host name or address without a port"):
        SecuredApplication(Settings(trusted_hosts=(host,)))


@pytest.mark.parametrize("other", ["localhost", "evil.example"])
def test_a_request_with_two_host_headers_is_refused(other: str) -> None:
    answer = SecuredApplication().request("GET", "/v1/policies", headers=[("Host", "localhost"), ("Host", other)])

    assert kind(answer) == (421, "misdirected-request")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "localhost:", "127.0.0.1", "127.0.0.1:9", "[::1]:8080", "LOCALHOST"])
def test_loopback_names_are_accepted_as_host(host: str) -> None:
    assert SecuredApplication().request("GET", "/v1/policies", headers={"Host": host}).status_code == 200


def test_a_host_can_be_trusted_by_a_setting() -> None:
    secured = SecuredApplication(Settings(trusted_hosts=("triage.example",)))

    assert secured.request("GET", "/v1/policies", headers={"Host": "Triage.example:80"}).status_code == 200
    assert secured.request("GET", "/v1/policies", headers={"Host": "localhost"}).status_code == 200
    assert kind(secured.request("GET", "/v1/policies", headers={"Host": "other.example"})) == (421, "misdirected-request")


def test_trusted_hosts_are_the_only_ones_with_a_key_too() -> None:
    secured = SecuredApplication(Settings(trusted_hosts=("triage.example",)))
    shown = secured.key("read")

    assert secured.request("GET", "/v1/policies", shown, headers={"Host": "triage.example"}).status_code == 200
    assert kind(secured.request("GET", "/v1/policies", shown, headers={"Host": "other.example"})) == (421, "misdirected-request")


def test_with_a_key_any_host_is_accepted() -> None:
    secured = SecuredApplication()

    assert secured.request("GET", "/v1/policies", secured.key("read"), headers={"Host": "triage.example"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "http://127.0.0.1:80801"])
def test_a_request_of_another_origin_changes_nothing(origin: str) -> None:
    secured = SecuredApplication()

    assert kind(secured.request("POST", "/v1/decode", headers={"Origin": origin}, **DECODE)) == (403, "cross-origin")
    assert kind(secured.request("DELETE", "/v1/everything", headers={"Origin": origin})) == (403, "cross-origin")


def test_only_the_exact_origin_of_the_service_changes_anything() -> None:
    secured = SecuredApplication()

    def post(host: str, *origins: str) -> httpx.Response:
        headers = [("Host", host), *(("Origin", origin) for origin in origins)]
        return secured.request("POST", "/v1/decode", headers=[(name, text.encode()) for name, text in headers], **DECODE)

    for host, origin in (
        ("localhost:8080", "http://localhost:8080"), ("LOCALHOST:8080", "http://localhost:8080"), ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"), ("localhost", "http://localhost:80"), ("[::1]:8080", "http://[::1]:8080"),
        ("[0:0::1]:8080", "http://[::1]:8080"), ("localhost:", "http://localhost"),
    ):  # fmt: skip
        assert post(host, origin).status_code == 422, (host, origin)
    for host, origin in (
        ("localhost:8080", "https://localhost:8080"), ("localhost:443", "https://localhost"), ("localhost", "https://localhost"),
        ("localhost:8080", "ftp://localhost:8080"), ("localhost:8080", "null"), ("localhost:8080", ""),
        ("localhost:8080", "localhost:8080"), ("localhost:8080", "//localhost:8080"), ("localhost:8080", "http://localhost"),
        ("localhost:8080", "http://localhost:80"), ("localhost:8080", "http://127.0.0.1:8080"),
        ("127.0.0.1:8080", "http://localhost:8080"), ("localhost:8080", "http://localhost:8080/"),
        ("localhost:8080", "http://localhost:8080/x"), ("localhost:8080", "http://localhost.:8080"),
        ("localhost:8080", "http://localhost:8080 "), ("localhost:8080", "http://a@localhost:8080"),
        ("localhost:8080", "http://localhost:8080 http://localhost:8080"),
        ("localhost:8080", "http://localhost:8080, http://evil.example"), ("localhost:8080", "http://local%68ost:8080"),
        ("localhost:8080", "x://http://localhost:8080"), ("[::1]:8080", "http://[::1]evil.com:8080"),
        ("localhost:8080", "http://localhost:8080#"), ("localhost:8080", "http:\\\\localhost:8080"),
        ("localhost:8080", "http://localhost:8080:8080"), ("localhost:8080", "http://[localhost]:8080"),
    ):  # fmt: skip
        assert kind(post(host, origin)) == (403, "cross-origin"), (host, origin)
    assert kind(post("localhost:8080", "http://localhost:8080", "http://localhost:8080")) == (403, "cross-origin")
    assert kind(post("localhost:8080", "http://localhost:8080", "https://evil.example")) == (403, "cross-origin")


def test_a_request_of_the_services_own_origin_is_accepted() -> None:
    assert SecuredApplication().request("DELETE", "/v1/everything", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 200


def test_another_origin_needs_a_key_and_is_accepted_with_one() -> None:
    secured = SecuredApplication()
    shown = secured.key("admin")

    assert kind(secured.request("DELETE", "/v1/everything", headers={"Origin": "https://a.example"})) == (401, "unauthenticated")
    assert secured.request("DELETE", "/v1/everything", shown, headers={"Origin": "https://a.example"}).status_code == 200


@pytest.mark.parametrize(
    ("scope", "decode", "policies", "everything"), [("decide", 422, 403, 403), ("read", 422, 200, 403), ("admin", 422, 200, 200)]
)
def test_a_key_allows_what_its_scopes_say(scope: str, decode: int, policies: int, everything: int) -> None:
    secured = SecuredApplication()
    shown = secured.key(scope)  # type: ignore[arg-type]

    assert secured.request("POST", "/v1/decode", shown, **DECODE).status_code == decode
    assert secured.request("GET", "/v1/policies", shown).status_code == policies
    assert secured.request("DELETE", "/v1/everything", shown).status_code == everything


def test_a_refusal_names_the_missing_scope_or_scheme() -> None:
    secured = SecuredApplication()
    shown = secured.key("read")
    nobody, wrong, little = (secured.request("POST", "/v1/decisions", bearer, **DECODE) for bearer in (None, "rt_x_y", shown))

    assert kind(nobody) == (401, "unauthenticated")
    assert nobody.headers["www-authenticate"] == 'Bearer realm="ras-triage"'
    assert kind(wrong) == (401, "unauthenticated")
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    assert kind(little) == (403, "forbidden")
    assert "`decide`" in little.json()["detail"]
    assert 'scope="decide"' in little.headers["www-authenticate"]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "bearer", "Token x"])
def test_a_malformed_authorization_header_is_401(header: str) -> None:
    secured = SecuredApplication()
    secured.key("read")

    assert kind(secured.request("GET", "/v1/policies", headers={"Authorization": header})) == (401, "unauthenticated")


def test_without_credentials_the_body_is_not_validated() -> None:
    secured = SecuredApplication(Settings(max_body_bytes=10))
    secured.key("read")

    assert kind(secured.request("POST", "/v1/decode", content=b"x" * 100)) == (401, "unauthenticated")


def test_probes_and_the_api_description_need_no_key() -> None:
    secured = SecuredApplication()
    secured.key("read")

    assert [secured.request("GET", path).status_code for path in ("/healthz", "/readyz", "/docs", "/openapi.json")] == [200] * 4


def test_beyond_loopback_credentials_are_required_also_after_the_last_key_is_revoked() -> None:
    secured = SecuredApplication(Settings(host="0.0.0.0"))

    assert kind(secured.request("GET", "/v1/policies", headers={"Host": "localhost"})) == (401, "unauthenticated")


def test_an_empty_keys_file_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("")

    assert kind(SecuredApplication(Settings(keys_file=tmp_path / "keys.toml")).request("GET", "/v1/policies")) == (401, "unauthenticated")


def test_the_admin_scope_includes_all_others() -> None:
    assert granted(["admin"]) == set(SCOPES)
    assert granted(["read", "profile"]) == {"read"}


def test_a_route_gets_one_guard() -> None:
    assert requires("decide") is requires("decide")


def test_each_key_has_a_rate_of_its_own() -> None:
    secured = SecuredApplication(Settings(rate_limit=0.05, rate_burst=3))  # slow enough for a machine under load
    one, other = secured.key("read"), secured.key("read")
    answers = [secured.request("GET", "/v1/policies", one) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert kind(answers[3]) == (429, "rate-limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 120
    assert secured.request("GET", "/v1/policies", other).status_code == 200


def test_a_client_that_waits_for_retry_after_is_accepted() -> None:
    secured = SecuredApplication(Settings(rate_limit=2))
    shown = secured.key("read")
    while (answer := secured.request("GET", "/v1/policies", shown)).status_code == 200:
        pass
    time.sleep(int(answer.headers["retry-after"]))

    assert secured.request("GET", "/v1/policies", shown).status_code == 200


def test_a_loopback_service_whose_last_key_is_revoked_is_open_again() -> None:
    secured = SecuredApplication()
    shown = secured.key("read")
    secured.store.revoke_api_key(shown.split("_")[1], 1)

    assert secured.request("GET", "/v1/policies").status_code == 200
