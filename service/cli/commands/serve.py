"""Command `serve`: the HTTP service."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace

from ras_triage.service.cli.options import add_examples, add_settings, effective_settings


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Run the HTTP service. Options take precedence over the environment (RAS_TRIAGE_*), and that over the settings file;"
        " `ras-triage config` shows the result."
    )
    add_examples(command, "ras-triage serve", "ras-triage serve --host 0.0.0.0 --keys-file keys.toml --tls-cert cert.pem")
    add_settings(command)


def run(options: Namespace) -> int:
    from ras_triage.service.http.server.reload import Reload  # noqa: PLC0415 - only this command needs a server
    from ras_triage.service.http.server.run import serve  # noqa: PLC0415

    # uvicorn raises SIGTERM again after its shutdown; the exit status must be 0
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    reload = Reload(lambda: effective_settings(options).settings)
    signal.signal(signal.SIGHUP, reload.request)
    serve(effective_settings(options).settings, reload)
    return 0
