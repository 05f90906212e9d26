"""`ras-triage` in processes that are forked from one that has imported it.

Memory, environment, standard streams and signals are a process's own. Only the interpreter's start is saved, half a second of processor
time for each command.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import BinaryIO, Final

from ras_triage.service.cli.main import main
from tests.paths import ROOT

FORK: Final = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.service.support.preloaded"])


class ForkedCommand:
    """A command that runs, with those methods of `subprocess.Popen` that tests use; its streams are pipes."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], terminal: int | None = None) -> None:
        """`terminal`: descriptor of one, for standard output in place of a pipe."""
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = (multiprocessing.Pipe(duplex=False) for _ in range(3))
        if terminal is not None:
            theirs_out.close()
            theirs_out = Connection(os.dup(terminal), readable=False)
        theirs = (theirs_in, theirs_out, theirs_err)
        self._process = FORK.Process(target=_run, args=(tuple(arguments), dict(environment), *theirs), daemon=True)
        self._process.start()
        self.stdin, self.stdout, self.stderr = _file(ours_in, "wb"), _file(ours_out, "rb"), _file(ours_err, "rb")
        for connection in theirs:
            connection.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("ras-triage", timeout or 0.0)
        return self.returncode

    def communicate(self, given: bytes, timeout: float) -> tuple[bytes, bytes]:
        """Send this to standard input, and return what comes from standard output and standard error."""
        outputs: dict[str, bytes] = {}
        threads = [
            Thread(target=lambda: outputs.update(out=self.stdout.read())),
            Thread(target=lambda: outputs.update(err=self.stderr.read())),
            Thread(target=self._send, args=(given,)),
        ]
        for thread in threads:
            thread.start()
        try:
            self.wait(timeout)
        finally:
            self.kill()
            for thread in threads:
                thread.join()
        self.close()
        return outputs["out"], outputs["err"]

    def _send(self, given: bytes) -> None:
        with suppress(BrokenPipeError), self.stdin:
            self.stdin.write(given)

    def close(self) -> None:
        """Close this end of the pipes."""
        for stream in (self.stdin, self.stdout, self.stderr):
            with suppress(BrokenPipeError):
                stream.close()


def _file(connection: Connection, mode: str) -> BinaryIO:
    with connection:
        return os.fdopen(os.dup(connection.fileno()), mode)  # type: ignore[return-value]


def _run(arguments: Sequence[str], environment: Mapping[str, str], *streams: Connection) -> None:
    """Run a command in this process as the interpreter would, and end it."""
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    sys.argv[:] = ["ras-triage", *arguments]
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115 - for the process's life
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os._exit(_status(arguments))


def _status(arguments: Sequence[str]) -> int:
    """Return the exit status that the interpreter would have."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return 120  # of Python where standard output cannot be flushed at the end
    return status
