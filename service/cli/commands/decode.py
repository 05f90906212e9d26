"""Command `decode`: fields of a status block or CPER record."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from ras_triage.service.cli.inputs import read_all, to_bytes
from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import print_page, warn_of_defect, write_json
from ras_triage.service.config.settings import MAX_BODY_BYTES
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.responses import explain_bytes

HELP = "decode a status block or a CPER record"


def configure(command: ArgumentParser) -> None:
    command.description = "Decode a status block or CPER record: bytes, hexadecimal, base64, or an event that contains one."
    add_examples(command, "ras-triage decode record.cper", "ras-triage decode --json event.json")
    command.add_argument("file", metavar="FILE", help="input file, or - for standard input")
    add_json(command)


def run(options: Namespace) -> int:
    attempts = Attempts(warn_of_defect)
    decoded = attempts.call(explain_bytes, attempts.call(to_bytes, read_all(options.file, MAX_BODY_BYTES)))
    if options.json:
        write_json(to_json(decoded))
    else:
        from ras_triage.service.cli.pages.decoded import decoded_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(decoded_page(decoded))
    return 0
