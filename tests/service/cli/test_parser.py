"""Argument parser: closest known names in errors, and what a command imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ras_triage.service.cli.commands import COMMANDS
from ras_triage.service.cli.parser import build_parser
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["impot", "x"], "ras-triage: error: argument COMMAND: unknown value `impot`; expected one of {commands}; did you mean `import`?"),
        (
            ["decide", "x", "--polcy", "uniform"],
            "ras-triage decide: error: unrecognized arguments: --polcy uniform; did you mean `--policy`?",
        ),
        (["decide", "x", "--polcy=uniform"], "ras-triage decide: error: unrecognized arguments: --polcy=uniform; did you mean `--policy`?"),
        (
            ["export", "x", "--to", "redfsh"],
            "expected one of event, cper, redfish, qmp, qemu_argument, ghes_inject; did you mean `redfish`?",
        ),
        (
            ["keys", "revok", "x"],
            "ras-triage keys: error: argument ACTION: unknown value `revok`; expected one of create, list, revoke; did you mean `revoke`?",
        ),
        (["keys", "list", "--jsn"], "ras-triage keys list: error: unrecognized arguments: --jsn; did you mean `--json`?"),
        (["import", "x", "--notification", "seax"], "sdei, bert, irq, boot; did you mean `sea`?"),
        (["decide", "x", "y"], "ras-triage decide: error: unrecognized arguments: y"),
        (["decide", "x", "--" + "policy" * 20000], "unrecognized arguments: --policypolicy"),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest_known_one(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(arguments)
    assert end.value.code == 2
    assert message.format(commands=", ".join(COMMANDS)) in capsys.readouterr().err


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a fresh interpreter imports for a command."""
    code = (
        f"import sys; from ras_triage.service.cli import main\ntry: main.main({arguments!r})\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    return set(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stderr.split())


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_help_and_version_import_neither_commands_nor_models(option: str) -> None:
    loaded = loaded_by(option)
    assert "ras_triage.service.cli.parser" in loaded
    assert {name for name in loaded if name.startswith(("pydantic", "ras_triage.service.cli.commands."))} == set()


def test_a_command_imports_no_other_command() -> None:
    loaded = {name for name in loaded_by("config", "--help") if name.startswith("ras_triage.service.cli.commands.")}
    assert loaded == {"ras_triage.service.cli.commands.config"}
