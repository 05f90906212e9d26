"""`serve`: answers over HTTP."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from policies.catalog import UNIFORM
from service.commands.options import add_policy_file, port, settings_of

HELP = "answer over HTTP"


def configure(command: ArgumentParser) -> None:
    command.description = "Answer over HTTP."
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", default=8080, type=port, help="port to listen on (default: %(default)s)")
    command.add_argument("--default-policy", default=UNIFORM, metavar="NAME", help="for events that name neither policy nor kernel")
    add_policy_file(command)


def run(options: Namespace) -> int:
    from service.server import serve  # noqa: PLC0415 - only this command needs a server

    serve(settings_of(options), options.host, options.port)
    return 0
