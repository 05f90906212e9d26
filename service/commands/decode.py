"""`decode`: what is in a status block or a CPER record."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from service.answers import explain
from service.attempts import Attempts
from service.commands.options import add_json
from service.commands.output import show, warn_of_defect, write_json
from service.inputs import read_all, to_bytes
from service.settings import MAX_BODY_BYTES

HELP = "show what is in a status block or a CPER record"


def configure(command: ArgumentParser) -> None:
    command.description = "Show what is in a status block or a CPER record: bytes, hexadecimal, base64, or an event that has one."
    command.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    add_json(command)


def run(options: Namespace) -> int:
    attempts = Attempts(warn_of_defect)
    decoded = attempts.call(explain, attempts.call(to_bytes, read_all(options.file, MAX_BODY_BYTES)))
    if options.json:
        write_json(to_json(decoded))
    else:
        show("decoded_page", decoded)
    return 0
