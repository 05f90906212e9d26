"""Access control of a service process: keys, scopes, listening addresses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.service.support import server_process
from tests.service.support.application import EVENT, run


@contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """`ras-triage serve` as its own process; gives its URL as seen from here."""
    with server_process.serving(*arguments) as service:
        yield f"http://127.0.0.1:{service.port}"


def created(store: str, *scopes: str) -> dict[str, str]:
    """The header with a new key."""
    scope = [argument for scope in scopes for argument in ("--scope", scope)]
    return {"Authorization": f"Bearer {run('keys', 'create', '--name', 'x', *scope, '--store', store).stdout.decode().strip()}"}


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/store.db"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "triage.example"])
def test_it_does_not_listen_beyond_loopback_without_credentials(store: str, host: str) -> None:
    done = run("serve", "--host", host, "--store", store)

    assert done.returncode == 2
    assert f"ras-triage keys create --name NAME --scope decide --scope read --store {store}" in done.stderr.decode()


def test_with_a_store_in_memory_the_refusal_names_keys_file() -> None:
    assert b"--hash-only` for a `keys_file`" in run("serve", "--host", "0.0.0.0", "--store", "memory:").stderr


def test_a_revoked_key_does_not_count_as_credentials(store: str) -> None:
    key = created(store, "read")["Authorization"].removeprefix("Bearer ")
    run("keys", "revoke", key, "--store", store)

    assert run("serve", "--host", "0.0.0.0", "--store", store).returncode == 2


def test_with_a_key_it_listens_on_all_addresses_and_accepts_the_key(store: str) -> None:
    headers = created(store, "decide")
    with serving("--host", "0.0.0.0", "--store", store) as url:
        assert httpx.post(f"{url}/v1/decisions", json=EVENT).status_code == 401
        assert httpx.post(f"{url}/v1/decisions", json=EVENT, headers=headers).status_code == 201
        assert httpx.get(f"{url}/v1/decisions", headers=headers).status_code == 403
        assert httpx.get(f"{url}/healthz").status_code == 200

        run("keys", "revoke", headers["Authorization"].removeprefix("Bearer "), "--store", store)
        time.sleep(1.1)
        assert httpx.post(f"{url}/v1/decisions", json=EVENT, headers=headers).status_code == 401
        assert httpx.post(f"{url}/v1/decisions", json=EVENT).status_code == 401


def test_a_stream_ends_when_its_key_is_revoked(store: str) -> None:
    reader, sender = created(store, "read"), created(store, "decide")
    with serving("--store", store) as url, httpx.stream("GET", f"{url}/v1/decisions/stream", headers=reader, timeout=30) as stream:
        lines = stream.iter_lines()
        assert next(lines) == ": ras-triage"
        first = httpx.post(f"{url}/v1/decisions", json=EVENT, headers=sender).json()["id"]
        assert any(first in line for line in islice(lines, 6))

        run("keys", "revoke", reader["Authorization"].removeprefix("Bearer "), "--store", store)
        time.sleep(2.1)
        second = httpx.post(f"{url}/v1/decisions", json=EVENT, headers=sender)
        assert second.status_code == 201
        assert not any("data:" in line for line in lines)


def test_creating_the_first_key_makes_a_running_service_require_one(store: str) -> None:
    with serving("--store", store) as url:
        assert httpx.post(f"{url}/v1/decisions", json=EVENT).status_code == 201
        headers = created(store, "admin")
        time.sleep(1.1)

        assert httpx.get(f"{url}/v1/decisions").status_code == 401
        assert len(httpx.get(f"{url}/v1/decisions", headers=headers).json()["decisions"]) == 1


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/decisions", "decide"),
        ("POST", "/v1/decisions/batch", "decide"),
        ("GET", "/v1/decisions", "read"),
        ("GET", "/v1/decisions/stats", "read"),
        ("GET", "/v1/decisions/stream", "read"),
        ("GET", "/v1/decisions/x", "read"),
        ("GET", "/v1/decisions/x/event", "read"),
        ("POST", "/v1/decisions/stream-tickets", "read"),
        ("POST", "/v1/import", "decide"),
        ("GET", "/v1/policies", "read"),
        ("GET", "/v1/hosts/x", "read"),
        ("PUT", "/v1/hosts/x", "admin"),
        ("DELETE", "/v1/hosts/x", "admin"),
        ("GET", "/v1/hosts", "read"),
        ("GET", "/v1/poisoned-pages", "read"),
        ("GET", "/v1/poisoned-pages/x", "read"),
        ("DELETE", "/v1/poisoned-pages/x", "admin"),
        ("GET", "/v1/store", "read"),
    ],
)
def test_each_call_needs_its_scope(closed: tuple[str, dict[str, dict[str, str]]], method: str, path: str, scope: str) -> None:
    url, keys = closed
    assert httpx.request(method, url + path).status_code == 401
    for other in {"decide", "read"} - {scope}:
        answer = httpx.request(method, url + path, headers=keys[other])
        assert (answer.status_code, answer.json()["detail"]) == (403, f"scope `{scope}` is required")
    if path != "/v1/decisions/stream":
        assert httpx.request(method, url + path, headers=keys[scope]).status_code not in (401, 403)


def test_a_key_that_may_read_or_decide_may_ask_what_stores_nothing(closed: tuple[str, dict[str, dict[str, str]]]) -> None:
    url, keys = closed
    questions = (
        ("/v1/decode", {"status_block": EVENT["status_block"]}),
        ("/v1/syndromes", {"value": "0xbe000c11"}),
        ("/v1/decisions?dry_run=true", EVENT),
        ("/v1/decisions/batch?dry_run=true", [EVENT]),
        ("/v1/import?dry_run=true", EVENT),
    )
    for path, question in questions:
        for scope in ("read", "decide"):
            assert httpx.post(url + path, json=question, headers=keys[scope]).status_code == 200, (path, scope)
    assert httpx.get(f"{url}/v1/decisions", headers=keys["read"]).json()["decisions"] == []


@pytest.mark.parametrize("query", ["", "?dry_run=false", "?dry_run=", "?dry_run=perhaps", "?dry_run=true&dry_run=false"])
@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/decisions/batch", "/v1/import"])
def test_a_key_that_may_only_read_stores_nothing(closed: tuple[str, dict[str, dict[str, str]]], path: str, query: str) -> None:
    url, keys = closed
    answer = httpx.post(url + path + query, json=EVENT, headers=keys["read"])

    assert (answer.status_code, answer.json()["detail"]) == (403, "scope `decide` is required")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    store = f"sqlite:///{tmp_path_factory.mktemp('closed')}/store.db"
    keys = {scope: created(store, scope) for scope in ("decide", "read", "admin")}
    with serving("--store", store) as url:
        yield url, keys


def test_every_route_but_the_probes_and_the_description_needs_credentials(closed: tuple[str, dict[str, dict[str, str]]]) -> None:
    url, _ = closed
    document = httpx.get(f"{url}/openapi.json").json()
    answers = {
        (method, path): httpx.request(method.upper(), url + re.sub(r"{\w+}", "x", path)).status_code
        for path, operations in document["paths"].items()
        for method in operations
    }

    assert {path for (_, path), status in answers.items() if status != 401} <= {"/", "/healthz", "/readyz", "/metrics"}
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_the_default_store_is_made_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with serving() as url:
        assert httpx.post(f"{url}/v1/decisions", json=EVENT).status_code == 201

    folder = tmp_path / "ras-triage"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "store.db").stat().st_mode & 0o077 == 0
