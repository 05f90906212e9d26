"""Examples in README.md against the actual output."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import httpx

from tests.paths import ROOT
from tests.service.support.application import run
from tests.service.support.server_process import serving

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d\d\dZ")


def commands(start: str) -> list[str]:
    """The lines of shell that begin so."""
    return re.findall(rf"^    ({re.escape(start)}.*)$", README, re.MULTILINE)


def test_its_example_answers_what_it_shows() -> None:
    (answer, table, script, printed, counts) = [text for _, text in BLOCKS]
    (asked,) = re.findall(r"--json @(\S+)", commands("curl")[0])
    with serving("--store", "memory:") as service:
        given = httpx.post(f"{service.url}/v1/decisions", content=(ROOT / asked).read_bytes()).json()
        assert {name: given[name] for name in json.loads(answer)} == json.loads(answer)

        code = script.replace("http://127.0.0.1:8080", service.url)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert TIME.sub("then", done.stdout) == TIME.sub("then", printed)

        path = re.findall(r"'http://127.0.0.1:8080(\S+)'", commands("curl")[1])[0]
        assert TIME.sub("then", httpx.get(service.url + path).text) == TIME.sub("then", counts.strip())

    (command,) = commands(".venv/bin/ras-triage decide")
    shown = run(*shlex.split(command)[1:], COLUMNS="100", PYTHONIOENCODING="utf-8").stdout.decode()
    assert shown.strip("\n") == table.strip("\n")


def test_every_page_and_command_that_it_names_is_there() -> None:
    pages = re.findall(r"\]\(([\w./-]+)\)", README)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / page).exists()] == []
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [verb for verb in re.findall(r"(?:`|    )make (\w+)", README) if f"\n{verb}:" not in makefile] == []
    told = run("--help").stdout.decode()
    assert [name for name in re.findall(r"(?:`|bin/)ras-triage ([a-z]+)", README) if f"\n    {name} " not in told] == []
