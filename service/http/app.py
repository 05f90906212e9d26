"""ASGI application: routes, middleware and exception handlers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ras_triage.service.api.problems import (
    MEDIA_TYPE,
    RETRY_S,
    RETRYABLE,
    Problem,
    ProblemError,
    busy,
    explain_validation_error,
    http_problem,
    internal,
    invalid_parameter,
    problem_json,
    suggest_value,
    truncate_text,
)
from ras_triage.service.api.times import now_ms
from ras_triage.service.api.version import installed_version
from ras_triage.service.config.settings import Settings
from ras_triage.service.config.store_address import sqlite_path
from ras_triage.service.engine.problems import store_failed
from ras_triage.service.http.limits.concurrency import ConcurrencyLimits
from ras_triage.service.http.middleware.access_log import AccessLogMiddleware
from ras_triage.service.http.middleware.compression import CompressionMiddleware
from ras_triage.service.http.middleware.cors import AllowedOrigins, CorsHeadersMiddleware, PreflightMiddleware
from ras_triage.service.http.middleware.equivalents import HeadMiddleware, TrailingSlashMiddleware
from ras_triage.service.http.middleware.limits import LimitsMiddleware
from ras_triage.service.http.middleware.security_headers import SecurityHeadersMiddleware, security_headers
from ras_triage.service.http.middleware.shutdown import Shutdown, ShutdownMiddleware
from ras_triage.service.http.openapi import PROBLEM_RESPONSE
from ras_triage.service.http.routes import (
    decisions,
    decode,
    health,
    hosts,
    imports,
    index,
    page,
    poisoned_pages,
    policies,
    replays,
    stream_tickets,
    syndromes,
)
from ras_triage.service.http.routes import metrics as metrics_route
from ras_triage.service.http.routes import store as store_route
from ras_triage.service.http.runtime import Runtime, open_runtime
from ras_triage.service.security.guard import Security, require_request_scope
from ras_triage.service.store.opening import open_store
from ras_triage.service.store.port import ApiKey, Store, StoreError
from ras_triage.service.store.writer import WriteQueueFull
from ras_triage.service.telemetry import logs
from ras_triage.service.telemetry.metrics import Metrics

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

_GUARDED = (stream_tickets, decisions, imports, hosts, poisoned_pages, decode, syndromes, policies, replays, store_route)
_UNGUARDED = (index, page, health, metrics_route)

DESCRIPTION = "Predicts what Linux on arm64 does with a hardware error, and why."


def create_app(settings: Settings | None = None, store: Store | None = None, clock_ms: Callable[[], int] = now_ms) -> FastAPI:
    """Return the application. It uses `store`, else the store that the settings name, and closes it at its shutdown.

    `clock_ms` returns milliseconds since 1970.
    """
    chosen = settings or Settings()
    metrics = Metrics()

    def store_failure(error: Exception) -> None:
        metrics.count_store_failure(error)
        logs.log(logging.ERROR, "store failed", **logs.explain(error))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_runtime(chosen, store or open_store(chosen.store), clock_ms) as runtime:
            app.state.runtime = runtime
            path = sqlite_path(chosen.store)
            metrics.set_store_source(runtime.writer, runtime.store, None if path is None else path.parent)
            metrics.set_stream_source(lambda: runtime.streams.statistics)
            metrics.set_memory_source(lambda: runtime.memory.returned_bytes)
            runtime.memory.is_busy = lambda: metrics.in_progress > runtime.streams.statistics[0]
            runtime.writer.committed.append(metrics.observe_commit)
            runtime.writer.failed.append(store_failure)
            runtime.unread.append(store_failure)
            runtime.intake.lookup_failed.append(store_failure)
            runtime.intake.decided.append(lambda summary: metrics.count_decision(summary.action, summary.policy))
            runtime.intake.repeated.append(metrics.count_repeat)
            runtime.retention.purged.append(metrics.count_purge)
            runtime.defects.hooks.append(metrics.count_defect)
            yield

    app = FastAPIOffline(
        title="ras-triage",
        version=installed_version(),
        description=DESCRIPTION,
        responses=PROBLEM_RESPONSE,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"logs": False},  # FastAPI would log the content of requests
    )
    app.state.settings = chosen
    app.state.metrics = metrics
    app.state.limits = limits = ConcurrencyLimits(chosen)
    app.state.security = Security(chosen, partial(_stored_keys, app))
    for routes in _GUARDED:
        app.include_router(routes.router, dependencies=[Depends(require_request_scope)])
    for routes in _UNGUARDED:
        app.include_router(routes.router)
    app.router.routes.insert(0, decisions.DIRECT)
    app.state.shutdown = shutdown = Shutdown()
    app.state.allowed_origins = origins = AllowedOrigins(chosen.cors_origins)
    app.add_middleware(LimitsMiddleware, settings=chosen, limits=limits)
    app.add_middleware(TrailingSlashMiddleware)
    app.add_middleware(ShutdownMiddleware, shutdown=shutdown)
    app.add_middleware(CompressionMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(PreflightMiddleware, allowed=origins)
    app.add_exception_handler(ProblemError, _problem_error)
    app.add_exception_handler(HTTPException, _router_error)
    app.add_exception_handler(RequestValidationError, _parameter_error)
    app.add_exception_handler(WriteQueueFull, _queue_full)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(Exception, _unexpected_error)
    app.add_middleware(AccessLogMiddleware, metrics=metrics)
    app.add_middleware(CorsHeadersMiddleware, allowed=origins)
    app.add_middleware(SecurityHeadersMiddleware)
    app.openapi = partial(_describe_api, app)  # type: ignore[method-assign]
    return app


def _describe_api(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document. What makes it is loaded when it is asked for."""
    from ras_triage.service.http.openapi_document.document import describe_api  # noqa: PLC0415

    return describe_api(app, [routes.router for routes in (*_GUARDED, *_UNGUARDED)])


async def _stored_keys(app: FastAPI) -> Sequence[ApiKey]:
    """Return the API keys of the store."""
    runtime: Runtime = app.state.runtime
    return await runtime.read(lambda store: store.api_keys())


def _problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    logs.bind(problem=problem.type)
    response = Response(problem_json(problem), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)
    if problem.status in RETRYABLE:
        response.headers.setdefault("retry-after", str(RETRY_S))
    return response


async def _problem_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return _problem_response(error.problem, error.headers)


async def _router_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    detail = {404: f"no resource at `{path}`; see `/docs`", 405: f"method `{method}` not allowed at `{path}`"}.get(error.status_code)
    headers = dict(error.headers or {})
    if error.status_code == 405 and request.method not in (methods := _methods(request)):
        headers["Allow"] = ", ".join(methods)
    return _problem_response(http_problem(error.status_code, detail or str(error.detail)), headers)


def _methods(request: Request) -> list[str]:
    """Return the methods of all routes of this path (RFC 9110 10.2.1); the router names only those of the first."""
    routes = request.app.routes
    scopes = ({**request.scope, "method": method} for method in _METHODS)
    methods = {scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)}
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)


async def _parameter_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["loc"][0] == "path":
        return _problem_response(
            http_problem(404, truncate_text(f"unknown `{first['loc'][-1]}`: {explain_validation_error(first, first['input'])}"))
        )
    reason = explain_validation_error(first, first["input"]) + suggest_value(first, first["input"])
    return _problem_response(invalid_parameter(str(first["loc"][-1]), reason))


async def _queue_full(_: Request, error: Exception) -> Response:
    return _problem_response(busy(str(error)))


async def _store_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, StoreError)
    return _problem_response(store_failed(error))


async def _unexpected_error(request: Request, _error: Exception) -> Response:
    """Respond to an unexpected exception. No middleware sees this response, so it sets the security headers itself."""
    return _problem_response(internal(), {name.decode(): value.decode() for name, value in security_headers(request.scope)})
