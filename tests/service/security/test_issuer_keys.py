"""Token issuers that are slow, large or unavailable."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from ras_triage.service.security import issuer_keys
from ras_triage.service.security.issuer_keys import IssuerUnavailable, _keys
from tests.service.support.secured_application import kind
from tests.service.support.token_issuer import DISCOVERY, KEYS, Issuer

DRIP_S = 0.05
"""A document takes half a minute and more at this pace."""


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.drip_s = None
    issuer.close()


@pytest.fixture
def url(issuer: Issuer) -> Iterator[str]:
    with running(Settings(oidc=issuer.oidc())) as url:
        yield url


def ask(url: str, token: str) -> httpx.Response:
    return httpx.get(f"{url}/v1/policies", headers={"authorization": f"Bearer {token}"}, timeout=20)


def soon(url: str, token: str, status: int) -> httpx.Response:
    """The answer once it has this status."""
    deadline = time.monotonic() + 15
    while (answer := ask(url, token)).status_code != status:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.05)
    return answer


def test_a_token_whose_key_is_known_does_not_wait_for_an_issuer_that_does_not_answer(
    issuer: Issuer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(url, issuer.token()).status_code == 200
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)
    monkeypatch.setattr(issuer_keys, "LIFESPAN_S", 0.0)
    issuer.let.clear()
    before = len(issuer.asked)

    assert [ask(url, issuer.token()).status_code for _ in range(5)] == [200] * 5
    assert [path for path, _ in issuer.asked[before:]] == [DISCOVERY], "one read is under way, and nobody waited for it"


def test_an_answer_of_a_byte_at_a_time_is_given_up_after_a_while(
    issuer: Issuer, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(issuer_keys, "FETCH_S", 0.5)
    issuer.drip_s = DRIP_S
    begun = time.monotonic()
    answer = ask(url, issuer.token())

    assert kind(answer) == (503, "issuer-unavailable")
    assert 0 < int(answer.headers["retry-after"]) <= 30
    assert time.monotonic() - begun < 10
    assert "no complete response within 0.5 s" in caplog.text


def test_however_many_unknown_keys_are_named_at_once_the_issuer_is_asked_once(
    issuer: Issuer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(url, issuer.token()).status_code == 200
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)
    issuer.let.clear()
    before = len(issuer.asked)

    async def crowd() -> list[int]:
        async with httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=60)) as client:

            async def request(number: int) -> int:
                headers = {"authorization": f"Bearer {issuer.token(f'ec-{number + 2}', 'ES256')}"}
                return (await client.get(f"{url}/v1/policies", headers=headers)).status_code

            requests = [asyncio.create_task(request(number)) for number in range(40)]
            while len(issuer.asked) == before:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 30.0)
            issuer.let.set()
            return await asyncio.gather(*requests)

    assert asyncio.run(crowd()) == [401] * 40
    assert ask(url, issuer.token("rsa-9")).status_code == 401
    assert [path for path, _ in issuer.asked[before:]] == [DISCOVERY, KEYS]


def test_a_document_that_is_too_long_is_not_read_to_its_end(issuer: Issuer, url: str, caplog: pytest.LogCaptureFixture) -> None:
    issuer.padding = issuer_keys.MAX_BYTES + 1

    assert kind(ask(url, issuer.token())) == (503, "issuer-unavailable")
    assert f"longer than {issuer_keys.MAX_BYTES} bytes" in caplog.text


def test_a_key_that_the_issuer_withdrew_is_forgotten_although_no_token_came_meanwhile(
    issuer: Issuer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)
    monkeypatch.setattr(issuer_keys, "LIFESPAN_S", 0.2)
    assert ask(url, issuer.token()).status_code == 200
    issuer.shown = [issuer.public("ec-1")]
    before = len(issuer.asked)
    deadline = time.monotonic() + 15
    while len(issuer.asked) < before + 3:  # the second read began, so the first has ended
        assert time.monotonic() < deadline
        time.sleep(0.02)

    assert ask(url, issuer.token()).status_code == 401
    assert ask(url, issuer.token("ec-1", "ES256")).status_code == 200


def test_an_issuer_that_comes_back_is_found_without_a_token_that_asks_for_it(
    issuer: Issuer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.3)
    issuer.fails = True
    assert ask(url, issuer.token()).status_code == 503
    issuer.fails = False

    soon(url, issuer.token(), 200)


def test_a_token_that_names_no_key_asks_for_nothing(issuer: Issuer, url: str) -> None:
    assert ask(url, issuer.token("", "ES256")).status_code == 401
    assert issuer.asked == []


ISSUER_KEYS = Issuer()
GOOD = ISSUER_KEYS.public("ec-1")
ISSUER_KEYS.close()
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=9)
    | st.just([])
    | st.just({})
    | st.sampled_from(("RSA", "EC", "AQAB", "d"))
)
entries = st.dictionaries(st.sampled_from((*GOOD, "alg", "n", "e", "d", "k", "use")), JUNK).map(
    lambda changes: {**GOOD, "kid": "x", **changes}
)


@given(before=st.lists(JUNK | entries, max_size=4), behind=st.lists(JUNK | entries, max_size=4))
def test_a_key_that_is_malformed_does_not_hide_another(before: list[Any], behind: list[Any]) -> None:
    found = _keys(json.dumps({"keys": [*before, {**GOOD, "kid": "good"}, *behind]}).encode())

    assert found["good"].key_id == "good"
    assert set(found) <= {"good"} | {
        entry["kid"] for entry in (*before, *behind) if isinstance(entry, dict) and isinstance(entry.get("kid"), str)
    }


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b'{"keys": [{}]}', b"[" * 100_000, b"\xff"])
def test_a_document_without_a_key_is_no_key_set(document: bytes) -> None:
    with pytest.raises(IssuerUnavailable):
        _keys(document)
