"""Lifecycle of the application under uvicorn."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from threading import Thread
from time import monotonic
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE

from ras_triage.service.config.files import prepare_store
from ras_triage.service.config.gc import raise_gc_thresholds
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.config.store_address import sqlite_path
from ras_triage.service.http.app import create_app
from ras_triage.service.http.middleware.shutdown import Shutdown
from ras_triage.service.http.runtime import Runtime
from ras_triage.service.http.server.accept_loop import Acceptor, open_listeners
from ras_triage.service.http.server.connections import Connection, Connections, raise_descriptor_limit
from ras_triage.service.http.server.protocol import HttpProtocol
from ras_triage.service.http.server.reload import Reload
from ras_triage.service.http.server.tls import ReloadableContext, reloadable_context
from ras_triage.service.http.server.unix_socket import UnixListener
from ras_triage.service.store.opening import open_store
from ras_triage.service.store.port import Store, StoreError
from ras_triage.service.store.sqlite import SqliteStore
from ras_triage.service.telemetry import allocator, logs, tracing

GRACE_S = 10
"""Seconds that requests in progress have to finish when the service stops."""

INTERRUPT_S = 2
"""Seconds that interrupted requests have to end their responses."""

_POLL_S = 0.05

LINGER_S = 0.5
"""Seconds for which input is discarded before connections are closed: closing with unread data loses the response."""


def serve(settings: Settings, reload: Reload | None = None) -> None:
    """Serve until a signal stops the service. Raises InvalidSetting if it must not or cannot start."""
    prepare_store(settings)
    require_authentication(settings)
    try:
        store = open_store(settings.store)
    except StoreError as error:
        raise InvalidSetting(str(error)) from None
    try:
        run_server(create_app(settings, store), settings, reload)
    finally:
        store.close()


def run_server(app: FastAPI, settings: Settings, reload: Reload | None = None) -> None:
    """Serve an application until a signal stops it; `reload` reloads its settings on request."""
    raise_gc_thresholds()
    allocator.limit()
    logs.omit_unused_fields()
    raise_descriptor_limit()
    traces = tracing.start(app) if settings.otel else None
    try:
        log_config = logs.config(settings.log_format, settings.log_level)
        tls = reloadable_context(settings)
        _Server(app, settings, _config(app, settings, tls, log_config=log_config, access_log=False), reload, tls).run()
    finally:
        if traces is not None:
            traces.shutdown()


class _Server(uvicorn.Server):
    """Server of uvicorn with its own accept loop, reload of settings, and responses to requests that the shutdown interrupts."""

    def __init__(
        self, app: FastAPI, settings: Settings, config: uvicorn.Config, reload: Reload | None = None, tls: ReloadableContext | None = None
    ) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._reload = reload
        self._tls = tls
        self._unix: UnixListener | None = None

    async def on_tick(self, counter: int) -> bool:
        """Run periodic work, ten times a second. Return whether to stop."""
        if self._reload is not None:
            if self._reload.lost_terminal:
                return True
            self._reload.start_if_requested(self._app, self._tls)
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then listen on `sockets`, else on the configured address."""
        await super().startup(sockets=[])
        try:
            inherited = None if sockets is None else [listener.dup() for listener in sockets]
            listeners = inherited or await self._open_listeners()
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
        if inherited is None:
            self._log_started_message(listeners)
        self.servers = [cast("asyncio.Server", acceptor)]  # uvicorn closes it and waits for it

    async def _open_listeners(self) -> list[socket.socket]:
        """Return sockets that listen where the settings say. Raises OSError."""
        if self._settings.uds is None:
            return await open_listeners(self.config.host, self.config.port, self.config.backlog)
        self._unix = UnixListener(self._settings.uds, int(self._settings.uds_mode, 8))
        return [self._unix.socket]

    def _make_protocol(self, connection: Connection) -> HttpProtocol:
        return HttpProtocol(connection, self._settings, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for requests in progress, interrupt them after `GRACE_S`, then close all connections."""
        runtime: Runtime = self._app.state.runtime
        state: Shutdown = self._app.state.shutdown
        state.begun = True
        runtime.stop()
        for server in self.servers:
            server.close()
        if self._unix is not None:
            self._unix.remove()
        logs.log(logging.INFO, "stopping", requests=len(self.server_state.tasks))
        begun = monotonic()
        if not await self._idle(GRACE_S):
            state.over = True
            logs.log(logging.WARNING, "requests interrupted", requests=len(self.server_state.tasks), seconds=GRACE_S)
            for task in self.server_state.tasks:
                task.cancel()
            await self._idle(INTERRUPT_S)
            await asyncio.sleep(LINGER_S)
        self.config.timeout_graceful_shutdown = max(INTERRUPT_S, round(GRACE_S - (monotonic() - begun)))
        await super().shutdown(sockets)

    async def _idle(self, seconds: float) -> bool:
        """Wait until no request is in progress, for at most `seconds`. Return whether none is. Input that has arrived is read first."""
        end = monotonic() + seconds
        while True:
            await asyncio.sleep(_POLL_S)
            if not self.server_state.tasks or self.force_exit or monotonic() >= end:
                return not self.server_state.tasks


def _config(app: FastAPI, settings: Settings, tls: ReloadableContext | None, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        uds=None if settings.uds is None else str(settings.uds),
        http="httptools",  # `_Server` makes the protocol
        timeout_keep_alive=cast("int", settings.keep_alive_s),  # uvicorn passes it to `loop.call_later()`
        ws="none",
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        **more,
    )


def require_authentication(settings: Settings) -> None:
    """Raise InvalidSetting if other machines can reach the service without authentication."""
    if settings.is_local or settings.oidc is not None or settings.keys_file is not None or _has_keys(settings):
        return
    option = "--hash-only` for a `keys_file`" if sqlite_path(settings.store) is None else f"--store {settings.store}`"
    raise InvalidSetting(
        f"`{settings.host}` is reachable from other machines, but there is neither an API key nor an OIDC issuer: create a key with "
        f"`ras-triage keys create --name NAME --scope decide --scope read {option}, or listen on 127.0.0.1"
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


@contextmanager
def running(settings: Settings, store: Store | None = None, reload: Reload | None = None) -> Iterator[str]:
    """Run the service in a thread on a free loopback port for the duration of the context. Yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(settings, store)
    tls = reloadable_context(settings)
    config = _config(app, settings, tls, log_config=None, log_level="warning", access_log=False)
    server = _Server(app, settings, config, reload, tls)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        scheme = "http" if settings.tls_certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
