"""Command `syndrome`: decoding and injection of ESR and VSESR values."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from pydantic_core import to_json

from ras_triage.service.api.syndromes import SyndromeRequest
from ras_triage.service.cli.option_names import naming_options
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import print_page, process_lines, warn, write_json
from ras_triage.service.config.settings import InvalidSetting, Settings
from ras_triage.service.engine.syndromes import answer_syndromes, read_syndrome_request, syndromes_json

_OPTIONS: Final = {"/value": "VALUE", "/vcpu_events/serror_esr": "VALUE", "/kernel": "--kernel", "/policy": "--policy"}

_HEXADECIMAL: Final = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)")


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decode an ESR_ELx or VSESR_EL2 value. "
        "With --kernel, --policy, --no-ras or --guest-serror-masked, predict the result of injecting it as a virtual SError."
    )
    add_examples(command, "ras-triage syndrome 0xbe000c11", "ras-triage syndrome 0xbe000411 --kernel 6.12.107 --no-ras")
    command.add_argument("value", metavar="VALUE", help="value in hexadecimal, 0x may be left out; with --ndjson the input file, or -")
    command.add_argument("--kind", choices=["esr", "vsesr"], help="register (default: vsesr if the value fits VSESR_EL2)")
    command.add_argument("--kernel", metavar="RELEASE", help="inject it as a virtual SError on a host with this kernel")
    command.add_argument("--policy", metavar="NAME", help="inject it under this policy")
    command.add_argument("--no-ras", action="store_true", help="inject it on a host without the RAS extension")
    command.add_argument("--guest-serror-masked", action="store_true", help="inject it into a guest that has SErrors masked (PSTATE.A)")
    command.add_argument("--ndjson", action="store_true", help="read one request per line, write one response or problem per line")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    settings = settings_of(options)
    if options.ndjson:
        if options.kind or _is_injection(options):
            raise InvalidSetting(
                "`--kind`, `--kernel`, `--policy`, `--no-ras` and `--guest-serror-masked` exclude `--ndjson`; "
                "give them as members of each line"
            )
        return process_lines("syndrome --ndjson", options.value, settings.max_body_bytes, lambda line: _answer_line(line, settings))
    with naming_options(_OPTIONS):
        response = answer_syndromes(_syndrome_request(options), settings)
    if options.json:
        write_json(syndromes_json(response))
    else:
        from ras_triage.service.cli.pages.syndrome import syndrome_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(syndrome_page(response))
    return 0


def _answer_line(line: bytes, settings: Settings) -> bytes:
    return syndromes_json(answer_syndromes(read_syndrome_request(line), settings))


def _value(text: str) -> str:
    """Return a value as it is in JSON. Digits alone are hexadecimal, too, as in an oops. Raises InvalidSetting."""
    if (digits := _HEXADECIMAL.fullmatch(text)) is None:
        hint = "read the requests in a file with `--ndjson`" if Path(text).is_file() else "expected hexadecimal digits such as `0xbe000411`"
        raise InvalidSetting(f"`VALUE`: `{text}` is no syndrome; {hint}")
    if text.isdecimal():
        warn(f"`{text}` is read as hexadecimal, {hex(int(text, 16))}")
    return f"0x{digits[1]}"


def _is_injection(options: Namespace) -> bool:
    return options.kernel is not None or options.policy is not None or options.no_ras or options.guest_serror_masked


def _syndrome_request(options: Namespace) -> SyndromeRequest:
    """Return the request that the options stand for."""
    if not _is_injection(options):
        return read_syndrome_request(to_json({"value": _value(options.value), "kind": options.kind}))
    events = {"serror_pending": 1, "serror_has_esr": 1, "serror_esr": _value(options.value)}
    request = {
        "vcpu_events": events,
        "kernel": options.kernel,
        "policy": options.policy,
        "host_ras": False if options.no_ras else None,
        "guest_serror_masked": options.guest_serror_masked or None,
        "kind": options.kind,
    }
    return read_syndrome_request(to_json(request))
