"""API keys: creation, verification, revocation."""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.security import keys
from ras_triage.service.security.keys import KeyRing, create, file_entry, read_file, verify
from ras_triage.service.store.port import ApiKey, StoreUnavailable
from ras_triage.service.store.sqlite import SqliteStore
from tests.service.support.application import run
from tests.service.support.secured_application import SecuredApplication, kind

SHOWN = re.compile(r"rt_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


def audit(line: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(line)
    assert document["event"] == "audit"
    return document


def test_a_key_is_shown_once_and_kept_as_a_hash() -> None:
    key, shown = create("sim", ["decide"], 5)

    assert SHOWN.fullmatch(shown)
    assert key.secret_hash == sha256(shown.split("_", 2)[2].encode()).hexdigest()
    assert shown.split("_", 2)[2] not in repr(key)
    assert verify(shown, {key.id: key}) == key


def test_no_two_keys_are_alike() -> None:
    assert len({create("sim", ["read"], 0)[1] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "wrong", ["", "rt_", "rt_x", "rt__", "{id}", "rt_{id}", "rt_{id}_", "rt_{id}_x", "{shown}x", "{shown}\n", "{shown}é"]
)
def test_what_is_not_the_key_is_not_recognised(wrong: str) -> None:
    key, shown = create("sim", ["decide"], 0)

    assert verify(wrong.format(id=key.id, shown=shown), {key.id: key}) is None


def test_a_key_of_a_file_opens_the_door_and_only_its_hash_is_there(tmp_path: Path) -> None:
    done = run("keys", "create", "--name", 'ci "1"', "--scope", "read", "--hash-only")
    shown = SHOWN.search(done.stderr.decode())
    assert shown is not None
    assert shown[0].split("_", 2)[2] not in done.stdout.decode()
    (tmp_path / "keys.toml").write_bytes(done.stdout)

    secured = SecuredApplication(Settings(keys_file=tmp_path / "keys.toml"))
    assert secured.request("GET", "/v1/policies", shown[0]).status_code == 200
    assert kind(secured.request("GET", "/v1/policies")) == (401, "unauthenticated")
    assert [key.name for key in read_file(tmp_path / "keys.toml").values()] == ['ci "1"']


def test_a_file_may_hold_many_keys_and_be_exchanged_while_the_service_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "FRESH_S", 0.0)
    file = tmp_path / "keys.toml"
    (one, first), (two, second) = create("one", ["read"], 0), create("two", ["read"], 0)
    file.write_text(file_entry(one) + file_entry(two))
    secured = SecuredApplication(Settings(keys_file=file))
    assert [secured.request("GET", "/v1/policies", shown).status_code for shown in (first, second)] == [200, 200]

    file.write_text(file_entry(two))
    assert [secured.request("GET", "/v1/policies", shown).status_code for shown in (first, second)] == [401, 200]

    file.write_text("[[key]]\n")
    assert [secured.request("GET", "/v1/policies", shown).status_code for shown in (first, second)] == [401, 200]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[key]]\n", "key 0, `id`"),
        ('[[key]]\nid = "a"\nname = "n"\nscopes = ["root"]\nsecret_sha256 = "' + "0" * 64 + '"', "key 0, `scopes.0`"),
        ('[[key]]\nid = "a"\nname = "n"\nscopes = ["read"]\nsecret_sha256 = "rt_a_SWORDFISH"', "key 0, `secret_sha256`"),
        (2 * file_entry(create("twice", ["read"], 0)[0]), "two keys have the same `id`"),
        ("[keys]\n", "expected only `[[key]]`"),
        ("key", "expected"),
    ],
)
def test_a_file_that_is_not_right_is_refused_without_repeating_it(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)

    with pytest.raises(InvalidSetting) as refused:
        KeyRing(SecuredApplication()._keys, file)
    assert complaint.lower() in str(refused.value).lower()
    assert "SWORDFISH" not in str(refused.value)


def test_keys_are_created_listed_and_revoked_by_command(store: str) -> None:
    created = run("keys", "create", "--name", "sim", "--scope", "read", "--scope", "decide", "--store", store)
    shown = created.stdout.decode().strip()
    identity = shown.split("_")[1]
    listed = json.loads(run("keys", "list", "--store", store, "--json").stdout)

    assert SHOWN.fullmatch(shown)
    assert [(key["id"], key["name"], key["scopes"], key["revoked_at"]) for key in listed] == [(identity, "sim", ["decide", "read"], None)]
    noted = audit(created.stderr)
    assert (noted["action"], noted["id"], noted["by"]) == ("key.created", identity, f"uid {os.getuid()}")
    assert shown.split("_", 2)[2] not in created.stderr.decode()

    revoked = run("keys", "revoke", identity, "--store", store)
    assert audit(revoked.stderr)["action"] == "key.revoked"
    assert json.loads(run("keys", "list", "--store", store, "--json").stdout)[0]["revoked_at"] is not None
    assert b"revoked" in run("keys", "list", "--store", store).stdout
    again = run("keys", "revoke", shown, "--store", store)
    assert (again.returncode, b"already revoked" in again.stderr) == (0, True)


def test_keys_can_be_made_while_a_service_holds_the_store(store: str, tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "store.db")) as held:
        created = run("keys", "create", "--name", "sim", "--scope", "admin", "--store", store)

        assert created.returncode == 0
        assert [key.scopes for key in held.api_keys()] == [("admin",)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["keys", "create", "--name", "x", "--store", "{store}"], "--scope"),
        (["keys", "create", "--name", "x", "--scope", "root", "--store", "{store}"], "unknown value `root`; expected one of decide"),
        (["keys", "create", "--name", " ", "--scope", "read", "--store", "{store}"], "`--name`"),
        (["keys", "create", "--name", "x", "--scope", "read", "--store", "memory:"], "cannot store keys"),
        (["keys", "create", "--name", "x", "--scope", "read", "--store", "sqlite:////nonexistent/s.db"], "cannot be opened"),
        (["keys", "list", "--store", "{store}"], "no store at"),
        (["keys", "revoke", "x", "--store", "{store}"], "no store at"),
        (["keys"], "required"),
    ],
)
def test_what_cannot_be_done_is_exit_2_with_a_word(arguments: list[str], complaint: str, store: str, tmp_path: Path) -> None:
    done = run(*(argument.format(store=store) for argument in arguments))

    assert (done.returncode, done.stdout) == (2, b"")
    assert complaint in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not list(tmp_path.iterdir())


def test_there_is_no_key_of_that_name(store: str) -> None:
    run("keys", "create", "--name", "sim", "--scope", "read", "--store", store)

    assert b"unknown key `abc`" in run("keys", "revoke", "abc", "--store", store).stderr


def test_a_key_is_good_and_gone_within_a_second() -> None:
    secured = SecuredApplication()
    assert secured.request("GET", "/v1/policies").status_code == 200
    shown = secured.key("read")
    time.sleep(keys.FRESH_S)

    assert kind(secured.request("GET", "/v1/policies")) == (401, "unauthenticated")
    assert secured.request("GET", "/v1/policies", shown).status_code == 200
    secured.key("read")
    secured.store.revoke_api_key(shown.split("_")[1], 1)
    time.sleep(keys.FRESH_S)
    assert kind(secured.request("GET", "/v1/policies", shown)) == (401, "unauthenticated")


def test_guessing_costs_the_store_one_look_a_second() -> None:
    secured = SecuredApplication()
    secured.key("read")
    looks = 0

    async def load() -> list[ApiKey]:
        nonlocal looks
        looks += 1
        return secured.store.api_keys()

    secured.app.state.security._keys._load = load
    answers = [secured.request("GET", "/v1/policies", f"rt_{n:012x}_x").status_code for n in range(20)]

    assert set(answers) == {401}
    assert looks <= 2


def test_a_store_that_cannot_be_asked_opens_no_door() -> None:
    secured = SecuredApplication()

    async def fail() -> list[ApiKey]:
        raise StoreUnavailable("disk I/O error")

    secured.app.state.security._keys._load = fail
    answer = secured.request("GET", "/v1/policies")

    assert kind(answer) == (503, "store-unavailable")
    assert answer.headers["retry-after"]
    assert "disk" not in answer.text
    assert secured.request("GET", "/healthz").status_code == 200
