"""Tokens of an OpenID Connect issuer."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ras_triage.service.config.settings import Settings
from ras_triage.service.security import issuer_keys
from tests.service.support.secured_application import SecuredApplication, kind
from tests.service.support.token_issuer import AUDIENCE, DISCOVERY, KEYS, Issuer, forged

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.close()


@pytest.fixture
def secured(issuer: Issuer) -> SecuredApplication:
    return SecuredApplication(Settings(oidc=issuer.oidc()))


def ask(secured: SecuredApplication, token: str | None, **arguments: Any) -> httpx.Response:
    return secured.request("GET", "/v1/policies", token, **arguments)


@pytest.mark.parametrize(("kid", "algorithm"), [("rsa-1", "RS256"), ("ec-1", "ES256")])
def test_a_token_of_the_issuer_is_accepted(issuer: Issuer, secured: SecuredApplication, kid: str, algorithm: str) -> None:
    assert ask(secured, issuer.token(kid, algorithm)).status_code == 200
    assert [path for path, _ in issuer.asked] == [DISCOVERY, KEYS]


def test_a_request_without_a_token_is_401(secured: SecuredApplication) -> None:
    assert kind(ask(secured, None)) == (401, "unauthenticated")


def test_keys_may_be_where_the_settings_say(issuer: Issuer) -> None:
    secured = SecuredApplication(Settings(oidc=issuer.oidc(jwks_url=f"{issuer.url}{KEYS}")))

    assert ask(secured, issuer.token()).status_code == 200
    assert [path for path, _ in issuer.asked] == [KEYS]


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": int(time.time()) - 120}, "expired"),
        ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
        ({"aud": "other"}, "another audience"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"exp": None}, "lacks a claim"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": None}, "lacks a claim"),
        ({"sub": None}, "lacks a claim"),
        ({"sub": 7}, "`sub` is not valid text"),
        ({"sub": "\ud800"}, "`sub` is not valid text"),
    ],
)
def test_a_claim_that_does_not_hold_is_named(issuer: Issuer, secured: SecuredApplication, claims: dict[str, Any], reason: str) -> None:
    answer = ask(secured, issuer.token(**claims))

    assert kind(answer) == (401, "unauthenticated")
    assert reason in answer.json()["detail"]
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_clocks_may_differ_by_a_minute(issuer: Issuer, secured: SecuredApplication) -> None:
    now = int(time.time())

    assert ask(secured, issuer.token(exp=now - 50)).status_code == 200
    assert ask(secured, issuer.token(nbf=now + 50)).status_code == 200
    assert ask(secured, issuer.token(aud=["other", AUDIENCE])).status_code == 200


def unsigned(issuer: Issuer) -> str:
    return jwt.encode(jwt.decode(issuer.token(), options={"verify_signature": False}), None, algorithm="none")


def signed_with_the_public_key(issuer: Issuer) -> str:
    """What a library takes that lets the token choose between public keys and shared secrets."""
    public = issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    token = forged({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, claims).rpartition(".")[0]
    signature = hmac.new(public, token.encode(), sha256).digest()
    return f"{token}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def signed_by_another(issuer: Issuer) -> str:
    return issuer.token(key=rsa.generate_private_key(65537, 2048))


def with_a_key_of_another_kind(issuer: Issuer) -> str:
    return issuer.token("ec-1", "RS256", issuer.rsa)


def with_an_algorithm_that_is_not_on_the_list(issuer: Issuer) -> str:
    return issuer.token("rsa-1", "RS512")


def changed(issuer: Issuer) -> str:
    head, body, signature = issuer.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    altered = base64.urlsafe_b64encode(json.dumps({**claims, "scope": "admin"}).encode()).rstrip(b"=").decode()
    return f"{head}.{altered}.{signature}"


def nested(_: Issuer) -> str:
    header = base64.urlsafe_b64encode(b"[" * 10_000).decode()
    return f"{header}.e30.e30"


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        signed_with_the_public_key,
        signed_by_another,
        with_a_key_of_another_kind,
        with_an_algorithm_that_is_not_on_the_list,
        changed,
        nested,
        lambda issuer: issuer.token("rsa-9"),
        lambda _: forged({"alg": ["RS256"]}, {}),
        lambda _: forged({"alg": "RS256", "kid": {}}, {}),
        lambda _: forged({"alg": "RS256"}, {}),
        lambda _: "a.b.c",
        lambda _: "....",
        lambda _: "nonsense",
    ],
)
def test_a_token_that_the_issuer_did_not_sign_is_refused(
    issuer: Issuer, secured: SecuredApplication, make: Callable[[Issuer], str]
) -> None:
    token = make(issuer)
    answer = ask(secured, token)

    assert kind(answer) == (401, "unauthenticated")
    assert token not in answer.text


def test_keys_that_are_not_the_issuers_are_not_looked_for_where_the_token_says(issuer: Issuer, secured: SecuredApplication) -> None:
    other = Issuer(1)
    try:
        token = jwt.encode(
            jwt.decode(issuer.token(), options={"verify_signature": False}),
            other.rsa,
            algorithm="RS256",
            headers={"kid": "other", "jku": f"{other.url}{KEYS}", "jwk": other.public("rsa-1")},
        )
        assert kind(ask(secured, token)) == (401, "unauthenticated")
        assert other.asked == []
    finally:
        other.close()


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"scope": "decide read"}, 200),
        ({"scope": ["read"]}, 200),
        ({"scope": "admin"}, 200),
        ({"scope": "openid profile"}, 403),
        ({"scope": "reader"}, 403),
        ({"scope": None}, 403),
        ({"scope": {"read": True}}, 403),
        ({"scope": [["read"], 1]}, 403),
    ],
)
def test_what_a_token_may_do_is_in_its_scope(issuer: Issuer, secured: SecuredApplication, claims: dict[str, Any], status: int) -> None:
    assert ask(secured, issuer.token(**claims)).status_code == status


def test_the_claim_may_have_another_name(issuer: Issuer) -> None:
    secured = SecuredApplication(Settings(oidc=issuer.oidc(scope_claim="roles")))

    assert ask(secured, issuer.token(scope=None, roles=["read"])).status_code == 200
    assert kind(ask(secured, issuer.token())) == (403, "forbidden")


def test_keys_and_tokens_are_accepted_side_by_side(issuer: Issuer, secured: SecuredApplication) -> None:
    assert ask(secured, secured.key("read")).status_code == 200
    assert ask(secured, issuer.token()).status_code == 200


def test_the_issuer_is_asked_once_however_many_tokens_come_with_keys_that_do_not_exist(issuer: Issuer, secured: SecuredApplication) -> None:
    for number in range(20):
        assert ask(secured, issuer.token(f"rsa-{number + 2}")).status_code == 401

    assert [path for path, _ in issuer.asked] == [DISCOVERY, KEYS]


def test_a_new_key_is_found(issuer: Issuer, secured: SecuredApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask(secured, issuer.token()).status_code == 200
    issuer.shown.append(issuer.public("rsa-2"))
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)

    assert ask(secured, issuer.token("rsa-2")).status_code == 200


def test_an_unavailable_issuer_is_503_and_is_not_asked_again_at_once(issuer: Issuer, secured: SecuredApplication) -> None:
    issuer.fails = True
    answers = [ask(secured, issuer.token()) for _ in range(5)]

    assert {kind(answer) for answer in answers} == {(503, "issuer-unavailable")}
    assert answers[0].headers["retry-after"] == "30"
    assert [path for path, _ in issuer.asked] == [DISCOVERY]


def test_an_issuer_that_comes_back_is_asked_again(issuer: Issuer, secured: SecuredApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    issuer.fails = True
    assert ask(secured, issuer.token()).status_code == 503
    issuer.fails = False
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)

    assert ask(secured, issuer.token()).status_code == 200


def test_keys_that_were_read_hold_while_the_issuer_fails_but_not_for_ever(
    issuer: Issuer, secured: SecuredApplication, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(secured, issuer.token()).status_code == 200
    issuer.fails = True
    monkeypatch.setattr(issuer_keys, "COOLDOWN_S", 0.0)
    assert ask(secured, issuer.token("rsa-9")).status_code == 401
    assert ask(secured, issuer.token()).status_code == 200

    monkeypatch.setattr(issuer_keys, "STALE_S", 0.0)
    assert ask(secured, issuer.token("rsa-9")).status_code == 503


@pytest.mark.parametrize(
    "change",
    [{"issuer": "https://evil.example"}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": None}, {"jwks_uri": "ftp://x/y"}],
)
def test_an_untrustworthy_discovery_document_allows_nothing(issuer: Issuer, secured: SecuredApplication, change: dict[str, Any]) -> None:
    issuer.discovery = {**issuer.discovery, **change}

    assert kind(ask(secured, issuer.token())) == (503, "issuer-unavailable")


@pytest.mark.parametrize("document", [[], "x", None])
def test_a_malformed_discovery_document_allows_nothing(issuer: Issuer, secured: SecuredApplication, document: Any) -> None:
    issuer.discovery = document

    assert kind(ask(secured, issuer.token())) == (503, "issuer-unavailable")


@pytest.mark.parametrize(("sent", "passed"), [(TRACE, TRACE), ("nonsense", None), (None, None)])
def test_the_trace_goes_on_to_the_issuer(issuer: Issuer, secured: SecuredApplication, sent: str | None, passed: str | None) -> None:
    ask(secured, issuer.token(), headers={} if sent is None else {"traceparent": sent})

    assert issuer.asked == [(DISCOVERY, passed), (KEYS, passed)]


def test_each_subject_has_a_rate_of_its_own(issuer: Issuer) -> None:
    secured = SecuredApplication(Settings(oidc=issuer.oidc(), rate_limit=1))

    assert [ask(secured, issuer.token(sub="a")).status_code for _ in range(2)] == [200, 429]
    assert ask(secured, issuer.token(sub="b")).status_code == 200


def test_a_service_without_an_issuer_says_that_it_takes_no_tokens(issuer: Issuer) -> None:
    secured = SecuredApplication()
    secured.key("read")
    answer = ask(secured, issuer.token())

    assert kind(answer) == (401, "unauthenticated")
    assert "no token issuer" in answer.json()["detail"]
