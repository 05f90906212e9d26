"""Headers, timeouts and TLS options of all requests of a client."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

import httpx

from ras_triage.service.api.content_encoding import ENCODINGS
from ras_triage.service.api.version import installed_version
from ras_triage.service.client._protocol import ClientRequest
from ras_triage.service.client.errors import ClientError

DEFAULT_URL = "http://127.0.0.1:8080"

UNIX_SCHEME = "http+unix://"

LOCAL_URL = "http://localhost"
"""What a service is called over a Unix domain socket."""

CONNECT_S = 5.0
"""Longest connect timeout, even if the timeout of the client is longer."""

Token = str | Callable[[], str]
"""An API key or JWT, or a function that returns the current one."""

_TOKEN = re.compile(r"[\x21-\x7e]+")

OnRetry = Callable[[ClientError, float], None]
"""Called before a retry with the failure and the seconds until the retry."""


def ignore_retry(_failure: ClientError, _seconds: float) -> None:
    """Do nothing."""


def bearer(token: str) -> str:
    """Return the `Authorization` header for a token. Raises ValueError, which does not quote the token, as that of httpx would."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("invalid token; expected printable ASCII without spaces and line ends")
    return f"Bearer {token}"


@dataclass(frozen=True, slots=True)
class RequestDefaults:
    """What all requests of a client have in common."""

    timeout_s: float
    on_retry: OnRetry
    token: Token | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def extended(self, headers: Mapping[str, str]) -> RequestDefaults:
        """Return a copy with more headers."""
        return replace(self, headers={**self.headers, **headers})

    def build_request(self, http: httpx.Client | httpx.AsyncClient, request: ClientRequest) -> httpx.Request:
        """Return a request with the defaults."""
        return http.build_request(
            request.method,
            request.path,
            params=request.params,
            headers=self.headers_of(request),
            content=request.content,
            timeout=self.timeout_of(request),
        )

    def headers_of(self, request: ClientRequest) -> httpx.Headers:
        """Return the headers of a request; those of the caller take precedence over the active trace context."""
        headers = httpx.Headers({"user-agent": f"ras-triage/{installed_version()}", "accept-encoding": ENCODINGS, **_trace_context()})
        if self.token is not None:
            headers["authorization"] = bearer(self.token if isinstance(self.token, str) else self.token())
        headers.update(self.headers)
        headers.update(request.headers)
        return headers

    def timeout_of(self, request: ClientRequest) -> httpx.Timeout:
        """Return the timeouts of a request."""
        read_s = self.timeout_s if request.read_timeout_s is None else request.read_timeout_s
        return httpx.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s), read=read_s)


def _trace_context() -> dict[str, str]:
    """Return `traceparent` and `tracestate` of the active OpenTelemetry context, if any."""
    try:
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - optional dependency
            TraceContextTextMapPropagator,
        )
    except ImportError:
        return {}
    headers: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(headers)
    return headers


def unix_socket(url: str) -> str | None:
    """Return the path of the Unix domain socket of a URL, in which slashes may be escaped; None for a URL of another scheme."""
    return unquote(url.removeprefix(UNIX_SCHEME)).rstrip("/") if url.startswith(UNIX_SCHEME) else None


def verify_option(ca_file: Path | str | None) -> ssl.SSLContext | bool:
    """Return the `verify` option of httpx: the CA certificates of a file, or those of the system."""
    return True if ca_file is None else ssl.create_default_context(cafile=ca_file)
