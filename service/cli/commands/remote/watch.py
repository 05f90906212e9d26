"""Command `watch`: the stream of new decisions."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from ras_triage.service.cli.filter_options import FILTER_OPTIONS, add_filters, filters_of
from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import print_page, warn, write_json
from ras_triage.service.cli.server_options import add_server, call_service
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client, PurgedDecisions, Summary


def configure(command: ArgumentParser) -> None:
    command.description = "Print the decisions of a service as they are made, one per line, until interrupted. Reconnects without a gap."
    add_examples(command, "ras-triage watch --action panic --json", "ras-triage watch --after 4711")
    command.add_argument("--after", metavar="EVENT", help="resume after this event id, which an earlier run printed")
    add_json(command)
    add_filters(command)
    add_server(command)


def run(options: Namespace) -> int:
    from ras_triage.service.client import Retry  # noqa: PLC0415
    from ras_triage.service.client._protocol import can_be_event_id  # noqa: PLC0415

    if options.after is not None and not can_be_event_id(options.after):
        raise InvalidSetting(f"`--after`: invalid event id `{options.after}`; expected printable ASCII")
    return call_service(options, lambda client: _watch(client, options), Retry(attempts=None), FILTER_OPTIONS)


def _watch(client: Client, options: Namespace) -> int:
    from ras_triage.service.client import StreamedDecision  # noqa: PLC0415

    client.health()  # fails at once if there is no service; later failures are retried
    print_decision = _json_printer() if options.json else _print_line
    last_id = options.after
    try:
        for item in client.watch(last_event_id=options.after, **filters_of(options)):
            last_id = item.event_id
            if isinstance(item, StreamedDecision):
                print_decision(item.decision)
            else:
                _warn(item)
    except KeyboardInterrupt:
        if last_id:
            warn(f"resume with `--after {last_id}`")
        raise
    return 0


def _print_line(decision: Summary) -> None:
    from ras_triage.service.cli.pages import decision_list  # noqa: PLC0415

    print_page(decision_list.line(decision), soft_wrap=True)


def _json_printer() -> Callable[[Summary], None]:
    from ras_triage.service.client import Summary  # noqa: PLC0415

    summaries = TypeAdapter(Summary)
    return lambda decision: write_json(summaries.dump_json(decision))


def _warn(purged: PurgedDecisions) -> None:
    warn(f"up to {purged.decisions} decisions were purged before they could be sent")
