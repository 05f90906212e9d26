"""Options of the command line in problems, instead of JSON pointers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from ras_triage.service.api.problems import ErrorDetail, Problem, ProblemError


@contextmanager
def naming_options(options: Mapping[str, str]) -> Iterator[None]:
    """Name options in the problems that are raised, as `name_options` does."""
    try:
        yield
    except ProblemError as refused:
        raise ProblemError(name_options(refused.problem, options)) from None


def name_options(problem: Problem, options: Mapping[str, str]) -> Problem:
    """Return a problem with options instead of the JSON pointers and query parameters that are keys of `options`."""
    if not problem.errors:
        return problem
    first, errors = problem.errors[0], tuple(_name_option(error, options) for error in problem.errors)
    detail = problem.detail if errors[0] is first else f"`{errors[0].parameter}`: {_without_place(problem.detail, first)}"
    return replace(problem, errors=errors, detail=detail)


def _name_option(error: ErrorDetail, options: Mapping[str, str]) -> ErrorDetail:
    option = options.get(error.pointer) or options.get(error.parameter or "")
    return error if option is None else replace(error, pointer="", parameter=option, detail=_without_place(error.detail, error))


def _without_place(detail: str, error: ErrorDetail) -> str:
    return detail.removeprefix(f"`{error.pointer}`: ").removeprefix(f"query parameter `{error.parameter}`: ")
