"""How many values one JSON document may have.

A value of two bytes becomes an object of many, so a limit of bytes alone bounds neither memory nor time.
"""

from __future__ import annotations

from typing import Final

from ras_triage.service.api.problems import ProblemError, too_many_values

MAX_VALUES: Final = 1 << 18
"""Room for the longest memslot table that KVM takes, field by field."""


def require_value_limit(document: bytes) -> None:
    """Raises Refused where a document may have more values, or more objects and arrays.

    Every value but the first of an object or array has a comma before it; arrays within each other need none.
    """
    if document.count(b",") > MAX_VALUES or document.count(b"[") + document.count(b"{") > MAX_VALUES:
        raise ProblemError(too_many_values(MAX_VALUES))
