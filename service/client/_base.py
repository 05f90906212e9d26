"""Base class of both clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import httpx

from ras_triage.service.client._calls import Calls
from ras_triage.service.client._request import (
    DEFAULT_URL,
    LOCAL_URL,
    OnRetry,
    RequestDefaults,
    Token,
    ignore_retry,
    unix_socket,
    verify_option,
)
from ras_triage.service.client.limits import ResponseLimits, no_cookies
from ras_triage.service.client.retry import Retry

Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)
Transport = TypeVar("Transport", httpx.BaseTransport, httpx.AsyncBaseTransport)


class BaseClient(ABC, Generic[Http, Transport]):
    """Options and connections of `Client` and `AsyncClient`."""

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        token: Token | None = None,
        ca_file: Path | str | None = None,
        timeout_s: float = 30.0,
        retry: Retry | None = None,
        limits: ResponseLimits | None = None,
        headers: Mapping[str, str] | None = None,
        on_retry: OnRetry = ignore_retry,
        transport: Transport | None = None,
    ) -> None:
        """`base_url`: `http+unix:///run/ras-triage.sock` for a Unix domain socket.

        `token`: an API key or JWT, or a function that returns one, called before every request. `timeout_s`: seconds without a byte.

        `limits`: how much of a response is read (default: ResponseLimits()). Redirects are not followed, and cookies are not stored.
        `on_retry` is called before every retry, with the failure and the seconds until the retry.
        """
        path = unix_socket(base_url)
        url = base_url if path is None else LOCAL_URL
        self._http: Http = self._open_http(
            transport, path, base_url=url, verify=verify_option(ca_file), follow_redirects=False, cookies=no_cookies()
        )
        self._defaults = RequestDefaults(timeout_s, on_retry, token, headers or {})
        self._calls = Calls(retry or Retry(), limits or ResponseLimits())

    @abstractmethod
    def _open_http(self, transport: Transport | None, socket: str | None, **options: Any) -> Http:
        """Return the connections, over a Unix domain socket if its path is given, with options of httpx."""

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """Return a client with the same connections and more headers, such as `traceparent` or `X-Request-Id`."""
        other = copy(self)
        other._defaults = self._defaults.extended(headers)
        return other
