"""Functions that are called when something has happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

from ras_triage.service.telemetry import logs

P = ParamSpec("P")


def call_each(hooks: Iterable[Callable[P, object]], *arguments: P.args, **named: P.kwargs) -> None:
    """Call each of the hooks. One that raises keeps neither the others nor the caller from going on: it is logged."""
    for hook in hooks:
        try:
            hook(*arguments, **named)
        except Exception as error:
            logs.log(logging.ERROR, "defect in a hook", **logs.explain(error))
