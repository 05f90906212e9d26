"""`export`: the errors in a file, written in a format that other tools take."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Final

from pydantic_core import to_json

from models.errors import MalformedBytes
from models.event import Event, event_json
from models.formats.cper import write_record
from models.formats.ghes_inject import to_arguments
from models.formats.qemu_injection import NotInjectable, to_argument, to_qmp
from models.formats.reading import Reading, Unread
from models.formats.redfish import write_redfish
from service.attempts import Attempts
from service.commands.output import BAD_INPUT, warn, warn_of_defect, write_bytes
from service.commands.progress import progress
from service.commands.take_in import add_reading, found, own_path, size_of, told_of
from service.escaping import escape, escape_json
from service.importing.formats import Format
from service.importing.results import place_words
from service.importing.source import Source
from service.importing.told import Told, notified
from service.inputs import opened
from service.problems import Refused, unwritable
from service.settings import InvalidSetting

HELP = "write the errors in a file as CPER records, Redfish entries, QEMU injections or events"


def _command_line(event: Event) -> bytes:
    """Return the command line of ghes_inject.py. Raises NotInjectable, also for characters that a shell would act on where it is pasted."""
    arguments = to_arguments(event)
    if any(escape(word) != word for word in arguments):
        raise NotInjectable(f"an argument has characters that are not printable; `{Format.QMP}` takes the status block as it is")
    return f"ghes_inject.py {shlex.join(arguments)}\n".encode()


WRITERS: Final[dict[Format, Callable[[Event], bytes]]] = {
    Format.EVENT: lambda event: escape_json(event_json(event)) + b"\n",
    Format.CPER: write_record,
    Format.REDFISH: lambda event: escape_json(to_json(write_redfish(event))) + b"\n",
    Format.QMP: lambda event: to_qmp(event).encode() + b"\n",
    Format.QEMU_ARGUMENT: lambda event: to_argument(event).encode() + b"\n",
    Format.GHES_INJECT: _command_line,
}
"""A record is binary, and several follow each other; of all others there is one to a line."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Write the errors that `import` finds in files on standard output, in a format that other tools take. What cannot be read, or not"
        " be written in that format, is named on standard error, and the rest goes on: exit 0: all was written; 2: something was not."
    )
    add_reading(command)
    command.add_argument(
        "--to", required=True, choices=[form.value for form in WRITERS], metavar="FORMAT", help="the format: " + ", ".join(WRITERS)
    )


def run(options: Namespace) -> int:
    if Format(options.to) is Format.CPER and sys.stdout.isatty():
        raise InvalidSetting(f"`--to {options.to}` writes binary data, which a terminal cannot show: redirect standard output to a file")
    told, complete = told_of(options), True
    for path in options.files:
        try:
            complete &= _export(path, options, told)
        except Refused as refused:
            complete = _miss(path, "", refused.problem.detail)
    return 0 if complete else BAD_INPUT


def _export(path: str, options: Namespace, told: Told) -> bool:
    """Write the errors of a file; whether everything in it could be read and written."""
    write, complete, attempts = WRITERS[Format(options.to)], True, Attempts(warn_of_defect)
    with opened(path) as stream, progress(size_of(path), sys.stderr) as shown:
        for item in found(Source(stream, own_path(path), shown.taken), options):
            if isinstance(item, Unread):
                complete = _miss(path, place_words(item.place), item.reason)
            if not isinstance(item, Reading):
                continue
            try:
                write_bytes(attempts.call(_write, write, item, told))
            except Refused as refused:
                complete = _miss(path, place_words(item.place), refused.problem.detail)
                continue
            shown.answered()
    return complete


def _write(write: Callable[[Event], bytes], reading: Reading, told: Told) -> bytes:
    """Return an error in the format. Raises Refused where that has no place for it."""
    try:
        return write(notified(told, reading).event)
    except MalformedBytes as error:
        raise Refused(unwritable(f"byte {error.offset}, `{error.field}`: {error.detail}")) from None
    except ValueError as error:
        raise Refused(unwritable(str(error))) from None


def _miss(path: str, where: str, reason: str) -> bool:
    warn(f"not written: {path}{', ' if where else ''}{where}: {reason}")
    return False
