"""`export`: the errors in a file, written in a format that other tools take."""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Final

from pydantic_core import to_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.event import Event, event_json
from ras_triage.models.formats.cper import write_record
from ras_triage.models.formats.items import FoundError, UnreadableRecord
from ras_triage.models.formats.qemu.ghes_inject import to_arguments
from ras_triage.models.formats.qemu.injection import NotInjectable, to_argument, to_qmp
from ras_triage.models.formats.redfish import write_redfish
from ras_triage.service.api.escaping import escape, escape_json
from ras_triage.service.api.problems import ProblemError, unwritable
from ras_triage.service.cli.commands.import_ import add_reading, found, own_path, size_of, told_of
from ras_triage.service.cli.inputs import opened
from ras_triage.service.cli.output import BAD_INPUT, warn, warn_of_defect, write_bytes
from ras_triage.service.cli.progress import progress
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.results import position_text
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_notification
from ras_triage.service.importing.source import ImportSource

HELP = "write the errors in a file as CPER records, Redfish entries, QEMU injections or events"


def _command_line(event: Event) -> bytes:
    """Return the command line of ghes_inject.py. Raises NotInjectable, also for characters that a shell would act on where it is pasted."""
    arguments = to_arguments(event)
    if any(escape(word) != word for word in arguments):
        raise NotInjectable(f"an argument has characters that are not printable; `{InputFormat.QMP}` takes the status block as it is")
    return f"ghes_inject.py {shlex.join(arguments)}\n".encode()


WRITERS: Final[dict[InputFormat, Callable[[Event], bytes]]] = {
    InputFormat.EVENT: lambda event: escape_json(event_json(event)) + b"\n",
    InputFormat.CPER: write_record,
    InputFormat.REDFISH: lambda event: escape_json(to_json(write_redfish(event))) + b"\n",
    InputFormat.QMP: lambda event: to_qmp(event).encode() + b"\n",
    InputFormat.QEMU_ARGUMENT: lambda event: to_argument(event).encode() + b"\n",
    InputFormat.GHES_INJECT: _command_line,
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
    if InputFormat(options.to) is InputFormat.CPER and sys.stdout.isatty():
        raise InvalidSetting(f"`--to {options.to}` writes binary data, which a terminal cannot show: redirect standard output to a file")
    told, complete = told_of(options), True
    for path in options.files:
        try:
            complete &= _export(path, options, told)
        except ProblemError as refused:
            complete = _miss(path, "", refused.problem.detail)
    return 0 if complete else BAD_INPUT


def _export(path: str, options: Namespace, told: ImportOptions) -> bool:
    """Write the errors of a file; whether everything in it could be read and written."""
    write, complete, attempts = WRITERS[InputFormat(options.to)], True, Attempts(warn_of_defect)
    with opened(path) as stream, progress(size_of(path), sys.stderr) as shown:
        for item in found(ImportSource(stream, own_path(path), shown.taken), options):
            if isinstance(item, UnreadableRecord):
                complete = _miss(path, position_text(item.place), item.reason)
            if not isinstance(item, FoundError):
                continue
            try:
                write_bytes(attempts.call(_write, write, item, told))
            except ProblemError as refused:
                complete = _miss(path, position_text(item.place), refused.problem.detail)
                continue
            shown.answered()
    return complete


def _write(write: Callable[[Event], bytes], reading: FoundError, told: ImportOptions) -> bytes:
    """Return an error in the format. Raises Refused where that has no place for it."""
    try:
        return write(apply_notification(told, reading).event)
    except MalformedBytes as error:
        raise ProblemError(unwritable(f"byte {error.offset}, `{error.field}`: {error.detail}")) from None
    except ValueError as error:
        raise ProblemError(unwritable(str(error))) from None


def _miss(path: str, where: str, reason: str) -> bool:
    warn(f"not written: {path}{', ' if where else ''}{where}: {reason}")
    return False
