"""Option that makes a command fail where a decision has certain actions."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable
from typing import Final

from ras_triage.models.decision import Action
from ras_triage.models.errors import suggestion

ACTION_FOUND: Final = 3
"""Exit status: a decision has an action of `--fail-on`."""

_ACTIONS: Final = tuple(action.value for action in Action)


def add_fail_on(command: ArgumentParser) -> None:
    """Add the option."""
    command.add_argument(
        "--fail-on",
        type=_actions,
        action="extend",
        default=[],
        metavar="ACTION[,ACTION]",
        help=f"exit status {ACTION_FOUND} if a decision has exactly one of these actions, for CI: {', '.join(_ACTIONS)}; may be repeated",
    )


def status_of(options: Namespace, status: int, actions: Iterable[str]) -> int:
    """Return the exit status of a command: `status` if it is not 0, since then the result is incomplete."""
    return status or (0 if set(options.fail_on).isdisjoint(actions) else ACTION_FOUND)


def _actions(text: str) -> list[str]:
    actions = text.split(",")
    for action in actions:
        if action not in _ACTIONS:
            raise ArgumentTypeError(f"unknown action `{action}`; expected one of {', '.join(_ACTIONS)}{suggestion(action, _ACTIONS)}")
    return actions
