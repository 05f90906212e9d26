"""Examples in README.md against the actual output."""

from __future__ import annotations

import re
import shlex

from tests.paths import ROOT
from tests.service.support.application import run

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_example_prints_what_it_shows() -> None:
    (command,) = re.findall(r"^    \.venv/bin/ras-triage (.*)$", README, re.MULTILINE)
    (shown,) = re.findall(r"^```\n(.*?)```", README, re.MULTILINE | re.DOTALL)
    printed = run(*shlex.split(command), COLUMNS="100", PYTHONIOENCODING="utf-8").stdout.decode()
    assert printed.strip("\n") == shown.strip("\n")


def test_every_page_and_command_that_it_names_is_there() -> None:
    pages = re.findall(r"\]\(([\w./-]+)\)", README)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / page).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [verb for verb in re.findall(r"(?:`|    )make (\w+)", README) if f"\n{verb}:" not in makefile] == []
    told = run("--help").stdout.decode()
    assert [name for name in re.findall(r"(?:`|bin/)ras-triage ([a-z]+)", README) if f"\n    {name} " not in told] == []


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 90
