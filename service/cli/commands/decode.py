"""Command `decode`: fields of a status block or CPER record, sources of a HEST."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from pydantic_core import to_json

from ras_triage.models.errors import MalformedBytes
from ras_triage.models.formats.hest import is_table, unpack_table
from ras_triage.policies.error_sources import judge_malformed_table
from ras_triage.service.cli.inputs import read_all, to_bytes
from ras_triage.service.cli.next_command import explained, require_known_signature
from ras_triage.service.cli.option_names import naming_options
from ras_triage.service.cli.options import add_examples, add_json, add_policy_file, settings_of
from ras_triage.service.cli.output import print_page, warn_of_defect, write_json
from ras_triage.service.config.settings import MAX_BODY_BYTES, InvalidSetting
from ras_triage.service.engine.attempts import Attempts
from ras_triage.service.engine.error_sources import decode_hest, hest_policy, judged_response
from ras_triage.service.engine.responses import explain_bytes


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Decode a status block or CPER record: bytes, hexadecimal, base64, or an event that contains one. Of a HEST, list the error "
        "sources, and which of them a kernel reads."
    )
    add_examples(
        command,
        "ras-triage decode record.cper",
        "ras-triage decode --json event.json",
        "ras-triage decode /sys/firmware/acpi/tables/HEST --kernel 6.12.107",
    )
    command.add_argument("file", metavar="FILE", help="input file, or - for standard input")
    command.add_argument("--kernel", metavar="RELEASE", help="HEST: read it as this kernel does (default: the newest known)")
    command.add_argument("--policy", metavar="NAME", help="HEST: read it under this policy")
    command.add_argument("--ram", metavar="FIRST-LAST", action="append", type=_range, help="HEST: addresses that are RAM, may be repeated")
    add_policy_file(command)
    add_json(command)


def run(options: Namespace) -> int:
    data = read_all(options.file, MAX_BODY_BYTES)
    if is_table(table := unpack_table(data)):
        return _decode_table(table, options)
    require_known_signature("decode", options.file, data)
    if options.kernel or options.policy or options.ram:
        raise InvalidSetting("`--kernel`, `--policy` and `--ram` are for a HEST; this is none")
    attempts = Attempts(warn_of_defect)
    with explained("decode", options.file, data):
        decoded = attempts.call(explain_bytes, attempts.call(to_bytes, data))
    if options.json:
        write_json(to_json(decoded))
    else:
        from ras_triage.service.cli.pages.decoded import decoded_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(decoded_page(decoded))
    return 0


def _range(text: str) -> tuple[int, int]:
    """Return the first address and the exclusive end of `FIRST-LAST`. Raises ArgumentTypeError."""
    try:
        first, last = (int(part, 0) for part in text.split("-"))
    except ValueError:
        raise ArgumentTypeError(f"invalid range `{text}`; expected two addresses such as `0x40000000-0x5fffffff`") from None
    return first, last + 1


def _decode_table(table: bytes, options: Namespace) -> int:
    """List the error sources of a HEST, and what a kernel does with each. A malformed table is one that the kernel refuses."""
    with naming_options({"/kernel": "--kernel", "/policy": "--policy"}):
        policy = hest_policy(options.kernel, options.policy, settings_of(options), in_document=True)
    try:
        decoded = decode_hest(table, policy, options.ram or ())
    except MalformedBytes as error:
        decoded = judged_response(judge_malformed_table(error), policy)
    if options.json:
        write_json(to_json(decoded))
    else:
        from ras_triage.service.cli.pages.decoded import error_sources_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(error_sources_page(decoded))
    return 0
