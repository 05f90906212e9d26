"""Scopes that a request needs."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import TypeAdapter, ValidationError

from ras_triage.service.api.problems import ProblemError, invalid_parameter, truncate_text
from ras_triage.service.security.principal import Scope
from ras_triage.service.security.tickets import TICKETS_PATH

DRY_RUN: Final = "dry_run"
"""Query parameter: decide and store nothing."""

_BOOL: Final = TypeAdapter(bool)

_BY_METHOD: Final[dict[str, tuple[Scope, ...]]] = {"GET": ("read",), "HEAD": ("read",), "POST": ("decide",)}
_ADMIN: Final[tuple[Scope, ...]] = ("admin",)

_QUESTION: Final[tuple[Scope, ...]] = ("read", "decide")
_QUESTIONS: Final = frozenset({"/v1/decode", "/v1/syndromes"})
"""Paths of POST requests that store nothing."""
_WITH_DRY_RUN: Final = frozenset({"/v1/decisions", "/v1/decisions/batch", "/v1/import"})


def accepted_scopes(request: Request) -> tuple[Scope, ...]:
    """Return the scopes of which a request needs one.

    GET needs `read`, POST `decide`, PUT and DELETE `admin`. A POST that stores nothing is a question, for which `read` is enough.
    """
    if request.method != "POST":
        return _BY_METHOD.get(request.method, _ADMIN)
    path = request.scope["path"]
    if path == TICKETS_PATH:
        return _BY_METHOD["GET"]
    if path in _QUESTIONS or (path in _WITH_DRY_RUN and _is_question(request)):
        return _QUESTION
    return _BY_METHOD["POST"]


def _is_question(request: Request) -> bool:
    """Return whether a request is a dry run; false for an invalid parameter, which the route refuses."""
    try:
        return is_dry_run(request)
    except ProblemError:
        return False


def is_dry_run(request: Request) -> bool:
    """Return whether a request asks that nothing is stored. Raises ProblemError."""
    text = request.query_params.get(DRY_RUN) if request.scope["query_string"] else None
    if text is None:
        return False
    try:
        return _BOOL.validate_python(text)
    except ValidationError:
        raise ProblemError(invalid_parameter(DRY_RUN, f"invalid boolean `{truncate_text(text)}`; expected `true` or `false`")) from None
