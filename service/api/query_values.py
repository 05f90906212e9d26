"""Values of query parameters."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter, ValidationError

from ras_triage.service.api.problems import ProblemError, invalid_parameter, truncate_text

_BOOL: Final = TypeAdapter(bool)


def parse_boolean(name: str, text: str | None) -> bool:
    """Return the value of a boolean parameter; false if it is absent. Raises ProblemError."""
    if text is None:
        return False
    try:
        return _BOOL.validate_python(text)
    except ValidationError:
        raise ProblemError(invalid_parameter(name, f"invalid boolean `{truncate_text(text)}`; expected `true` or `false`")) from None
