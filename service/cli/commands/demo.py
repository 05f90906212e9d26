"""Command `demo`: one recorded error, decided under two kernels."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import suppress
from threading import Event

from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import print_page, write_text


def configure(command: ArgumentParser) -> None:
    command.description = "Start a service, send it a recorded error for two kernels, and compare the decisions."
    command.add_argument("--keep", action="store_true", help="keep the service running, for its page in a browser, until it is interrupted")
    add_examples(command, "ras-triage demo")


def run(options: Namespace) -> int:
    from ras_triage.service.cli.demo_run import INTRODUCTION, demo_service  # noqa: PLC0415 - only this command needs a server and a client
    from ras_triage.service.cli.pages.comparison import demo_page  # noqa: PLC0415

    with demo_service() as (url, decisions):
        print_page(demo_page(INTRODUCTION, decisions))
        if options.keep:
            write_text(f"The page: {url}/ (Ctrl-C stops the service)")
            with suppress(KeyboardInterrupt):
                Event().wait()
    return 0
