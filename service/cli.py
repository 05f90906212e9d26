"""The command line. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from models.decision import Decision
from models.event import Event
from models.notification import NotificationType
from policies.catalog import UNIFORM, Policy, UnknownPolicy
from policies.choose import find
from service.answers import decide_event, decision_json, envelop, explain, read_event
from service.inputs import DEFAULT_NOTIFICATION, opened, read_all, read_lines, to_bytes, to_event
from service.policy_pages import Difference, PolicyList, PolicyPage, compare, list_policies, page
from service.problems import Problem, Refused, problem_json, too_large, unknown_policy
from service.settings import MAX_BODY_BYTES, InvalidSetting, Settings, read_settings
from service.syndromes import SyndromeRequest, answer_syndromes, read_syndrome_request, syndromes_json
from service.version import installed_version

BAD_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and say how it went: 0 decided, 2 bad input."""
    options = _parser().parse_args(argv)
    _spell_out_what_the_terminal_cannot_show()
    try:
        status: int = options.run(options)
    except InvalidSetting as error:
        print(f"ras-triage: {error}", file=sys.stderr)
        return BAD_INPUT
    except Refused as refused:
        _complain(refused.problem, as_json=getattr(options, "json", False))
        return BAD_INPUT
    except BrokenPipeError:
        _let_go_of_output()
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _spell_out_what_the_terminal_cannot_show() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _let_go_of_output() -> None:
    """Whoever read the output is gone; flushing at exit must not find that out again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(problem: Problem, *, as_json: bool) -> None:
    if as_json:
        print(problem_json(problem).decode(), file=sys.stderr)
        return
    print(f"ras-triage: {problem.title}: {problem.detail}", file=sys.stderr)
    if len(problem.errors) > 1:
        for fault in problem.errors:
            print(f"  {fault.pointer or '/'}: {fault.detail}", file=sys.stderr)


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def _show(name: str, *arguments: Any) -> None:
    """Print one of the pages; what they are drawn with loads only here."""
    from service import render  # noqa: PLC0415 - answers in JSON start faster without it

    console = render.console()
    with console.capture() as drawn:
        console.print(getattr(render, name)(*arguments))
    sys.stdout.write("\n".join(line.rstrip() for line in drawn.get().splitlines()) + "\n")
    sys.stdout.flush()


def _settings(options: Namespace) -> Settings:
    return read_settings(options.policy_file, getattr(options, "default_policy", UNIFORM))


def _find(name: str, settings: Settings) -> Policy:
    try:
        return find(name, settings.custom)
    except UnknownPolicy as error:
        raise Refused(unknown_policy(str(error))) from None


def _decide(options: Namespace) -> int:
    settings = _settings(options)
    if options.ndjson:
        return _decide_lines(options, settings)
    event, notified = to_event(read_all(options.file, settings.max_body_bytes))
    if not notified and options.notification is None:
        print(f"ras-triage: the file does not say how it was notified: taken as `{DEFAULT_NOTIFICATION.value}`", file=sys.stderr)
    policies = [*(options.policy or [None]), *options.compare]
    decisions = [_decide_under(policy, event, options, settings) for policy in policies]
    if options.json:
        for decision in decisions:
            _write(envelop(decision_json(decision)))
    elif len(decisions) == 1:
        _show("decision_page", decisions[0])
    else:
        _show("comparison_page", decisions)
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
        return envelop(decision_json(_decide_under(policy, read_event(line), options, settings)))

    return _answer_lines(options.file, settings.max_body_bytes, answer)


def _answer_lines(path: str, limit: int, answer: Callable[[bytes], bytes]) -> int:
    """Answer each line as it comes; a line that is refused has its problem in its place."""
    status = 0
    with opened(path) as stream:
        for line in read_lines(stream, limit):
            try:
                if line is None:
                    raise Refused(too_large(limit))
                answered = answer(line)
            except Refused as refused:
                answered, status = problem_json(refused.problem), BAD_INPUT
            _write(answered)
    return status


def _syndrome(options: Namespace) -> int:
    settings = _settings(options)
    if options.ndjson:
        if options.kind or options.kernel or options.policy or options.no_ras:
            raise InvalidSetting("with `--ndjson` every line says for itself how it is meant")
        return _answer_lines(
            options.value, settings.max_body_bytes, lambda line: syndromes_json(answer_syndromes(read_syndrome_request(line), settings))
        )
    answer = answer_syndromes(_syndrome_request(options), settings)
    if options.json:
        _write(syndromes_json(answer))
    else:
        _show("syndrome_page", answer)
    return 0


def _syndrome_request(options: Namespace) -> SyndromeRequest:
    """The question that the options ask, as HTTP would be asked it."""
    if options.kernel is None and options.policy is None and not options.no_ras:
        return read_syndrome_request(to_json({"value": options.value, "kind": options.kind}))
    events = {"serror_pending": 1, "serror_has_esr": 1, "serror_esr": options.value}
    asked = {
        "vcpu_events": events,
        "kernel": options.kernel,
        "policy": options.policy,
        "host_ras": not options.no_ras,
        "kind": options.kind,
    }
    return read_syndrome_request(to_json(asked))


def _decode(options: Namespace) -> int:
    decoded = explain(to_bytes(read_all(options.file, MAX_BODY_BYTES)))
    if options.json:
        _write(to_json(decoded))
    else:
        _show("decoded_page", decoded)
    return 0


def _policies(options: Namespace) -> int:
    settings = _settings(options)
    name, answer = _look_up(options, settings)
    if options.json:
        _write(to_json(answer))
    else:
        _show(name, answer)
    return 0


def _look_up(options: Namespace, settings: Settings) -> tuple[str, PolicyList | PolicyPage | Difference]:
    """What was asked for, and the page that shows it."""
    if options.name is None:
        return "policy_list_page", list_policies(settings)
    if options.diff is None:
        return "policy_page", page(_find(options.name, settings))
    return "difference_page", compare(_find(options.name, settings), _find(options.diff, settings))


def _serve(options: Namespace) -> int:
    from service.server import serve  # noqa: PLC0415 - only this command needs a server

    serve(_settings(options), options.host, options.port)
    return 0


def _demo(_: Namespace) -> int:
    from service.demo import INTRODUCTION, ask  # noqa: PLC0415 - only this command needs a server and a client

    _show("demo_page", INTRODUCTION, ask())
    return 0


def _notification(text: str) -> NotificationType:
    try:
        return NotificationType("external" if text == "irq" else text)
    except ValueError:
        raise ArgumentTypeError(f"`{text}` is none of {', '.join(kind.value for kind in NotificationType)}, irq") from None


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise ArgumentTypeError(f"`{text}` is not a port number")
    return int(text)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="ras-triage", description="What Linux on arm64 does with a hardware error, and why.")
    parser.add_argument("--version", action="version", version=f"ras-triage {installed_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_decide(commands.add_parser("decide", help="decide an event, a status block or a CPER record"))
    _add_decode(commands.add_parser("decode", help="show what is in a status block or a CPER record"))
    _add_syndrome(commands.add_parser("syndrome", help="take an ESR or VSESR value apart, or ask what KVM makes of it"))
    _add_policies(commands.add_parser("policies", help="list policies, show one, or compare two"))
    _add_serve(commands.add_parser("serve", help="answer over HTTP"))
    commands.add_parser("demo", help="decide a recorded error under two kernels that disagree").set_defaults(run=_demo)
    return parser


def _add_decide(command: ArgumentParser) -> None:
    command.description = (
        "Decide an event. The file may be an event in JSON, a status block or a CPER record, as bytes, hexadecimal or base64."
    )
    command.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    command.add_argument(
        "--notification", type=_notification, metavar="TYPE", help="how it was notified: sea, sei, sdei, gsiv, polled, ..."
    )
    command.add_argument("--kernel", metavar="RELEASE", help="the machine's kernel, such as 6.12.107")
    command.add_argument("--policy", action="append", metavar="NAME", help="decide under this policy; several are shown side by side")
    command.add_argument("--compare", action="append", default=[], metavar="NAME", help="show this policy's decision beside the first")
    command.add_argument("--ndjson", action="store_true", help="one event per line in, one decision or problem per line out")
    _add_policy_file(command)
    _add_json(command)
    command.set_defaults(run=_decide)


def _add_decode(command: ArgumentParser) -> None:
    command.description = "Show what is in a status block or a CPER record: bytes, hexadecimal, base64, or an event that has one."
    command.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    _add_json(command)
    command.set_defaults(run=_decode)


def _add_syndrome(command: ArgumentParser) -> None:
    command.description = (
        "Take an ESR_ELx or VSESR_EL2 value apart. With --kernel, --policy or --no-ras, say what comes of injecting it as a virtual SError."
    )
    command.add_argument("value", metavar="VALUE", help="such as 0xbe000411; with --ndjson a file, or - for standard input")
    command.add_argument("--kind", choices=["esr", "vsesr"], help="how to take the value (default: what fits VSESR_EL2 is one)")
    command.add_argument("--kernel", metavar="RELEASE", help="inject it as a virtual SError on a host with this kernel")
    command.add_argument("--policy", metavar="NAME", help="inject it under this policy")
    command.add_argument("--no-ras", action="store_true", help="inject it on a host without the RAS extension")
    command.add_argument("--ndjson", action="store_true", help="one question per line in, one answer or problem per line out")
    _add_policy_file(command)
    _add_json(command)
    command.set_defaults(run=_syndrome)


def _add_policies(command: ArgumentParser) -> None:
    command.description = "List the policies, show one flag by flag, or compare two."
    command.add_argument("name", nargs="?", metavar="NAME", help="uniform, linux-<release>, or one of your own")
    command.add_argument("--diff", metavar="OTHER", help="show only what differs from this policy")
    _add_policy_file(command)
    _add_json(command)
    command.set_defaults(run=_policies)


def _add_serve(command: ArgumentParser) -> None:
    command.description = "Answer over HTTP."
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    command.add_argument("--port", default=8080, type=_port, help="port to listen on (default: %(default)s)")
    command.add_argument("--default-policy", default=UNIFORM, metavar="NAME", help="for events that name neither policy nor kernel")
    _add_policy_file(command)
    command.set_defaults(run=_serve)


def _add_policy_file(command: ArgumentParser) -> None:
    command.add_argument("--policy-file", action="append", type=Path, metavar="FILE", help="a policy of your own, in TOML; may be repeated")


def _add_json(command: ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="answer as the HTTP interface does")


if __name__ == "__main__":
    sys.exit(main())
