"""Test application, command line runner and example event."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import httpx
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from ras_triage.models.records.block_fields import encode_structured
from ras_triage.service.config.settings import Settings
from ras_triage.service.http.app import create_app
from tests.paths import ROOT
from tests.service.support.forked import ForkedCommand

Call = Callable[..., httpx.Response]

PAGE = {
    "physical_address": "0x56edd000",
    "state": "anonymous",
    "dirty": True,
    "poisoned": False,
    "mappings": [{"pid": 103, "address": "0xffff897d5000"}],
}

BLOCK = encode_structured({"severity": "recoverable", "sections": [{"type": "memory", "physical_address": "0x56edd040"}]})

EVENT: dict[str, Any] = {
    "source": "node-17",
    "notification": {"type": "sea", "taken_from": "user"},
    "status_block": base64.b64encode(BLOCK).decode(),
    "host": {"kernel": "6.12.107", "current": {"pid": 103, "tid": 103}, "tasks": [{"pid": 103}], "pages": [PAGE], "recent": []},
}
"""Says itself which pages are poisoned and which records were handled before: it is decided alike however often it is sent."""

NDJSON: Final = {"content-type": "application/x-ndjson"}

NOTHING_TO_QUEUE: dict[str, Any] = {**EVENT, "status_block": {"severity": "recoverable", "sections": [{"type": "memory"}]}}
"""An abort whose record names no address: kernels differ in whether the thread survives it."""


def ndjson(events: Iterable[object]) -> bytes:
    """Return one line of JSON for each event."""
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def caller(settings: Settings | None = None) -> Call:
    """Call an application in this process that is started for the call and stopped after it: nothing is kept between two calls."""
    app = create_app(settings)

    def call(method: str, path: str, **arguments: Any) -> httpx.Response:
        with client(app) as calling:
            return calling(method, path, **arguments)

    return call


@contextmanager
def client(app: FastAPI) -> Iterator[Call]:
    """Call an application that runs in this process for as long as the context lasts."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(_calling(app)) as calling:

        def call(method: str, path: str, **arguments: Any) -> httpx.Response:
            return portal.call(partial(calling.request, method, path, **arguments))

        yield call


@asynccontextmanager
async def _calling(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as calling:
        yield calling


def run(*arguments: str, given: bytes = b"", program: str | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run `ras-triage`, or a program in its place, as its own process, without a terminal.

    The command is forked from a process that has imported it, unless the start of the interpreter matters: with settings of Python.
    """
    variables = {**os.environ, **environment}
    if program is None and not any(name.startswith("PYTHON") for name in environment):
        process = ForkedCommand(arguments, variables)
        out, err = process.communicate(given, timeout=60)
        return subprocess.CompletedProcess(arguments, process.wait(), out, err)
    started = [sys.executable, *(("-m", "ras_triage.service.cli.main") if program is None else (program,)), *arguments]
    return subprocess.run(started, input=given, capture_output=True, cwd=ROOT, env=variables, timeout=60, check=False)
