"""Command `policies`: list, details and comparison of policies."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from pydantic_core import to_json

from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.inputs import read_all
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, add_vmm_file, known_policy, settings_of
from ras_triage.service.cli.output import INCOMPLETE, print_page, write_json
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.policy_pages import compare, describe_policy, list_policies

TEST: Final = "test"
"""In the place of a policy's name: test a table."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "List the policies and VMMs, show a policy flag by flag, or compare two. With `test TABLE`: decide the events of a table and"
        " compare with the expected decisions. Exit status of a test: 0 as expected; 1 not; 2 bad input."
    )
    add_examples(
        command,
        "ras-triage policies",
        "ras-triage policies linux-6.12.107",
        "ras-triage policies linux-6.12.107 --diff uniform",
        "ras-triage policies test expected.yaml --policy-file ours.toml",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="uniform, linux-<release>, or a custom policy; `test` with a TABLE")
    command.add_argument(
        "file", nargs="?", metavar="TABLE", help="after `test`: table of expected decisions in YAML, or - for standard input"
    )
    command.add_argument("--diff", metavar="OTHER", help="show the differences to this policy")
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.file is not None:
        return _test(options, settings)
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


def _test(options: Namespace, settings: Settings) -> int:
    """Run a table of expected decisions and return the exit status. Raises InvalidSetting, ProblemError."""
    from ras_triage.service.engine.tables.policy_table import read_table, run_table  # noqa: PLC0415 - lists start faster without it

    if options.name != TEST or options.diff is not None:
        raise InvalidSetting(f"`TABLE`: expected `ras-triage policies {TEST} TABLE`, without `--diff`")
    content = _read_yaml(read_all(options.file, settings.max_body_bytes))
    try:
        table = read_table(content)
    except ProblemError as refused:
        raise InvalidSetting(f"`TABLE`: {refused.problem.detail}") from None
    result = run_table(table, known_policy(table.policy, settings, "policy"), settings)
    if options.json:
        write_json(to_json({**result._asdict(), "cases": [case._asdict() for case in result.cases], "failed": result.failed}))
    else:
        from ras_triage.service.cli.pages.policy_table import table_result_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(table_result_page(result))
    return INCOMPLETE if result.failed else 0


def _read_yaml(data: bytes) -> object:
    """Return the content of a YAML document. Raises InvalidSetting."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise InvalidSetting("`TABLE`: reading YAML needs a package; install `ras-triage[yaml]`") from None
    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidSetting(f"`TABLE`: not valid YAML: {' '.join(str(error).split())}") from None
