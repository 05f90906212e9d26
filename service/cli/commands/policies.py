"""`policies`: what holds under each, and what differs."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import ProblemError, unknown_policy
from ras_triage.service.cli.options import add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import show, write_json
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.policy_pages import compare, list_policies, page

HELP = "list policies, show one, or compare two"


def configure(command: ArgumentParser) -> None:
    command.description = "List the policies, show one flag by flag, or compare two."
    command.add_argument("name", nargs="?", metavar="NAME", help="uniform, linux-<release>, or one of your own")
    command.add_argument("--diff", metavar="OTHER", help="show only what differs from this policy")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    name, answer = _look_up(options, settings)
    if options.json:
        write_json(to_json(answer))
    else:
        show(name, answer)
    return 0


def _find(name: str, settings: Settings) -> Policy:
    try:
        return find_policy(name, settings.custom)
    except UnknownPolicy as error:
        raise ProblemError(unknown_policy(str(error))) from None


def _look_up(options: Namespace, settings: Settings) -> tuple[str, PolicyList | PolicyPage | Difference]:
    """What was asked for, and the page that shows it."""
    if options.name is None:
        return "policy_list_page", list_policies(settings)
    if options.diff is None:
        return "policy_page", page(_find(options.name, settings))
    return "difference_page", compare(_find(options.name, settings), _find(options.diff, settings))
