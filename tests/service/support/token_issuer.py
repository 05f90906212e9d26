"""Token issuer: an HTTP server on loopback with discovery and keys."""

from __future__ import annotations

import base64
import json
import time
from contextlib import suppress
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from ras_triage.service.config.settings import Oidc

AUDIENCE = "ras-triage"

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"


@lru_cache
def _rsa(_number: int) -> RSAPrivateKey:
    """A key for each number; making one takes longer than most tests."""
    return rsa.generate_private_key(65537, 2048)


class Issuer:
    """Answers on a port of its own until `close`."""

    def __init__(self, number: int = 0) -> None:
        """Issuers of different numbers have different keys."""
        self.rsa = _rsa(number)
        self.ec: EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
        self.shown: list[dict[str, Any]] = [self.public("rsa-1"), self.public("ec-1")]
        self.asked: list[tuple[str, str | None]] = []
        self.fails = False
        self.drip_s: float | None = None
        """Seconds between two bytes of an answer, its head among them."""
        self.padding = 0
        """Bytes of white space before a document."""
        self.let = Event()
        """Answers wait for it."""
        self.let.set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.discovery: Any = {"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"}
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def public(self, kid: str) -> dict[str, Any]:
        """A key as the issuer shows it."""
        if kid.startswith("rsa"):
            return {**RSAAlgorithm.to_jwk(self.rsa.public_key(), as_dict=True), "kid": kid, "use": "sig"}
        return {**ECAlgorithm.to_jwk(self.ec.public_key(), as_dict=True), "kid": kid, "use": "sig"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append((self.path, self.headers.get("traceparent")))
                content = {DISCOVERY: issuer.discovery, KEYS: {"keys": issuer.shown}}.get(self.path)
                issuer.let.wait(60)
                status = b"500 Failed" if issuer.fails or content is None else b"200 OK"
                document = b" " * issuer.padding + json.dumps(content).encode()
                with suppress(OSError):  # who asked may have given up
                    self._send(b"HTTP/1.0 %s\r\nContent-Type: application/json\r\n\r\n%s" % (status, document))

            def _send(self, answer: bytes) -> None:
                if issuer.drip_s is None:
                    self.wfile.write(answer)
                    return
                for byte in answer:
                    self.wfile.write(bytes([byte]))
                    time.sleep(issuer.drip_s)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        return Handler

    def oidc(self, **changes: Any) -> Oidc:
        """Settings that trust this issuer."""
        return Oidc(**{"issuer": self.url, "audience": AUDIENCE, **changes})

    def token(self, kid: str = "rsa-1", algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        """A token; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "fleet", "exp": now + 300, "iat": now, "scope": "decide read"}
        body = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(body, key or (self.rsa if kid.startswith("rsa") else self.ec), algorithm=algorithm, headers={"kid": kid})

    def close(self) -> None:
        self.let.set()
        self.server.shutdown()
        self.server.server_close()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """A token that no library would make."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
