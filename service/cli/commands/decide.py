"""`decide`: an event, a status block or a CPER record, decided here."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import Any

from ras_triage.models.decision import Decision
from ras_triage.models.event import Event
from ras_triage.models.formats.record_context import DEFAULT_NOTIFICATION
from ras_triage.models.notification import NotificationType
from ras_triage.service.api.event_json import read_event
from ras_triage.service.cli.inputs import read_all, to_event
from ras_triage.service.cli.options import add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import answer_lines, show, warn, warn_of_defect, write_json
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.responses import decide_event, decision_json, wrap_decision

HELP = "decide an event, a status block or a CPER record"


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decide an event. The file may be an event in JSON, a status block or a CPER record, as bytes, hexadecimal or base64."
    )
    command.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    command.add_argument(
        "--notification", type=notification_type, metavar="TYPE", help="how it was notified: sea, sei, sdei, gsiv, polled, ..."
    )
    command.add_argument("--kernel", metavar="RELEASE", help="the machine's kernel, such as 6.12.107")
    command.add_argument("--policy", action="append", metavar="NAME", help="decide under this policy; several are shown side by side")
    command.add_argument("--compare", action="append", default=[], metavar="NAME", help="show this policy's decision beside the first")
    command.add_argument("--ndjson", action="store_true", help="one event per line in, one decision or problem per line out")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.ndjson:
        return _decide_lines(options, settings)
    attempts = Attempts(warn_of_defect)
    event, notified = attempts.call(to_event, read_all(options.file, settings.max_body_bytes))
    if not notified and options.notification is None:
        warn(f"the file does not say how it was notified: taken as `{DEFAULT_NOTIFICATION.value}`")
    policies = [*(options.policy or [None]), *options.compare]
    decisions = [attempts.call(_decide_under, policy, event, options, settings) for policy in policies]
    if options.json:
        for decision in decisions:
            write_json(wrap_decision(decision_json(decision)))
    elif len(decisions) == 1:
        show("decision_page", decisions[0])
    else:
        show("comparison_page", decisions)
    return 0


def _decide_under(policy: str | None, event: Event, options: Namespace, settings: Settings) -> Decision:
    return decide_event(_override(event, options.notification, options.kernel, policy), settings)


def _override(event: Event, notification: NotificationType | None, kernel: str | None, policy: str | None) -> Event:
    """The event as the options want it: what is said on the command line outranks what the event says."""
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
        raise InvalidSetting("`--ndjson` decides every line under one policy")
    policy = options.policy[0] if options.policy else None

    def answer(line: bytes) -> bytes:
        return wrap_decision(decision_json(_decide_under(policy, read_event(line), options, settings)))

    return answer_lines(options.file, settings.max_body_bytes, answer)


def notification_type(text: str) -> NotificationType:
    """A notification type from its name. Raises ArgumentTypeError."""
    try:
        return NotificationType("external" if text == "irq" else text)
    except ValueError:
        raise ArgumentTypeError(f"`{text}` is none of {', '.join(kind.value for kind in NotificationType)}, irq") from None
