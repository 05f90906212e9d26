"""Command `export`: conversion of errors to the formats of other tools."""

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
from ras_triage.models.formats.qemu.ghes_inject import to_arguments
from ras_triage.models.formats.qemu.injection import NotInjectable, to_argument, to_qmp
from ras_triage.models.formats.redfish import write_redfish
from ras_triage.models.formats.results import FoundError, UnreadableRecord, event_of
from ras_triage.service.api.escaping import escape, escape_json
from ras_triage.service.api.problems import ProblemError, unwritable
from ras_triage.service.cli.commands.import_ import add_input_options, file_path, file_size, import_options_of, read_input
from ras_triage.service.cli.inputs import open_input
from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import BAD_INPUT, warn, warn_of_defect, write_bytes
from ras_triage.service.cli.progress import progress
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.results import position_text
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_notification
from ras_triage.service.importing.source import ImportSource


def _command_line(event: Event) -> bytes:
    """Return the command line of ghes_inject.py. Raises NotInjectable, also for control characters, which a shell may act on."""
    arguments = to_arguments(event)
    if any(escape(word) != word for word in arguments):
        raise NotInjectable(f"an argument has characters that are not printable; use `--to {InputFormat.QMP}`, which carries the bytes")
    return f"ghes_inject.py {shlex.join(arguments)}\n".encode()


GHES_INJECT: Final = "ghes_inject"
"""The format of command lines of QEMU's ghes_inject.py, which cannot be imported."""

WRITERS: Final[dict[str, Callable[[Event], bytes]]] = {
    InputFormat.EVENT: lambda event: escape_json(event_json(event)) + b"\n",
    InputFormat.CPER: write_record,
    InputFormat.REDFISH: lambda event: escape_json(to_json(write_redfish(event))) + b"\n",
    InputFormat.QMP: lambda event: to_qmp(event).encode() + b"\n",
    InputFormat.QEMU_ARGUMENT: lambda event: to_argument(event).encode() + b"\n",
    GHES_INJECT: _command_line,
}
"""CPER records are binary and follow each other; every other format has one error per line."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Write the errors in files to standard output in the format of another tool. Records that cannot be read, or not be written in that"
        " format, are listed on standard error and skipped. Exit status: 0 everything was exported; 2 something was not."
    )
    add_examples(command, "ras-triage export --to cper dmesg.txt > records.cper", "ras-triage export --to qmp record.cper")
    add_input_options(command)
    command.add_argument(
        "--to", required=True, choices=[str(form) for form in WRITERS], metavar="FORMAT", help="output format: " + ", ".join(WRITERS)
    )


def run(options: Namespace) -> int:
    if options.to == InputFormat.CPER and sys.stdout.isatty():
        raise InvalidSetting(f"`--to {options.to}` writes binary data: redirect standard output to a file")
    import_options, complete = import_options_of(options), True
    for path in options.files:
        try:
            complete &= _export(path, options, import_options)
        except ProblemError as refused:
            complete = _report_skipped(path, "", refused.problem.detail)
    return 0 if complete else BAD_INPUT


def _export(path: str, options: Namespace, import_options: ImportOptions) -> bool:
    """Write the errors of a file. Return whether everything in it could be read and written."""
    write, complete, attempts = WRITERS[options.to], True, Attempts(warn_of_defect)
    with open_input(path) as stream, progress(file_size(path), sys.stderr) as shown, attempts.installed():
        source = ImportSource(stream, file_path(path), shown.bytes_read, text_field=options.text_field)
        for item in read_input(source, options, attempts):
            if isinstance(item, UnreadableRecord):
                complete = _report_skipped(path, position_text(item.place), item.reason)
            if not isinstance(item, FoundError):
                continue
            try:
                write_bytes(attempts.call(_write, write, item, import_options))
            except ProblemError as refused:
                complete = _report_skipped(path, position_text(item.place), refused.problem.detail)
                continue
            shown.item_done()
    return complete


def _write(write: Callable[[Event], bytes], error: FoundError, import_options: ImportOptions) -> bytes:
    """Return an error in the format. Raises ProblemError if the format cannot represent it."""
    try:
        return write(event_of(apply_notification(import_options, error)))
    except MalformedBytes as fault:
        raise ProblemError(unwritable(f"byte {fault.offset}, `{fault.field}`: {fault.detail}")) from None
    except ValueError as fault:
        raise ProblemError(unwritable(str(fault))) from None


def _report_skipped(path: str, where: str, reason: str) -> bool:
    warn(f"not exported: {path}{', ' if where else ''}{where}: {reason}")
    return False
