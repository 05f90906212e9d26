"""What every request of a client carries."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from ras_triage.service.api.content_encoding import ENCODINGS
from ras_triage.service.api.version import installed_version
from ras_triage.service.client._protocol import ClientRequest
from ras_triage.service.client.errors import ClientError

DEFAULT_URL = "http://127.0.0.1:8080"

CONNECT_S = 5.0
"""Longest wait for a connection, where the client's timeout is longer."""

Token = str | Callable[[], str]
"""An API key or JWT, or what gives the one to use now."""

_TOKEN = re.compile(r"[\x21-\x7e]+")

OnRetry = Callable[[ClientError, float], None]
"""Is told why, and after how many seconds."""


def ignore_retry(_failure: ClientError, _seconds: float) -> None:
    """Nobody is told."""


def bearer(token: str) -> str:
    """A token as a header has it. Raises ValueError, which does not quote it, as the wire's own complaint would."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token is empty, or has characters that no token has: spaces, line ends, letters beyond ASCII")
    return f"Bearer {token}"


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """Headers and timeouts, and who is told of trouble."""

    timeout_s: float
    on_retry: OnRetry
    token: Token | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def extended(self, headers: Mapping[str, str]) -> RequestDefaults:
        """With these headers on top."""
        return replace(self, headers={**self.headers, **headers})

    def headers_of(self, request: ClientRequest) -> httpx.Headers:
        """Who asks, as part of which trace, and what; what the caller says outranks the surroundings."""
        headers = httpx.Headers({"user-agent": f"ras-triage/{installed_version()}", "accept-encoding": ENCODINGS, **_trace_context()})
        if self.token is not None:
            headers["authorization"] = bearer(self.token if isinstance(self.token, str) else self.token())
        headers.update(self.headers)
        headers.update(request.headers)
        return headers

    def timeout_of(self, request: ClientRequest) -> httpx.Timeout:
        """Seconds to connect, and without a byte."""
        silence_s = self.timeout_s if request.silence_s is None else request.silence_s
        return httpx.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s), read=silence_s)


def _trace_context() -> dict[str, str]:
    """`traceparent` and `tracestate` of the OpenTelemetry context that is active, where there is one."""
    try:
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - an extra, that need not be there
            TraceContextTextMapPropagator,
        )
    except ImportError:
        return {}
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def tls(ca_file: Path | str | None) -> ssl.SSLContext | bool:
    """How the service's certificate is checked: against this file's authorities, or against those that the machine trusts."""
    return True if ca_file is None else ssl.create_default_context(cafile=ca_file)
