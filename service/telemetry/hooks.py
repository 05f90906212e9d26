"""Callbacks that must not fail their caller."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import ParamSpec

from ras_triage.service.telemetry import logs

P = ParamSpec("P")


def call_each(hooks: Iterable[Callable[P, object]], *arguments: P.args, **named: P.kwargs) -> None:
    """Call all hooks. An exception of one is logged, and affects neither the others nor the caller."""
    for hook in hooks:
        try:
            hook(*arguments, **named)
        except Exception as error:
            logs.log(logging.ERROR, "defect in a hook", **logs.explain(error))
