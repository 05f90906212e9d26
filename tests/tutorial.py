"""Runner of docs/tutorial.md: executes its examples against a service and returns the page with what they print."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import httpx

from tests.paths import ROOT
from tests.service.support.forked import ForkedCommand
from tests.service.support.server_process import serving

PAGE: Final = ROOT / "docs" / "tutorial.md"

_ADDRESS: Final = "http://127.0.0.1:8080"
_BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STYLE: Final = re.compile(r"\x1b\[[\d;]*m")
_VARIES: Final = re.compile(r"\b(20\d\d-)?\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z)?|\b01[0-9a-f]{6}(-[0-9a-f-]{4,27})?\b")
"""Times, and ids of decisions."""


def comparable(page: str) -> str:
    """Return a page without what differs between two runs."""
    return _VARIES.sub(lambda found: "x" * len(found[0]), page)


def played(page: str) -> str:
    """Return the page with the output of each example, in order."""
    with serving("--store", "memory:") as service:
        return _BLOCK.sub(_Player(service.url).play, page)


class _Player:
    """Runs the examples of a page."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._printed = ""
        """By the last example whose output is a block of its own."""

    def play(self, block: re.Match[str]) -> str:
        """Return a block as it must be."""
        language, text = block[1], block[2]
        if text.startswith("$ ras-triage "):
            command = text.partition("\n")[0]
            text = f"{command}\n{self._command(command.removeprefix('$ ras-triage '))}"
        elif text.startswith("$ curl "):
            path, file = re.findall(rf"{_ADDRESS}(\S+) --json @(\S+)", text)[0]
            self._printed = httpx.post(self._url + path, content=(ROOT / file).read_bytes()).text
        elif language == "python":
            code = text.replace(_ADDRESS, self._url)
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
            self._printed = done.stdout
        elif language == "json":
            shown, answer = json.loads(text), json.loads(self._printed)
            assert {name: answer[name] for name in shown} == shown
        else:
            text = self._printed
        return f"```{language}\n{text}```"

    def _command(self, line: str) -> str:
        """Return what a command prints in 80 columns on a terminal, without colours; with `| head` or `| tail`, what that leaves of it."""
        command, _, pipe = line.partition(" | ")
        lines = [_STYLE.sub("", line).rstrip() for line in self._printed_by(shlex.split(command), to_terminal=not pipe).splitlines()]
        program, _, count = pipe.partition(" -")
        lines = lines[: int(count)] if program == "head" else lines[-int(count or 0) :]
        return "\n".join(lines).strip("\n") + "\n"

    def _printed_by(self, arguments: list[str], *, to_terminal: bool) -> str:
        variables = {**os.environ, "RAS_TRIAGE_URL": self._url, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
        if not to_terminal:
            return ForkedCommand(arguments, variables).communicate(b"", timeout=60)[0].decode()
        master, slave = pty.openpty()
        process = ForkedCommand(arguments, variables, terminal=slave)
        os.close(slave)
        printed = b""
        for piece in _read(master):
            printed += piece
            if arguments[0] == "watch" and printed.count(b"\n") == self._stored():
                process.send_signal(signal.SIGINT)
        os.close(master)
        process.wait(timeout=60)
        process.close()
        return printed.decode()

    def _stored(self) -> int:
        """Return the number of stored decisions, which `watch` prints at once."""
        return len(httpx.get(f"{self._url}/v1/decisions").json()["decisions"])


def _read(terminal: int) -> Iterator[bytes]:
    """Yield what is written to a terminal until its last writer ends, which Linux reports as an error."""
    with suppress(OSError):
        while piece := os.read(terminal, 1 << 16):
            yield piece
