"""`ras-triage serve` as a process that can be killed and restarted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread

from tests.paths import ROOT
from tests.service.support.forked import ForkedCommand


def interruptible() -> None:
    """In a child that is about to start: it hears an interrupt, also where whoever runs the tests ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Service:
    """A service on loopback, on a port that stays its own."""

    def __init__(self, *options: str, program: Sequence[str] = ()) -> None:
        """`program`: what Python runs in place of `ras-triage`, from the start of the interpreter."""
        self.options = options
        self.program = program
        self.log: list[str] = []
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = self._process(["serve", "--port", self.port, *self.options])
        assert self.process.stderr is not None
        lines = map(bytes.decode, self.process.stderr)
        for line in lines:
            self.log.append(line)
            running = re.search(r"(http://[\d.]+):(\d+)", line)
            unix = re.search(r"running on unix socket (\S+)", line)
            if running is None and unix is None:
                continue
            if running is not None:
                self.port = running[2]
                self.url = running[0]
            Thread(target=self.log.extend, args=(lines,), daemon=True).start()
            return
        raise AssertionError("".join(self.log))

    def _process(self, arguments: list[str]) -> ForkedCommand | subprocess.Popen[bytes]:
        if not self.program:
            return ForkedCommand(arguments, os.environ)
        command = [sys.executable, *self.program, *arguments]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(*options: str, program: Sequence[str] = ()) -> Iterator[Service]:
    """A service for as long as the context lasts."""
    service = Service(*options, program=program)
    try:
        yield service
    finally:
        service.kill()
