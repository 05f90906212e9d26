"""Command `replay`: stored events decided again under another policy."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from time import sleep
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json

from ras_triage.service.cli.filter_options import FILTER_OPTIONS, add_filters, filters_of
from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import INCOMPLETE, is_terminal, note, print_page, warn, write_json
from ras_triage.service.cli.server_options import add_server, call_service

if TYPE_CHECKING:
    from ras_triage.service.client import Client, Replay

_POLL_S: Final = 0.5


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Have a service decide its stored events again under another policy, and count the decisions that change. The replay runs in the"
        " service, and goes on when this command is interrupted. Exit status: 0 done; 1 it failed, was cancelled, or has events that could"
        " not be decided; 2 refused."
    )
    add_examples(
        command,
        "ras-triage replay --after linux-7.3.4 --since 30d",
        "ras-triage replay --before linux-6.1.100 --after linux-7.3.4 --source 'rack7-*' --json",
    )
    command.add_argument("--after", required=True, metavar="NAME", help="policy under which the events are decided again")
    command.add_argument("--before", metavar="NAME", help="policy that it is compared with (default: the stored decisions)")
    add_json(command)
    add_filters(command)
    add_server(command)


def run(options: Namespace) -> int:
    return call_service(options, lambda client: _replay(client, options), parameters=FILTER_OPTIONS)


def _replay(client: Client, options: Namespace) -> int:
    replay = client.create_replay(options.after, before=options.before, **filters_of(options))
    try:
        while replay.state in ("waiting", "running"):
            _show_progress(replay)
            sleep(_POLL_S)
            replay = client.replay(replay.id)
    except KeyboardInterrupt:
        warn(f"replay `{replay.id}` goes on in the service; `GET /v1/replays/{replay.id}` has its results")
        raise
    if options.json:
        write_json(to_json(replay))
    else:
        from ras_triage.service.cli.pages.changes import changes_page  # noqa: PLC0415 - JSON output starts faster without it

        before = "as decided" if replay.before is None else replay.before.name
        print_page(changes_page(replay.changes, before, replay.after.name))
    if replay.state != "done":
        warn(f"replay `{replay.id}`: {replay.state}" + (f": {replay.error}" if replay.error else ""))
    return 0 if replay.state == "done" and not replay.failed else INCOMPLETE


def _show_progress(replay: Replay) -> None:
    if is_terminal():
        total = "" if replay.total is None else f" of {replay.total}"
        note(f"{replay.compared + replay.failed}{total} replayed, {replay.changed} changed")
