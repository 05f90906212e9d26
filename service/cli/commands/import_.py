"""Command `import`: errors from kernel logs, CPER files, rasdaemon and others."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import to_json

from ras_triage.models.event import event_json
from ras_triage.models.formats.hest import unpack_table
from ras_triage.models.formats.results import INTERNAL, FoundError, Position, ReaderDefect, UnreadableRecord, event_of
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.commands.decide import notification_type
from ras_triage.service.cli.fail_on import add_fail_on, status_of
from ras_triage.service.cli.inputs import STANDARD_INPUT, open_input, read_all
from ras_triage.service.cli.next_command import require_no_store
from ras_triage.service.cli.options import (
    add_examples,
    add_json,
    add_policy_file,
    add_vmm_file,
    known_policy,
    require_known_kernel,
    settings_of,
)
from ras_triage.service.cli.output import INCOMPLETE, print_page, warn, warn_of_defect, write_json
from ras_triage.service.cli.progress import Progress, progress
from ras_triage.service.cli.server_options import add_server, call_service, given_server_options
from ras_triage.service.cli.submission import SubmittedInput, submitted_input
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.decisions import Result, decide_items, parse_response, result_line
from ras_triage.service.engine.imports.error_groups import ErrorGroups
from ras_triage.service.engine.imports.results import ImportCounts
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_options, read_sources
from ras_triage.service.importing.readers import Found, FoundItem, RawEvent, find_items, read_raw
from ras_triage.service.importing.source import ImportSource

if TYPE_CHECKING:
    from ras_triage.service.client import Client

_MAX_TABLE_BYTES = 1 << 20


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Find the hardware errors in files and decide each. The format is detected from the content; assumptions are listed for each error."
        " Exit status: 0 everything was read and decided; 1 nothing was read, something is listed as not read or not decided,"
        " or the service did not respond; 2 invalid option or table; 3 an action of --fail-on."
    )
    add_examples(
        command,
        "ras-triage import --kernel 6.12.107 dmesg.txt",
        "ras-triage import --summary /var/lib/rasdaemon/ras-mc_event.db",
        "journalctl -k -o json | ras-triage import --json -",
        "ras-triage import --submit --server https://triage:8080 /var/lib/rasdaemon/ras-mc_event.db",
    )
    add_input_options(command)
    command.add_argument("--kernel", metavar="RELEASE", help="kernel release of the machine, such as 6.12.107")
    command.add_argument("--policy", metavar="NAME", help="decide under this policy")
    command.add_argument(
        "--summary", action="store_true", help="count the errors by kind, severity, DIMM or device, page and action instead of showing each"
    )
    add_fail_on(command)
    command.add_argument("--submit", action="store_true", help="send the errors to a service, which decides and stores them")
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)
    add_server(command)


def _formats() -> str:
    return "input format (default: detected): " + ", ".join(InputFormat)


@dataclass(slots=True)
class _Import:
    """One run of the command."""

    options: Namespace
    settings: Settings
    import_options: ImportOptions
    counts: ImportCounts = field(default_factory=ImportCounts)
    groups: ErrorGroups = field(default_factory=ErrorGroups)
    attempts: Attempts = field(default_factory=lambda: Attempts(warn_of_defect))

    @property
    def names_files(self) -> bool:
        return len(self.options.files) > 1

    def show(self, result: Result, path: str) -> None:
        if self.options.summary:
            self.groups.add(result)
            if isinstance(result.item, FoundError):
                return
        if self.options.json:
            write_json(result_line(result, path if self.names_files else None))
            return
        from ras_triage.service.cli.pages import import_results  # noqa: PLC0415 - JSON output starts faster without it

        try:
            print_page(self.attempts.call(import_results.result_page, result, path))
        except ProblemError as refused:
            unreadable = UnreadableRecord(result.item.place, refused.problem.detail, result.item.format)
            print_page(import_results.result_page(Result(unreadable), path))

    def report_unreadable(self, path: str, refused: ProblemError) -> None:
        """Report a file that cannot be opened."""
        unread = UnreadableRecord(Position(), refused.problem.detail, "unknown")
        self.counts.add(unread)
        self.show(Result(unread), path)

    def end(self) -> int:
        if self.options.json:
            groups = {"groups": self.groups.listed()} if self.options.summary else {}
            write_json(to_json({"summary": self.counts.summary(), **groups}))
        else:
            from ras_triage.service.cli.pages import import_results  # noqa: PLC0415

            if self.options.summary:
                print_page(import_results.groups_page(self.groups))
            print_page(import_results.summary_page(self.counts))
        return status_of(self.options, 0 if self.counts.complete else INCOMPLETE, self.counts.actions)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.policy is not None:
        known_policy(options.policy, settings, "--policy")
    require_known_kernel(options.kernel)
    work = _Import(options, settings, import_options_of(options))
    if options.submit:
        return call_service(options, lambda client: _submit(client, work))
    for option in given_server_options(options):
        warn(f"`{option}` has no effect without `--submit`; the errors are decided locally")
    for path in options.files:
        try:
            _decide_file(work, path)
        except ProblemError as refused:
            work.report_unreadable(path, refused)
    return work.end()


def _decide_file(work: _Import, path: str) -> None:
    with open_input(path) as stream, progress(file_size(path), sys.stderr) as shown, work.attempts.installed():
        source = ImportSource(stream, file_path(path), shown.bytes_read, text_field=work.options.text_field)
        items = read_input(source, work.options, work.attempts)
        for result in decide_items(items, work.import_options, work.settings, work.counts, work.attempts):
            work.show(result, path)
            if isinstance(result.item, FoundError):
                shown.item_done()


def add_input_options(command: ArgumentParser) -> None:
    """Add the input files and the options that say how to read them."""
    command.add_argument("files", nargs="+", metavar="FILE", help="input file, or - for standard input")
    command.add_argument("--as", dest="form", choices=[form.value for form in InputFormat], metavar="FORMAT", help=_formats())
    command.add_argument(
        "--text-field", metavar="NAME", help="JSON field with the lines of a log that a collector stored (default: detected)"
    )
    command.add_argument("--hest", metavar="FILE", help="HEST table of the machine, with the notification type of each error source")
    command.add_argument(
        "--notification", type=notification_type, metavar="TYPE", help="notification type of the errors: sea, sei, gsiv, ..."
    )


def import_options_of(options: Namespace) -> ImportOptions:
    """Return the import options of a command. Raises ProblemError."""
    hest = read_sources(unpack_table(read_all(options.hest, _MAX_TABLE_BYTES))) if options.hest else {}
    return ImportOptions(options.notification, getattr(options, "kernel", None), getattr(options, "policy", None), options.text_field, hest)


def read_input(source: ImportSource, options: Namespace, attempts: Attempts) -> Iterator[FoundItem]:
    """Yield the items of a file; the last one is an UnreadableRecord where the file cannot be read to its end."""
    form = None if options.form is None else InputFormat(options.form)
    try:
        require_no_store(source.name or STANDARD_INPUT, source.head)
        for one in find_items(source, form, options.notification):
            yield _read(one, attempts)
    except ProblemError as refused:
        yield UnreadableRecord(Position(offset=0), refused.problem.detail, str(form or "unknown"))
    except OSError as error:
        yield UnreadableRecord(Position(), (error.strerror or "cannot be read").lower(), str(form or "unknown"))
    except Exception as error:
        warn_of_defect(error)
        yield UnreadableRecord(Position(), INTERNAL, str(form or "unknown"))


def _read(one: Found, attempts: Attempts) -> FoundItem:
    if isinstance(one, RawEvent):
        try:
            one = attempts.call(read_raw, one)
        except ProblemError:
            return UnreadableRecord(one.place, INTERNAL, InputFormat.EVENT)
    if isinstance(one, ReaderDefect) and one.error is not None:
        warn_of_defect(one.error)
    return one


def file_path(path: str) -> str | None:
    """Return the path of a file; None for standard input."""
    return None if path == STANDARD_INPUT else path


def file_size(path: str) -> int | None:
    """Return the bytes of a regular file; None if they are not known."""
    return None if path == STANDARD_INPUT or not Path(path).is_file() else Path(path).stat().st_size


# Import through a service


def _submit(client: Client, work: _Import) -> int:
    client.health()
    for path in work.options.files:
        try:
            with submitted_input(path) as source, progress(source.size, sys.stderr) as shown:
                _submit_file(client, work, source, path, shown)
        except ProblemError as refused:
            work.report_unreadable(path, refused)
    return work.end()


def _submit_file(client: Client, work: _Import, source: SubmittedInput, path: str, shown: Progress) -> None:
    """Send the errors of a file and print their decisions, with the other items of the file in order.

    Raises UnexpectedResponse.
    """
    from ras_triage.service.client import UnexpectedResponse  # noqa: PLC0415

    pending: deque[FoundItem | tuple[FoundError, bytes]] = deque()

    submitted = ImportSource(source.stream, file_path(path), shown.bytes_read, text_field=work.options.text_field)

    def events() -> Iterator[bytes]:
        for item in read_input(submitted, work.options, work.attempts):
            work.counts.add(item)
            if not isinstance(item, FoundError):
                pending.append(item)
                continue
            try:
                error = work.attempts.call(
                    apply_options, work.import_options, item, work.settings.default_policy, work.settings.custom_policies
                )
                event = work.attempts.call(event_json, event_of(error))
            except ProblemError:
                pending.append(UnreadableRecord(item.place, INTERNAL, item.format))
                continue
            pending.append((error, event))
            yield event

    for line in client.decide_lines(events(), idempotency_key=_key(source, work)):
        _show_others(work, pending, path)
        sent = pending.popleft()
        assert isinstance(sent, tuple)
        try:
            result = parse_response(*sent, line, work.counts, work.attempts)
        except ValidationError as invalid:
            raise UnexpectedResponse("a result is neither a decision nor a problem") from invalid
        work.show(result, path)
        shown.item_done()
    _show_others(work, pending, path)


def _show_others(work: _Import, pending: deque[FoundItem | tuple[FoundError, bytes]], path: str) -> None:
    while pending and not isinstance(one := pending[0], tuple):
        pending.popleft()
        work.show(Result(one), path)


def _key(source: SubmittedInput, work: _Import) -> str | None:
    """Return a key that is equal for equal content and options; None for a pipe."""
    if source.key is None:
        return None
    options = work.options
    table = options.hest and sha256(read_all(options.hest, _MAX_TABLE_BYTES)).hexdigest()
    parts = [source.key, options.form, options.notification, options.kernel, options.policy, options.text_field, table]
    return sha256(to_json(parts)).hexdigest()
