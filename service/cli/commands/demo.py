"""Command `demo`: one recorded error, decided under two kernels."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import print_page


def configure(command: ArgumentParser) -> None:
    command.description = "Start a service, send it a recorded error for two kernels, and compare the decisions."
    add_examples(command, "ras-triage demo")


def run(_: Namespace) -> int:
    from ras_triage.service.cli.demo_run import INTRODUCTION, run_demo  # noqa: PLC0415 - only this command needs a server and a client
    from ras_triage.service.cli.pages.comparison import demo_page  # noqa: PLC0415

    print_page(demo_page(INTRODUCTION, run_demo()))
    return 0
