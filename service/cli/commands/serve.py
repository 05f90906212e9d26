"""`serve`: answers over HTTP."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace

from ras_triage.service.cli.options import add_settings, effective

HELP = "answer over HTTP"


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Answer over HTTP. Settings come from options, then the environment (RAS_TRIAGE_*), then a file: `ras-triage config` shows them."
    )
    add_settings(command)


def run(options: Namespace) -> int:
    from ras_triage.service.http.server.reload import Reload  # noqa: PLC0415 - only this command needs a server
    from ras_triage.service.http.server.run import serve  # noqa: PLC0415

    # the server raises the signal again when it has shut down, and to be told to stop is no failure
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    reload = Reload(lambda: effective(options).settings)
    signal.signal(signal.SIGHUP, reload.ask)
    serve(effective(options).settings, reload)
    return 0
