"""The HTTP application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from service import logs, openapi
from service.metrics import Metrics
from service.observe import Observed
from service.problems import (
    MEDIA_TYPE,
    Problem,
    Refused,
    busy,
    explain,
    http_problem,
    internal,
    invalid_parameter,
    problem_json,
    query_too_slow,
    store_unavailable,
)
from service.routes import decisions, decode, health, hosts, policies, syndromes
from service.routes import store as store_route
from service.runtime import running
from service.settings import Settings
from service.store.opening import sqlite_path
from service.store.port import QueryTooSlow, StoreError
from service.version import installed_version
from service.writer import Busy

RETRY_SOON = {"retry-after": "1"}
"""Seconds."""

DESCRIPTION = "What Linux on arm64 does with a hardware error, and why."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, ready to answer."""
    chosen = settings or Settings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(chosen) as runtime:
            app.state.runtime = runtime
            path = sqlite_path(chosen.store)
            metrics.watch(runtime.writer, runtime.store, None if path is None else path.parent)
            runtime.writer.committed.append(metrics.committed)
            runtime.writer.failed.append(metrics.store_failed)
            yield

    app = FastAPIOffline(
        title="ras-triage",
        version=installed_version(),
        description=DESCRIPTION,
        responses=openapi.PROBLEM_RESPONSE,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"logs": False},  # FastAPI's own would tell what requests held
    )
    app.state.settings = chosen
    app.state.metrics = metrics
    for noun in (decisions, hosts, decode, syndromes, policies, store_route, health):
        app.include_router(noun.router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _refused_by_router)
    app.add_exception_handler(RequestValidationError, _refused_by_parameters)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(StoreError, _store_failed)
    app.add_exception_handler(Exception, _failed)
    app.add_middleware(Observed, metrics=metrics)
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    return app


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    logs.bind(problem=problem.type)
    return Response(problem_json(problem), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error.problem)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: f"there is nothing at `{request.url.path}`", 405: f"`{request.method}` is not possible here"}.get(error.status_code)
    return _answer(http_problem(error.status_code, detail or str(error.detail)), dict(error.headers or {}))


async def _refused_by_parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _answer(invalid_parameter(str(first["loc"][-1]), explain(first, first["input"])))


async def _busy(_: Request, error: Exception) -> Response:
    return _answer(busy(str(error)), RETRY_SOON)


async def _store_failed(_: Request, error: Exception) -> Response:
    return _answer(query_too_slow() if isinstance(error, QueryTooSlow) else store_unavailable(), RETRY_SOON)


async def _failed(_: Request, _error: Exception) -> Response:
    return _answer(internal())
