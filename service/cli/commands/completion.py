"""Command `completion`: completion scripts for shells."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Final

from ras_triage.models.decision import Action as DecisionAction
from ras_triage.models.notification import ALIASES, NotificationType
from ras_triage.models.records.guid import SECTION_NAMES
from ras_triage.models.severity import SEVERITY_NAMES
from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import write_bytes
from ras_triage.service.cli.parser import build_parser, parsers_of
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.policy_pages import list_policies
from ras_triage.service.store.port import FIELDS

_SHELLS: Final = ("bash", "zsh", "fish")


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Print a completion script: commands, options, files, and the names of policies, notification types and other values."
    )
    add_examples(
        command,
        "ras-triage completion bash > ~/.local/share/bash-completion/completions/ras-triage",
        "ras-triage completion zsh > ~/.zfunc/_ras-triage",
        "ras-triage completion fish > ~/.config/fish/completions/ras-triage.fish",
    )
    command.add_argument("shell", choices=_SHELLS, metavar="SHELL", help=", ".join(_SHELLS))


def run(options: Namespace) -> int:
    import shtab  # noqa: PLC0415 - only the script needs it

    parser, names = build_parser(), _names()
    for action in (action for one in parsers_of(parser) for action in one._actions):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.choices is None and (known := names.get((*action.option_strings, action.dest)[0])):
            action.choices = known
    write_bytes(shtab.complete(parser, shell=options.shell).encode() + b"\n")
    return 0


def _names() -> Mapping[str, Sequence[str]]:
    """Return values to complete by option, or by the name of a positional argument. Other policies are valid, too."""
    policies = [policy.name for policy in list_policies(Settings()).policies]
    notifications = [*(kind.value for kind in NotificationType), *ALIASES]
    return {
        **dict.fromkeys(("--policy", "--compare", "--diff", "--default-policy", "name"), policies),
        "--notification": notifications,
        **dict.fromkeys(("--action", "--fail-on"), tuple(action.value for action in DecisionAction)),
        "--severity": list(SEVERITY_NAMES),
        "--section": list(SECTION_NAMES.values()),
        "--group-by": list(FIELDS),
        "--bucket": ["minute", "hour", "day"],
    }
