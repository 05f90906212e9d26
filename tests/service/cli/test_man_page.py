"""The manual page: as the parser has it, readable by the programs that show it, and in the wheel."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from ras_triage.service.cli.commands import COMMANDS
from tests.generate_man_page import TARGET, manual_page
from tests.paths import ROOT
from tests.tools import missing_programs, require


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse of other versions formats usages differently")
def test_the_page_is_generated_from_the_parser() -> None:
    assert TARGET.read_text(encoding="utf-8") == manual_page(), "run `make reference`"


def test_every_command_has_its_part_and_an_example() -> None:
    page = TARGET.read_text(encoding="utf-8").replace("\\-", "-")
    assert [name for name in COMMANDS if f"COMMAND \\fI\\,'ras-triage {name}'\\/\\fR" not in page] == []
    examples = page.partition(".SH EXAMPLES")[2]
    assert [name for name in COMMANDS if f"ras-triage {name}" not in examples] == []


@pytest.mark.parametrize(
    "command", [("mandoc", "-T", "lint", "-W", "error"), ("man", "--warnings", "-l"), ("groff", "-man", "-Tutf8", "-ww")]
)
def test_programs_that_show_manual_pages_find_no_fault(command: tuple[str, ...]) -> None:
    require(missing_programs(command[0]), "mandoc, man-db and groff")
    done = subprocess.run([*command, str(TARGET)], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_wheel_has_the_page_where_man_looks_for_it() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["shared-data"] == {"docs/ras-triage.1": "share/man/man1/ras-triage.1"}
