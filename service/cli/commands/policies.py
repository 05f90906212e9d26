"""Command `policies`: list, details and comparison of policies."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, add_vmm_file, known_policy, settings_of
from ras_triage.service.cli.output import print_page, write_json
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.policy_pages import compare, describe_policy, list_policies


def configure(command: ArgumentParser) -> None:
    command.description = "List the policies and VMMs, show a policy flag by flag, or compare two."
    add_examples(command, "ras-triage policies", "ras-triage policies linux-6.12.107", "ras-triage policies linux-6.12.107 --diff uniform")
    command.add_argument("name", nargs="?", metavar="NAME", help="uniform, linux-<release>, or a custom policy")
    command.add_argument("--diff", metavar="OTHER", help="show the differences to this policy")
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    result = _look_up(options, settings)
    if options.json:
        write_json(to_json(result))
        return 0
    from ras_triage.service.cli.pages import policy  # noqa: PLC0415 - JSON output starts faster without it

    match result:
        case PolicyList():
            print_page(policy.policy_list_page(result))
        case PolicyPage():
            print_page(policy.policy_page(result))
        case Difference():
            print_page(policy.difference_page(result))
    return 0


def _look_up(options: Namespace, settings: Settings) -> PolicyList | PolicyPage | Difference:
    """Return what the options name. Raises ProblemError."""
    if options.name is None:
        return list_policies(settings)
    if options.diff is None:
        return describe_policy(known_policy(options.name, settings, "NAME"))
    return compare(known_policy(options.name, settings, "NAME"), known_policy(options.diff, settings, "--diff"))
