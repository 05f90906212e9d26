"""Command `decide`: local decision of an event, status block or CPER record."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Any

from ras_triage.models.decision import Decision
from ras_triage.models.errors import suggestion
from ras_triage.models.event import Event
from ras_triage.models.notification import ALIASES, NotificationType, resolve_name
from ras_triage.policies.alternatives import NOTIFICATION_TYPE
from ras_triage.service.api.event_json import read_event
from ras_triage.service.cli.fail_on import add_fail_on, status_of
from ras_triage.service.cli.inputs import count_blocks, read_all, to_event
from ras_triage.service.cli.next_command import explained, require_known_signature
from ras_triage.service.cli.options import (
    add_examples,
    add_json,
    add_policy_file,
    add_vmm_file,
    known_policy,
    require_known_kernel,
    settings_of,
)
from ras_triage.service.cli.output import print_page, process_lines, warn, warn_of_defect, write_json
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.responses import decide_event, decision_json, wrap_decision
from ras_triage.service.engine.stored.alternatives import alternatives_json, alternatives_of


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decide one error locally. The file has an event in JSON, or a status block or CPER record as bytes, hexadecimal or base64."
        " Exit status: 0 decided; 2 bad input; 3 an action of --fail-on."
    )
    add_examples(
        command,
        "ras-triage decide event.json --compare linux-6.1.176 --compare uniform",
        "ras-triage decide --notification sea --kernel 6.12.107 record.cper",
        "ras-triage decide --what-if --notification sea --kernel 6.12.107 record.cper",
        "ras-triage decide --ndjson - --fail-on panic < events.ndjson",
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
    command.add_argument(
        "--what-if", action="store_true", help="print the actions under every reading of the unknown facts, and the smallest change"
    )
    add_fail_on(command)
    command.add_argument("--ndjson", action="store_true", help="read one event per line, write one decision or problem per line")
    add_policy_file(command)
    add_vmm_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    _require_known_names(options, settings)
    if options.ndjson:
        return _decide_lines(options, settings)
    attempts = Attempts(warn_of_defect)
    data = read_all(options.file, settings.max_body_bytes)
    require_known_signature("decide", options.file, data)
    with explained("decide", options.file, data):
        event = attempts.call(to_event, data)
    if (blocks := count_blocks(data)) > 1:
        warn(f"the first of {blocks} status blocks is decided; decide all with `ras-triage import`")
    if options.notification is None and NOTIFICATION_TYPE in (event.assumed or ()):
        warn(f"notification type not given, `{event.notification.type}` assumed; give it with `--notification`")
    policies = [*(options.policy or [None]), *options.compare]
    if options.what_if:
        return _explore(policies, event, options, settings)
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
    return status_of(options, 0, (decision.action for decision in decisions))


def _explore(policies: Sequence[str | None], event: Event, options: Namespace, settings: Settings) -> int:
    """Print the alternatives under each policy, and return the exit status for the actions with the assumed facts."""
    attempts = Attempts(warn_of_defect)
    answers = [attempts.call(alternatives_of, _with_options(policy, event, options), settings) for policy in policies]
    for found in answers:
        if options.json:
            write_json(alternatives_json(found))
        else:
            from ras_triage.service.cli.pages.alternatives import alternatives_page  # noqa: PLC0415 - JSON output starts faster without it

            print_page(alternatives_page(found))
    return status_of(options, 0, (found.action for found in answers))


def _require_known_names(options: Namespace, settings: Settings) -> None:
    """Raise ProblemError for an option with an unknown policy or kernel, before the input is read."""
    for option, names in (("--policy", options.policy or ()), ("--compare", options.compare)):
        for name in names:
            known_policy(name, settings, option)
    require_known_kernel(options.kernel)


def _decide_under(policy: str | None, event: Event, options: Namespace, settings: Settings) -> Decision:
    return decide_event(_with_options(policy, event, options), settings)


def _with_options(policy: str | None, event: Event, options: Namespace) -> Event:
    return _override(event, options.notification, options.kernel, policy)


def _override(event: Event, notification: NotificationType | None, kernel: str | None, policy: str | None) -> Event:
    """Return the event with the values of the options, which take precedence."""
    changes: dict[str, Any] = {}
    if notification is not None:
        changes["notification"] = event.notification.model_copy(update={"type": notification})
        changes["assumed"] = tuple(field for field in event.assumed or () if field != NOTIFICATION_TYPE) or None
    if kernel is not None:
        changes |= {"host": event.host.model_copy(update={"kernel": kernel}), "policy": None}
    if policy is not None:
        changes["policy"] = policy
    return event.model_copy(update=changes) if changes else event


def _decide_lines(options: Namespace, settings: Settings) -> int:
    if options.compare or options.what_if or len(options.policy or []) > 1:
        raise InvalidSetting("`--ndjson`: expected at most one `--policy`, no `--compare` and no `--what-if`")
    policy = options.policy[0] if options.policy else None

    actions: set[str] = set()

    def answer(line: bytes) -> bytes:
        decision = _decide_under(policy, read_event(line), options, settings)
        actions.add(decision.action)
        return wrap_decision(decision_json(decision))

    return status_of(options, process_lines("decide --ndjson", options.file, settings.max_body_bytes, answer), actions)


def notification_type(text: str) -> NotificationType:
    """Return the notification type of a name. Raises ArgumentTypeError."""
    try:
        return NotificationType(resolve_name(text))
    except ValueError:
        known = [*(kind.value for kind in NotificationType), *ALIASES]
        raise ArgumentTypeError(
            f"unknown notification type `{text}`; expected one of {', '.join(known)}{suggestion(text, known)}"
        ) from None
