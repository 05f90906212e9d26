"""Completion scripts in the shells that read them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.service.support.application import run
from tests.tools import missing_programs, require

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
function=$(complete -p ras-triage | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" ras-triage "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'source "$argv[1]"; complete -C "$argv[2]"'
ZSH = 'fpath=("$1" $fpath); autoload -U compinit; compinit -D -u; autoload +X _ras-triage; print -r -- $_comps[ras-triage]'


@cache
def script(shell: str) -> bytes:
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shell in ("bash", "zsh", "fish"):
        (tmp_path / f"script.{shell}").write_bytes(script(shell))
    (tmp_path / "event-1.json").touch()
    (tmp_path / "events").mkdir()
    return tmp_path


def ask(folder: Path, *command: str) -> list[str]:
    require(missing_programs(command[0]), command[0])
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def in_bash(folder: Path, *words: str) -> set[str]:
    return set(ask(folder, "bash", "-c", BASH, "bash", str(folder / "script.bash"), "ras-triage", *words))


def in_fish(folder: Path, *words: str) -> set[str]:
    line = " ".join(("ras-triage", *words))
    return {found.partition("\t")[0] for found in ask(folder, "fish", "--no-config", "-c", FISH, str(folder / "script.fish"), line)}


@pytest.mark.parametrize("complete", [in_bash, in_fish])
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["de"], {"decide", "decode", "demo"}),
        (["keys", "re"], {"revoke"}),
        (["store", "check", "--re"], {"--repair"}),
        (["decide", "--com"], {"--compare"}),
        (["query", "--gr"], {"--group-by"}),
        (["export", "--to", "q"], {"qmp", "qemu_argument"}),
        (["keys", "create", "--scope", "de"], {"decide"}),
        (["query", "--format", "c"], {"csv"}),
        (["decide", "--policy", "uni"], {"uniform"}),
        (["policies", "uni"], {"uniform"}),
        (["import", "--notification", "g"], {"gpio", "gsiv"}),
        (["watch", "--action", "p"], {"panic"}),
        (["completion", "z"], {"zsh"}),
    ],
)
def test_a_shell_completes(folder: Path, complete: object, words: list[str], expected: set[str]) -> None:
    assert callable(complete)
    assert complete(folder, *words) == expected


@pytest.mark.parametrize("complete", [in_bash, in_fish])
@pytest.mark.parametrize(
    "words", [["decide", "event"], ["import", "--hest", "event"], ["submit", "--output", "event"], ["import", "x", "event"]]
)
def test_a_shell_completes_files(folder: Path, complete: object, words: list[str]) -> None:
    assert callable(complete)
    assert {found.rstrip("/") for found in complete(folder, *words)} == {"event-1.json", "events"}


@pytest.mark.parametrize("complete", [in_bash, in_fish])
def test_releases_are_completed_as_policies(folder: Path, complete: object) -> None:
    assert callable(complete)
    assert "linux-5.10.209" in complete(folder, "decide", "--policy", "linux-5")


def test_zsh_takes_the_script_as_the_completion_of_the_command(folder: Path) -> None:
    assert ask(folder, "zsh", "-n", str(folder / "script.zsh")) == []
    (folder / "zfunc").mkdir()
    shutil.copy(folder / "script.zsh", folder / "zfunc" / "_ras-triage")
    assert ask(folder, "zsh", "-f", "-c", ZSH, "zsh", str(folder / "zfunc")) == ["_ras-triage"]


def test_another_shell_is_refused_with_those_that_are_known() -> None:
    assert b"unknown value `fsh`; expected one of bash, zsh, fish; did you mean `fish`?" in run("completion", "fsh").stderr
