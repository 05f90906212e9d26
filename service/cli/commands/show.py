"""`show`: one decision that a service keeps."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from ras_triage.service.cli.options import add_json
from ras_triage.service.cli.output import show, write_json, write_original
from ras_triage.service.cli.server_options import add_server, ask

if TYPE_CHECKING:
    from ras_triage.service.client import Client

HELP = "show a decision that a service keeps, or the event it was made for"


def configure(command: ArgumentParser) -> None:
    command.description = "Show a decision that a service keeps, as `decide` shows one."
    command.add_argument("id", metavar="ID", help="the decision's id")
    command.add_argument("--event", action="store_true", help="write the event instead, byte for byte as it was sent")
    add_json(command)
    add_server(command)


def run(options: Namespace) -> int:
    return ask(options, lambda client: _show(client, options))


def _show(client: Client, options: Namespace) -> int:
    if options.event:
        write_original(client.event(options.id))
    elif options.json:
        write_json(client.get_json(options.id))
    else:
        show("decision_page", client.get(options.id))
    return 0
