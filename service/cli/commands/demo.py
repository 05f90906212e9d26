"""`demo`: a first look."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from ras_triage.service.cli.output import show

HELP = "decide a recorded error under two kernels that disagree"


def configure(command: ArgumentParser) -> None:
    command.description = "Decide a recorded error under two kernels that disagree, over HTTP."


def run(_: Namespace) -> int:
    from ras_triage.service.cli.demo_run import INTRODUCTION, ask  # noqa: PLC0415 - only this command needs a server and a client

    show("demo_page", INTRODUCTION, ask())
    return 0
