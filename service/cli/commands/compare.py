"""Command `compare`: decisions of the errors in files under two policies."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field

from pydantic_core import to_json

from ras_triage.models.event import Event
from ras_triage.models.formats.results import FoundError, UnreadableRecord, event_of
from ras_triage.models.records.block_summary import section_names
from ras_triage.models.records.status_block import parse_block
from ras_triage.service.api.problems import Problem, ProblemError
from ras_triage.service.cli.commands.import_ import add_input_options, file_path, file_size, import_options_of, read_input
from ras_triage.service.cli.inputs import open_input
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, add_vmm_file, known_policy, settings_of
from ras_triage.service.cli.output import INCOMPLETE, print_page, warn, warn_of_defect, write_json
from ras_triage.service.cli.progress import progress
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.imports.results import position_text
from ras_triage.service.engine.replays.differences import ChangeCounter, ComparedEvent, compare_decisions
from ras_triage.service.engine.responses import decide_event, decision_json
from ras_triage.service.importing.import_options import ImportOptions, apply_notification
from ras_triage.service.importing.readers import FoundItem
from ras_triage.service.importing.source import ImportSource


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decide the errors in files under two policies, and count the decisions that differ. Files may have any format that import reads."
        " Exit status: 0 everything was read and decided; 1 something is listed as not read or not decided; 2 invalid option or table."
    )
    add_examples(
        command,
        "ras-triage compare --policy linux-6.1.100 --policy linux-7.3.4 dmesg.txt",
        "ras-triage compare --json --policy linux-6.12.107 --policy uniform /var/lib/rasdaemon/ras-mc_event.db",
    )
    add_input_options(command)
    command.add_argument(
        "--policy",
        action="append",
        required=True,
        metavar="NAME",
        help="policy to decide under; given twice",
    )
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)


@dataclass(slots=True)
class _Comparison:
    """One run of the command."""

    options: Namespace
    settings: Settings
    import_options: ImportOptions
    counter: ChangeCounter = field(default_factory=ChangeCounter)
    unread: int = 0
    """Records that could not be read."""
    attempts: Attempts = field(default_factory=lambda: Attempts(warn_of_defect))

    def compare(self, item: FoundItem, path: str) -> None:
        """Compare the decisions of an item, if it is an error."""
        place = f"{path}, {position_text(item.place)}".removesuffix(", ")
        if isinstance(item, UnreadableRecord):
            self.unread += 1
            warn(f"not read: {place}: {item.reason}")
        if not isinstance(item, FoundError):
            return
        try:
            event = event_of(self.attempts.call(apply_notification, self.import_options, item))
            before, after = (self.attempts.call(self._decide, event, policy) for policy in self.options.policy)
            self.counter.add(self.attempts.call(_describe, event, place), self.attempts.call(compare_decisions, before, after))
        except ProblemError as refused:
            self.refuse(refused.problem, place)

    def refuse(self, problem: Problem, place: str) -> None:
        """Count and name an error that cannot be decided."""
        self.counter.add_failure(problem, place)
        warn(f"not decided: {place}: {problem.detail}")

    def _decide(self, event: Event, policy: str) -> bytes:
        return decision_json(decide_event(event.model_copy(update={"policy": policy}), self.settings))


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if len(options.policy) != 2:
        raise InvalidSetting(
            f"`--policy`: expected two policies, as in `--policy linux-6.1.100 --policy linux-7.3.4`; got {len(options.policy)}"
        )
    policies = [known_policy(name, settings, "--policy") for name in options.policy]
    work = _Comparison(options, settings, import_options_of(options))
    for path in options.files:
        try:
            _compare_file(work, path)
        except ProblemError as refused:
            work.unread += 1
            warn(f"not read: {path}: {refused.problem.detail}")
    changes = work.counter.result()
    if options.json:
        before, after = ({"name": policy.name, "digest": policy.digest} for policy in policies)
        write_json(to_json({"before": before, "after": after, "unread": work.unread, "changes": changes}))
    else:
        from ras_triage.service.cli.pages.changes import changes_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(changes_page(changes, policies[0].name, policies[1].name))
    return INCOMPLETE if work.unread or changes.failed else 0


def _compare_file(work: _Comparison, path: str) -> None:
    with open_input(path) as stream, progress(file_size(path), sys.stderr) as shown, work.attempts.installed():
        source = ImportSource(stream, file_path(path), shown.bytes_read, text_field=work.options.text_field)
        for item in read_input(source, work.options, work.attempts):
            work.compare(item, path)
            if isinstance(item, FoundError):
                shown.item_done()


def _describe(event: Event, place: str) -> ComparedEvent:
    sections = () if event.status_block is None else section_names(parse_block(event.status_block))
    return ComparedEvent(None, place, event.source, event.host.kernel, event.notification.type.value, sections)
