"""Command `show`: one stored decision."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Final

from ras_triage.service.api.times import rfc3339
from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import BAD_INPUT, note, print_page, warn, write_json, write_original
from ras_triage.service.cli.server_options import add_server, call_service

if TYPE_CHECKING:
    from ras_triage.service.client import Client, Summary


_SHOWN: Final = 10
"""Candidates that an ambiguous id lists."""
_SCANNED: Final = 20_000
"""Decisions among which an id is looked for."""
_ID: Final = re.compile("[0-9a-f][0-9a-f-]*")
_CHARACTERS: Final = 36
_TIME_DIGITS: Final = 12
"""Hexadecimal digits of the time in an id, in milliseconds since 1970 (UUID version 7, RFC 9562 5.7)."""
_SLACK_MS: Final = 2000
"""Largest difference between the time in an id and that of its decision."""
_MAX_MS: Final = 253_402_300_799_999
"""End of the year 9999."""


def configure(command: ArgumentParser) -> None:
    command.description = "Show a decision that a service stores, in the layout of `decide`. The beginning of its id is enough."
    add_examples(command, "ras-triage show 0192f0c1-7c5e-7b7e-9d3c-1f6a2b3c4d5e", "ras-triage show --event 0192f0c1-7c5e > event.json")
    command.add_argument("id", metavar="ID", type=_identity, help="id of the decision, or its beginning")
    command.add_argument("--event", action="store_true", help="print the event instead, byte for byte as received")
    add_json(command)
    add_server(command)


def _identity(text: str) -> str:
    if not text:
        raise ArgumentTypeError("empty id; expected the id of a decision, or its beginning")
    return text


def run(options: Namespace) -> int:
    return call_service(options, lambda client: _show(client, options))


def _show(client: Client, options: Namespace) -> int:
    candidates, complete = _candidates(client, options.id)
    if not complete:
        note(f"only the newest {_SCANNED:,} decisions of the time in `{options.id}` were searched; more of the id narrows the time")
    if len(candidates) > 1:
        warn(f"`{options.id}` is the beginning of several ids; expected more of one of them:")
        for summary in candidates[:_SHOWN]:
            note(f"  {summary.id}  {summary.decided_at}  {summary.action}  {summary.source or 'no source'}")
        if len(candidates) > _SHOWN:
            note("  ... and more")
        return BAD_INPUT
    identity = candidates[0].id if candidates else options.id
    if options.event:
        write_original(client.event(identity))
    elif options.json:
        write_json(client.get_json(identity))
    else:
        from ras_triage.service.cli.pages.decision import decision_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(decision_page(client.get(identity)))
    return 0


def _candidates(client: Client, beginning: str) -> tuple[list[Summary], bool]:
    """Return the newest decisions whose id has this prefix, up to one more than are shown, and whether all were searched.

    Empty for a complete id, and for text that cannot begin an id.
    """
    text = beginning.lower()
    if len(text) >= _CHARACTERS or _ID.fullmatch(text) is None:
        return [], True
    digits = text.replace("-", "")
    first, last = (int(digits[:_TIME_DIGITS].ljust(_TIME_DIGITS, filling), 16) for filling in "0f")
    if first > _MAX_MS:
        return [], True
    since, until = rfc3339(max(first - _SLACK_MS, 0)), rfc3339(min(last + _SLACK_MS, _MAX_MS))
    found: list[Summary] = []
    for scanned, one in enumerate(client.decisions(page_size=1000, since=since, until=until)):
        if scanned == _SCANNED:
            return found, False
        if one.id.startswith(text) or one.id.replace("-", "").startswith(text):
            found.append(one)
        if len(found) > _SHOWN:
            break
    return found, True
