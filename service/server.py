"""Running the application under uvicorn."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import uvicorn

from service import logs
from service.app import create_app
from service.settings import Settings

GRACE_S = 10
"""Seconds that requests under way have to finish when the service is told to stop."""


def serve(settings: Settings, host: str, port: int, log_format: logs.Format = "text") -> None:
    """Answer requests until told to stop."""
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        log_config=logs.config(log_format),
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """The service in a thread of this process, on a free loopback port, for as long as the context lasts; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning"))
    thread = Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
