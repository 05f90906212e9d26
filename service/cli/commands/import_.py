"""`import`: what people actually hold, such as kernel logs, CPER files and rasdaemon's database, decided here or by a service."""

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
from ras_triage.models.formats.items import INTERNAL, Broken, FoundError, Position, UnreadableRecord
from ras_triage.service.api.problems import ProblemError
from ras_triage.service.cli.commands.decide import notification_type
from ras_triage.service.cli.inputs import STANDARD_INPUT, opened, read_all
from ras_triage.service.cli.options import add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import BAD_INPUT, draw, warn_of_defect, write_json
from ras_triage.service.cli.progress import Progress, progress
from ras_triage.service.cli.server_options import add_server, ask
from ras_triage.service.cli.submission import SubmittedInput, submitted_input
from ras_triage.service.config.settings import Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.decisions import Result, decide_items, parse_response, result_line
from ras_triage.service.engine.imports.results import ImportCounts, summary_line
from ras_triage.service.importing.format_detection import InputFormat
from ras_triage.service.importing.import_options import ImportOptions, apply_options, read_sources
from ras_triage.service.importing.readers import Found, FoundItem, RawEvent, find_items, read_raw
from ras_triage.service.importing.source import ImportSource

if TYPE_CHECKING:
    from ras_triage.service.client import Client

HELP = "read what people hold: kernel logs, CPER, Redfish, rasdaemon, QEMU, and decide it"

_MAX_TABLE_BYTES = 1 << 20


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Find the hardware errors in files and decide each. The format is told by the content; what a file cannot tell, and was assumed,"
        " is named with every error. Exit 0: all was read; 2: something could not be read, and is listed; 1: the service gave no answer."
    )
    add_reading(command)
    command.add_argument("--kernel", metavar="RELEASE", help="the machine's kernel, such as 6.12.107")
    command.add_argument("--policy", metavar="NAME", help="decide under this policy")
    command.add_argument("--submit", action="store_true", help="have a service decide and keep them")
    add_policy_file(command)
    add_json(command)
    add_server(command)


def _formats() -> str:
    return "the format, where the content does not tell: " + ", ".join(InputFormat)


@dataclass(slots=True)
class _Import:
    """A run of the command."""

    options: Namespace
    settings: Settings
    told: ImportOptions
    tally: ImportCounts = field(default_factory=ImportCounts)
    attempts: Attempts = field(default_factory=lambda: Attempts(warn_of_defect))

    @property
    def names_files(self) -> bool:
        return len(self.options.files) > 1

    def show(self, result: Result, path: str) -> None:
        if self.options.json:
            write_json(result_line(result, path if self.names_files else None))
            return
        from ras_triage.service.cli.pages import import_results  # noqa: PLC0415 - answers in JSON start faster without it

        try:
            draw(self.attempts.call(import_results.result_page, result, path))
        except ProblemError as refused:
            draw(import_results.result_page(Result(UnreadableRecord(result.item.place, refused.problem.detail, result.item.format)), path))

    def miss(self, path: str, refused: ProblemError) -> None:
        """Say that a file cannot be opened; the others are read."""
        unread = UnreadableRecord(Position(), refused.problem.detail, "unknown")
        self.tally.add(unread)
        self.show(Result(unread), path)

    def end(self) -> int:
        if self.options.json:
            write_json(summary_line(self.tally))
        else:
            from ras_triage.service.cli.pages import import_results  # noqa: PLC0415

            draw(import_results.summary_page(self.tally))
        return 0 if self.tally.complete else BAD_INPUT


def run(options: Namespace) -> int:
    work = _Import(options, settings_of(options), told_of(options))
    if options.submit:
        return ask(options, lambda client: _submit(client, work))
    for path in options.files:
        try:
            _decide_file(work, path)
        except ProblemError as refused:
            work.miss(path, refused)
    return work.end()


def _decide_file(work: _Import, path: str) -> None:
    with opened(path) as stream, progress(size_of(path), sys.stderr) as shown:
        source = ImportSource(stream, own_path(path), shown.taken)
        for result in decide_items(found(source, work.options), work.told, work.settings, work.tally, work.attempts):
            work.show(result, path)
            if isinstance(result.item, FoundError):
                shown.answered()


def add_reading(command: ArgumentParser) -> None:
    """The files, and what is known of them."""
    command.add_argument("files", nargs="+", metavar="FILE", help="a file, or - for standard input")
    command.add_argument("--as", dest="form", choices=[form.value for form in InputFormat], metavar="FORMAT", help=_formats())
    command.add_argument("--hest", metavar="FILE", help="the machine's HEST table, which tells how each of its sources notifies")
    command.add_argument("--notification", type=notification_type, metavar="TYPE", help="how the errors were notified: sea, sei, gsiv, ...")


def told_of(options: Namespace) -> ImportOptions:
    """What is known of the files. Raises Refused."""
    hest = read_sources(read_all(options.hest, _MAX_TABLE_BYTES)) if options.hest else {}
    return ImportOptions(options.notification, getattr(options, "kernel", None), getattr(options, "policy", None), hest)


def found(source: ImportSource, options: Namespace) -> Iterator[FoundItem]:
    """What is in a file; where it cannot be read any further, that is the last thing."""
    form = None if options.form is None else InputFormat(options.form)
    attempts = Attempts(warn_of_defect)
    try:
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
    if isinstance(one, Broken) and one.error is not None:
        warn_of_defect(one.error)
    return one


def own_path(path: str) -> str | None:
    return None if path == STANDARD_INPUT else path


def size_of(path: str) -> int | None:
    return None if path == STANDARD_INPUT or not Path(path).is_file() else Path(path).stat().st_size


# Having a service decide


def _submit(client: Client, work: _Import) -> int:
    client.health()
    for path in work.options.files:
        try:
            with submitted_input(path) as source, progress(source.size, sys.stderr) as shown:
                _submit_file(client, work, source, path, shown)
        except ProblemError as refused:
            work.miss(path, refused)
    return work.end()


def _submit_file(client: Client, work: _Import, source: SubmittedInput, path: str, shown: Progress) -> None:
    """Send the errors of a file, and pair them with their answers; what is no error keeps its place among them.

    Raises UnexpectedAnswer.
    """
    from ras_triage.service.client import UnexpectedAnswer  # noqa: PLC0415

    waiting: deque[FoundItem | tuple[FoundError, bytes]] = deque()

    def events() -> Iterator[bytes]:
        for item in found(ImportSource(source.stream, own_path(path), shown.taken), work.options):
            work.tally.add(item)
            if not isinstance(item, FoundError):
                waiting.append(item)
                continue
            try:
                reading = work.attempts.call(apply_options, work.told, item, work.settings.default_policy, work.settings.custom)
                event = work.attempts.call(event_json, reading.event)
            except ProblemError:
                waiting.append(UnreadableRecord(item.place, INTERNAL, item.format))
                continue
            waiting.append((reading, event))
            yield event

    for line in client.decide_lines(events(), idempotency_key=_key(source, work)):
        _show_others(work, waiting, path)
        sent = waiting.popleft()
        assert isinstance(sent, tuple)
        try:
            result = parse_response(*sent, line, work.tally, work.attempts)
        except ValidationError as error:
            raise UnexpectedAnswer("an answer is neither a decision nor a problem") from error
        work.show(result, path)
        shown.answered()
    _show_others(work, waiting, path)


def _show_others(work: _Import, waiting: deque[FoundItem | tuple[FoundError, bytes]], path: str) -> None:
    while waiting and not isinstance(one := waiting[0], tuple):
        waiting.popleft()
        work.show(Result(one), path)


def _key(source: SubmittedInput, work: _Import) -> str | None:
    """The same for the same file read in the same way."""
    if source.key is None:
        return None
    options = work.options
    table = options.hest and sha256(read_all(options.hest, _MAX_TABLE_BYTES)).hexdigest()
    told = [source.key, options.form, options.notification, options.kernel, options.policy, table]
    return sha256(to_json(told)).hexdigest()
