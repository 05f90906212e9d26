"""`syndrome`: what a value means, and what KVM makes of one."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from ras_triage.service.api.syndromes import SyndromeRequest
from ras_triage.service.cli.options import add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import answer_lines, show, write_json
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.engine.syndromes import answer_syndromes, read_syndrome_request, syndromes_json

HELP = "take an ESR or VSESR value apart, or ask what KVM makes of it"


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Take an ESR_ELx or VSESR_EL2 value apart. With --kernel, --policy or --no-ras, say what comes of injecting it as a virtual SError."
    )
    command.add_argument("value", metavar="VALUE", help="such as 0xbe000411; with --ndjson a file, or - for standard input")
    command.add_argument("--kind", choices=["esr", "vsesr"], help="how to take the value (default: what fits VSESR_EL2 is one)")
    command.add_argument("--kernel", metavar="RELEASE", help="inject it as a virtual SError on a host with this kernel")
    command.add_argument("--policy", metavar="NAME", help="inject it under this policy")
    command.add_argument("--no-ras", action="store_true", help="inject it on a host without the RAS extension")
    command.add_argument("--ndjson", action="store_true", help="one question per line in, one answer or problem per line out")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.ndjson:
        if options.kind or options.kernel or options.policy or options.no_ras:
            raise InvalidSetting("with `--ndjson` every line says for itself how it is meant")
        return answer_lines(
            options.value, settings.max_body_bytes, lambda line: syndromes_json(answer_syndromes(read_syndrome_request(line), settings))
        )
    answer = answer_syndromes(_syndrome_request(options), settings)
    if options.json:
        write_json(syndromes_json(answer))
    else:
        show("syndrome_page", answer)
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
