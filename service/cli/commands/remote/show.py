"""Command `show`: one stored decision."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import print_page, write_json, write_original
from ras_triage.service.cli.server_options import add_server, call_service

if TYPE_CHECKING:
    from ras_triage.service.client import Client


def configure(command: ArgumentParser) -> None:
    command.description = "Show a decision that a service stores, in the layout of `decide`."
    add_examples(command, "ras-triage show 0192f0c1-7c5e-7b7e-9d3c-1f6a2b3c4d5e", "ras-triage show --event ID > event.json")
    command.add_argument("id", metavar="ID", help="id of the decision")
    command.add_argument("--event", action="store_true", help="print the event instead, byte for byte as received")
    add_json(command)
    add_server(command)


def run(options: Namespace) -> int:
    return call_service(options, lambda client: _show(client, options))


def _show(client: Client, options: Namespace) -> int:
    if options.event:
        write_original(client.event(options.id))
    elif options.json:
        write_json(client.get_json(options.id))
    else:
        from ras_triage.service.cli.pages.decision import decision_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(decision_page(client.get(options.id)))
    return 0
