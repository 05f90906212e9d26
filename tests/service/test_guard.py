from __future__ import annotations

import time
from pathlib import Path

import pytest
from door import Door, kind

from service.security.guard import requires
from service.security.principal import SCOPES, granted
from service.settings import Settings

DECODE = {"content": b"{}"}


def test_without_keys_everything_is_open_on_this_machine() -> None:
    door = Door()

    assert door.knock("GET", "/v1/policies").status_code == 200
    assert door.knock("DELETE", "/v1/everything").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "192.168.0.1", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1"]
)
def test_a_name_that_was_made_to_point_here_is_not_answered(host: str) -> None:
    assert kind(Door().knock("GET", "/v1/policies", headers={"Host": host})) == (421, "misdirected-request")


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:9", "[::1]:8080", "LOCALHOST"])
def test_this_machines_names_are_answered(host: str) -> None:
    assert Door().knock("GET", "/v1/policies", headers={"Host": host}).status_code == 200


def test_a_name_can_be_trusted() -> None:
    door = Door(Settings(trusted_hosts=("triage.example",)))

    assert door.knock("GET", "/v1/policies", headers={"Host": "Triage.example:80"}).status_code == 200
    assert door.knock("GET", "/v1/policies", headers={"Host": "localhost"}).status_code == 200
    assert kind(door.knock("GET", "/v1/policies", headers={"Host": "other.example"})) == (421, "misdirected-request")


def test_names_that_are_trusted_are_the_only_ones_for_those_with_a_key_too() -> None:
    door = Door(Settings(trusted_hosts=("triage.example",)))
    shown = door.key("read")

    assert door.knock("GET", "/v1/policies", shown, headers={"Host": "triage.example"}).status_code == 200
    assert kind(door.knock("GET", "/v1/policies", shown, headers={"Host": "other.example"})) == (421, "misdirected-request")


def test_with_a_key_any_name_will_do() -> None:
    door = Door()

    assert door.knock("GET", "/v1/policies", door.key("read"), headers={"Host": "triage.example"}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1", "http://127.0.0.1:80801"])
def test_a_page_of_elsewhere_changes_nothing(origin: str) -> None:
    door = Door()

    assert kind(door.knock("POST", "/v1/decode", headers={"Origin": origin}, **DECODE)) == (403, "cross-origin")
    assert kind(door.knock("DELETE", "/v1/everything", headers={"Origin": origin})) == (403, "cross-origin")


def test_the_services_own_page_may() -> None:
    assert Door().knock("DELETE", "/v1/everything", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 200


def test_a_page_of_elsewhere_cannot_use_a_key_that_it_does_not_have_and_may_use_one_it_has() -> None:
    door = Door()
    shown = door.key("admin")

    assert kind(door.knock("DELETE", "/v1/everything", headers={"Origin": "https://a.example"})) == (401, "unauthenticated")
    assert door.knock("DELETE", "/v1/everything", shown, headers={"Origin": "https://a.example"}).status_code == 200


@pytest.mark.parametrize(
    ("scope", "decode", "policies", "everything"), [("decide", 422, 403, 403), ("read", 403, 200, 403), ("admin", 422, 200, 200)]
)
def test_a_key_opens_what_its_scope_says(scope: str, decode: int, policies: int, everything: int) -> None:
    door = Door()
    shown = door.key(scope)  # type: ignore[arg-type]

    assert door.knock("POST", "/v1/decode", shown, **DECODE).status_code == decode
    assert door.knock("GET", "/v1/policies", shown).status_code == policies
    assert door.knock("DELETE", "/v1/everything", shown).status_code == everything


def test_a_refusal_says_what_is_missing() -> None:
    door = Door()
    shown = door.key("read")
    nobody, wrong, little = (door.knock("POST", "/v1/decode", bearer, **DECODE) for bearer in (None, "rt_x_y", shown))

    assert kind(nobody) == (401, "unauthenticated")
    assert nobody.headers["www-authenticate"] == 'Bearer realm="ras-triage"'
    assert kind(wrong) == (401, "unauthenticated")
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    assert kind(little) == (403, "forbidden")
    assert "`decide`" in little.json()["detail"]
    assert 'scope="decide"' in little.headers["www-authenticate"]


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "bearer", "Token x"])
def test_what_is_no_bearer_token_is_nobody(header: str) -> None:
    door = Door()
    door.key("read")

    assert kind(door.knock("GET", "/v1/policies", headers={"Authorization": header})) == (401, "unauthenticated")


def test_nobody_learns_of_a_body_that_would_be_refused() -> None:
    door = Door(Settings(max_body_bytes=10))
    door.key("read")

    assert kind(door.knock("POST", "/v1/decode", content=b"x" * 100)) == (401, "unauthenticated")


def test_what_is_not_secret_needs_no_key() -> None:
    door = Door()
    door.key("read")

    assert [door.knock("GET", path).status_code for path in ("/healthz", "/readyz", "/docs", "/openapi.json")] == [200] * 4


def test_beyond_this_machine_nothing_is_open_also_when_the_last_key_is_gone() -> None:
    door = Door(Settings(host="0.0.0.0"))

    assert kind(door.knock("GET", "/v1/policies", headers={"Host": "localhost"})) == (401, "unauthenticated")


def test_a_keys_file_without_keys_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_text("")

    assert kind(Door(Settings(keys_file=tmp_path / "keys.toml")).knock("GET", "/v1/policies")) == (401, "unauthenticated")


def test_who_administers_may_do_everything() -> None:
    assert granted(["admin"]) == set(SCOPES)
    assert granted(["read", "profile"]) == {"read"}


def test_a_route_gets_one_guard() -> None:
    assert requires("decide") is requires("decide")


def test_each_key_has_a_rate_of_its_own() -> None:
    door = Door(Settings(rate_limit=1, rate_burst=3))
    one, other = door.key("read"), door.key("read")
    answers = [door.knock("GET", "/v1/policies", one) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert kind(answers[3]) == (429, "rate-limited")
    assert 1 <= int(answers[3].headers["retry-after"]) <= 6
    assert door.knock("GET", "/v1/policies", other).status_code == 200


def test_who_waits_as_long_as_is_said_is_let_in() -> None:
    door = Door(Settings(rate_limit=2))
    shown = door.key("read")
    while (answer := door.knock("GET", "/v1/policies", shown)).status_code == 200:
        pass
    time.sleep(int(answer.headers["retry-after"]))

    assert door.knock("GET", "/v1/policies", shown).status_code == 200


def test_a_loopback_service_whose_last_key_is_revoked_is_open_again() -> None:
    door = Door()
    shown = door.key("read")
    door.store.revoke_api_key(shown.split("_")[1], 1)

    assert door.knock("GET", "/v1/policies").status_code == 200
