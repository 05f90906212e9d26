"""Liveness and readiness probes."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from ras_triage.service.http.app import create_app
from ras_triage.service.store.port import StoreDamaged, StoreUnavailable


class Writer:
    """A writer whose probes end like this."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def probe(self) -> None:
        if self._error is not None:
            raise self._error

    def require_room(self, _entries: int, _size: int) -> None:
        """There is room."""


class Intake:
    unavailable_reason = None


class Runtime:
    def __init__(self, error: Exception | None = None) -> None:
        self.writer = Writer(error)
        self.intake = Intake()
        self.stopping = asyncio.Event()


def application(runtime: Runtime) -> FastAPI:
    app = create_app()
    app.state.runtime = runtime
    return app


def ask(app: FastAPI, path: str) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.get(path)

    return asyncio.run(run())


def test_it_is_ready_when_the_store_takes_writes() -> None:
    answer = ask(application(Runtime()), "/readyz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StoreUnavailable("database or disk is full"), "the store is not writable: database or disk is full"),
        (StoreDamaged("database disk image is malformed"), "the store is not writable: database disk image is malformed"),
        (TimeoutError(), "store timeout"),
    ],
)
def test_it_is_not_ready_when_the_store_takes_no_writes_and_says_why(error: Exception, reason: str) -> None:
    answer = ask(application(Runtime(error)), "/readyz")

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:ras-triage:problem:not-ready"
    assert answer.json()["detail"] == reason


def test_it_is_not_ready_when_it_stops() -> None:
    runtime = Runtime()
    runtime.stopping.set()

    assert ask(application(runtime), "/readyz").json()["detail"] == "the service is stopping"


def test_it_runs_whatever_the_store_does() -> None:
    answer = ask(application(Runtime(StoreUnavailable("full"))), "/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
