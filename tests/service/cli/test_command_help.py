"""Help of the commands: a description, and examples that the parser accepts."""

from __future__ import annotations

import re
import shlex

import pytest

from ras_triage.service.cli.commands import COMMANDS
from ras_triage.service.cli.parser import build_parser


def help_of(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        build_parser([name]).parse_args([name, "--help"])
    return capsys.readouterr().out


def examples(text: str) -> list[list[str]]:
    """Return the arguments of each example, without pipes and redirections."""
    lines = re.findall(r"^  (.*ras-triage .*)$", text.rpartition("example")[2], re.MULTILINE)
    return [shlex.split(re.split(r" [<>|] ", line.partition("ras-triage ")[2])[0]) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_the_parser_accepts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples(help_of(name, capsys))
    assert found
    for arguments in found:
        assert build_parser([name]).parse_args(arguments).command == name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does_in_the_imperative(name: str) -> None:
    verb = COMMANDS[name].help.split()[0].rstrip(",")
    assert verb.islower()
    assert not verb.endswith(("s", "ed", "ing"))
