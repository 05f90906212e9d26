"""Command `decide`: local decision of an event, status block or CPER record."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from ras_triage.models.decision import Decision
from ras_triage.models.event import Event
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.notification import ALIASES, NotificationType, resolve_name
from ras_triage.service.api.event_json import read_event
from ras_triage.service.cli.inputs import count_blocks, read_all, to_event
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, add_vmm_file, settings_of
from ras_triage.service.cli.output import print_page, process_lines, warn, warn_of_defect, write_json
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.responses import decide_event, decision_json, wrap_decision

HELP = "decide an event, a status block or a CPER record"


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decide one error locally. The file has an event in JSON, or a status block or CPER record as bytes, hexadecimal or base64."
    )
    add_examples(
        command,
        "ras-triage decide event.json --compare linux-6.1.176 --compare uniform",
        "ras-triage decide --notification sea --kernel 6.12.107 record.cper",
        "ras-triage decide --ndjson - < events.ndjson",
    )
    command.add_argument("file", metavar="FILE", help="input file, or - for standard input")
    command.add_argument(
        "--notification", type=notification_type, metavar="TYPE", help="notification type: sea, sei, sdei, gsiv, polled, ..."
    )
    command.add_argument("--kernel", metavar="RELEASE", help="kernel release of the machine, such as 6.12.107")
    command.add_argument("--policy", action="append", metavar="NAME", help="decide under this policy; repeat to compare several")
    command.add_argument(
        "--compare", action="append", default=[], metavar="NAME", help="compare with the decision under this policy; may be repeated"
    )
    command.add_argument("--ndjson", action="store_true", help="read one event per line, write one decision or problem per line")
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.ndjson:
        return _decide_lines(options, settings)
    attempts = Attempts(warn_of_defect)
    data = read_all(options.file, settings.max_body_bytes)
    event, has_notification = attempts.call(to_event, data)
    if (blocks := count_blocks(data)) > 1:
        warn(f"the first of {blocks} status blocks is decided; decide all with `ras-triage import`")
    if not has_notification and options.notification is None:
        warn(f"notification type not given, `{DEFAULT_NOTIFICATION.value}` assumed; give it with `--notification`")
    policies = [*(options.policy or [None]), *options.compare]
    decisions = [attempts.call(_decide_under, policy, event, options, settings) for policy in policies]
    if options.json:
        for decision in decisions:
            write_json(wrap_decision(decision_json(decision)))
    elif len(decisions) == 1:
        from ras_triage.service.cli.pages.decision import decision_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(decision_page(decisions[0]))
    else:
        from ras_triage.service.cli.pages.comparison import comparison_page  # noqa: PLC0415

        print_page(comparison_page(decisions))
    return 0


def _decide_under(policy: str | None, event: Event, options: Namespace, settings: Settings) -> Decision:
    return decide_event(_override(event, options.notification, options.kernel, policy), settings)


def _override(event: Event, notification: NotificationType | None, kernel: str | None, policy: str | None) -> Event:
    """Return the event with the values of the options, which take precedence."""
    changes: dict[str, Any] = {}
    if notification is not None:
        changes["notification"] = event.notification.model_copy(update={"type": notification})
    if kernel is not None:
        changes |= {"host": event.host.model_copy(update={"kernel": kernel}), "policy": None}
    if policy is not None:
        changes["policy"] = policy
    return event.model_copy(update=changes) if changes else event


def _decide_lines(options: Namespace, settings: Settings) -> int:
    if options.compare or len(options.policy or []) > 1:
        raise InvalidSetting("`--ndjson`: expected at most one `--policy` and no `--compare`")
    policy = options.policy[0] if options.policy else None

    def answer(line: bytes) -> bytes:
        return wrap_decision(decision_json(_decide_under(policy, read_event(line), options, settings)))

    return process_lines(options.file, settings.max_body_bytes, answer)


def notification_type(text: str) -> NotificationType:
    """Return the notification type of a name. Raises ArgumentTypeError."""
    try:
        return NotificationType(resolve_name(text))
    except ValueError:
        expected = ", ".join(kind.value for kind in NotificationType)
        raise ArgumentTypeError(f"unknown notification type `{text}`; expected one of {expected}, {', '.join(ALIASES)}") from None
