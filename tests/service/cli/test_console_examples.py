"""Console examples in docs/guest.md, docs/import.md and docs/replays.md against the actual output."""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path

import pytest

from ras_triage.policies.guest.guest_record import encode_guest_record
from tests.paths import ROOT
from tests.service.support.application import run

PAGES = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("guest.md", "import.md", "replays.md")]
SHOWN = [shown for page in PAGES for shown in re.findall(r"```console\n\$ ras-triage (.*)\n((?:.*\n)*?)```", page)]


def test_the_pages_show_the_way_of_an_error_and_how_one_is_read_and_written() -> None:
    assert [command.split()[0] for command, _ in SHOWN] == ["decide", "decode", "decide", "import", "export", "compare"]


@pytest.mark.parametrize(("command", "shown"), SHOWN)
def test_what_a_page_shows_is_what_is_printed(command: str, shown: str) -> None:
    done = run(*shlex.split(command), COLUMNS="80", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    printed, position = done.stdout.decode(), 0
    for part in re.split(r"^\.\.\.\n", shown, flags=re.MULTILINE):
        found = printed.find(part, position)
        assert found >= 0, part
        position = found + len(part)


def test_the_record_of_the_example_is_the_one_that_is_decided() -> None:
    path: Path = ROOT / "docs" / "examples" / "guest-record.b64"
    assert base64.b64decode(path.read_text(encoding="ascii")) == encode_guest_record(0x40FA6000)
    done = run("decide", "docs/examples/guest-qemu.json", "--json")
    assert path.read_text(encoding="ascii").strip() in done.stdout.decode()
