"""Running the application under uvicorn."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from service import logs, tracing
from service.accepting import Acceptor, bind
from service.app import create_app
from service.collecting import collect_seldom
from service.configuration import prepare_store
from service.connections import Connection, Connections, raise_descriptor_limit
from service.protocol import Protocol
from service.runtime import Runtime
from service.settings import InvalidSetting, Settings, is_loopback
from service.store.opening import open_store, sqlite_path
from service.store.port import StoreError
from service.store.sqlite import SqliteStore

GRACE_S = 10
"""Seconds that requests under way have to finish when the service is told to stop."""


def serve(settings: Settings) -> None:
    """Answer requests until told to stop. Raises InvalidSetting where it must not or cannot start."""
    prepare_store(settings)
    refuse_if_open(settings)
    try:
        store = open_store(settings.store)
    except StoreError as error:
        raise InvalidSetting(str(error)) from None
    try:
        run(create_app(settings, store), settings)
    finally:
        store.close()


def run(app: FastAPI, settings: Settings) -> None:
    """Answer an application's requests until told to stop."""
    collect_seldom()
    raise_descriptor_limit()
    traces = tracing.start(app) if settings.otel else None
    try:
        _Server(
            app, settings, _config(app, settings, log_config=logs.config(settings.log_format, settings.log_level), access_log=False)
        ).run()
    finally:
        if traces is not None:
            traces.shutdown()


class _Server(uvicorn.Server):
    """A server with an accept loop of ours, that tells streams to end when it is told to stop: they would not by themselves."""

    def __init__(self, app: FastAPI, settings: Settings, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen: on the sockets given, else on the configured address."""
        await super().startup(sockets=[])
        try:
            given = None if sockets is None else [listener.dup() for listener in sockets]
            listeners = given or await bind(self.config.host, self.config.port, self.config.backlog)
        except OSError as error:
            logging.getLogger("uvicorn.error").error(error)
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        metrics = self._app.state.metrics
        acceptor = Acceptor(
            listeners,
            Connections(self._settings, metrics),
            self._make_protocol,
            metrics,
            backlog=self.config.backlog,
            tls=self.config.ssl,
            handshake_s=self._settings.head_timeout_s,
        )
        acceptor.start()
        if given is None:
            self._log_started_message(listeners)
        self.servers = [cast("asyncio.Server", acceptor)]  # what uvicorn closes and waits for

    def _make_protocol(self, connection: Connection) -> Protocol:
        return Protocol(connection, self._settings, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        runtime: Runtime = self._app.state.runtime
        runtime.stop()
        await super().shutdown(sockets)


def _config(app: FastAPI, settings: Settings, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="h11",  # the protocol is made in `_Server`; httptools collects a header without end
        timeout_keep_alive=cast("int", settings.keep_alive_s),  # uvicorn hands it to `loop.call_later()`
        ws="none",
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=GRACE_S,
        **_tls(settings),
        **more,
    )


def refuse_if_open(settings: Settings) -> None:
    """Whoever can reach the service must be asked who they are. Raises InvalidSetting."""
    if is_loopback(settings.host) or settings.oidc is not None or settings.keys_file is not None or _has_keys(settings):
        return
    kept = "--hash-only` for a `keys_file`" if sqlite_path(settings.store) is None else f"--store {settings.store}`"
    raise InvalidSetting(
        f"other machines can reach `{settings.host}`, and there is neither an API key nor an OIDC issuer: create a key first with "
        f"`ras-triage keys create --name NAME --scope decide --scope read {kept}, or listen on 127.0.0.1"
    )


def _has_keys(settings: Settings) -> bool:
    path = sqlite_path(settings.store)
    if path is None or not path.exists():
        return False
    try:
        with closing(SqliteStore(path, exclusive=False)) as store:
            return any(key.revoked_at_ms is None for key in store.api_keys())
    except StoreError as error:
        raise InvalidSetting(str(error)) from None


def _tls(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told of TLS. Raises InvalidSetting for files that cannot be used."""
    if settings.tls_certificate is None:
        return {}
    password = settings.tls_key_password or ""  # without one, a terminal would be asked
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password)
    except (OSError, ssl.SSLError) as error:
        reason = _reason(error, "no PEM, or `tls_key_password` does not open it")
        raise InvalidSetting(f"`tls_certificate`, `tls_key`: {reason}") from None
    if settings.tls_client_ca is not None:
        try:
            context.load_verify_locations(settings.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise InvalidSetting(f"`tls_client_ca`: {_reason(error, 'no PEM')}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return {"ssl_context_factory": lambda _config, _default: context}


def _reason(error: OSError, unsaid: str) -> str:
    """What is wrong with a file; `unsaid` is what it means that OpenSSL does not say."""
    if isinstance(error, ssl.SSLError):
        return f"not what is expected there ({error.reason.lower() if error.reason else unsaid})"
    return (error.strerror or "cannot be read").lower()


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The service in a thread of this process, on a free loopback port, for as long as the context lasts; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings)
    server = _Server(app, settings, _config(app, settings, log_config=None, log_level="warning", access_log=False))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        scheme = "http" if settings.tls_certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
