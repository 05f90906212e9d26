"""The HTTP application."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from service import openapi
from service.headers import SecurityHeaders, security_headers
from service.limits import Limits
from service.problems import MEDIA_TYPE, Problem, Refused, explain, http_problem, internal, invalid_parameter, problem_json
from service.routes import decisions, decode, health, policies, syndromes
from service.security.guard import Security
from service.settings import Settings
from service.store.port import ApiKey
from service.version import installed_version

DESCRIPTION = "What Linux on arm64 does with a hardware error, and why."


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application, ready to answer."""
    app = FastAPIOffline(
        title="ras-triage",
        version=installed_version(),
        description=DESCRIPTION,
        responses=openapi.PROBLEM_RESPONSE,
        redoc_url=None,
        redirect_slashes=False,
    )
    settings = settings or Settings()
    app.state.settings = settings
    app.state.security = Security(settings, partial(_kept_keys, app))
    app.add_middleware(Limits, settings=settings)
    app.add_middleware(SecurityHeaders)
    for noun in (decisions, decode, syndromes, policies, health):
        app.include_router(noun.router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _refused_by_router)
    app.add_exception_handler(RequestValidationError, _refused_by_parameters)
    app.add_exception_handler(Exception, _failed)
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    return app


async def _kept_keys(app: FastAPI) -> Sequence[ApiKey]:
    """The keys of the store, while there is one."""
    runtime: Any = getattr(app.state, "runtime", None)
    return () if runtime is None else await runtime.read(lambda store: store.api_keys())


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(problem_json(problem), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _answer(error.problem, error.headers)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {404: f"there is nothing at `{request.url.path}`", 405: f"`{request.method}` is not possible here"}.get(error.status_code)
    return _answer(http_problem(error.status_code, detail or str(error.detail)), dict(error.headers or {}))


async def _refused_by_parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _answer(invalid_parameter(str(first["loc"][-1]), explain(first, first["input"])))


async def _failed(request: Request, _error: Exception) -> Response:
    """This answer is made outside of every middleware."""
    return _answer(internal(), {name.decode(): value.decode() for name, value in security_headers(request.scope)})
