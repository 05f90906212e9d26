"""`watch`: decisions as a service makes them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from ras_triage.service.cli.filter_options import add_filters, filters_of
from ras_triage.service.cli.options import add_json
from ras_triage.service.cli.output import draw, warn, write_json
from ras_triage.service.cli.server_options import add_server, ask
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client, Purged, Summary

HELP = "follow the decisions of a service as they are made"


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Follow the decisions of a service, a line each, until interrupted. Where the connection is cut it is taken up again."
    )
    command.add_argument("--after", metavar="EVENT", help="begin behind this place in the stream, as an earlier run told it")
    add_json(command)
    add_filters(command)
    add_server(command)


def run(options: Namespace) -> int:
    from ras_triage.service.client import Retry  # noqa: PLC0415
    from ras_triage.service.client._protocol import can_be_event_id  # noqa: PLC0415

    if options.after is not None and not can_be_event_id(options.after):
        raise InvalidSetting(f"`--after`: `{options.after}` is not the id of an event")
    return ask(options, lambda client: _watch(client, options), Retry(attempts=None))


def _watch(client: Client, options: Namespace) -> int:
    from ras_triage.service.client import WatchedDecision  # noqa: PLC0415

    client.health()  # a service that was never there is told at once; one that goes away is waited for
    tell = _json_teller() if options.json else _tell
    seen = options.after
    try:
        for found in client.watch(last_event_id=options.after, **filters_of(options)):
            seen = found.event_id
            if isinstance(found, WatchedDecision):
                tell(found.decision)
            else:
                _warn(found)
    except KeyboardInterrupt:
        if seen:
            warn(f"`--after {seen}` goes on from here")
        raise
    return 0


def _tell(decision: Summary) -> None:
    from ras_triage.service.cli.pages import decision_list  # noqa: PLC0415

    draw(decision_list.line(decision), soft_wrap=True)


def _json_teller() -> Callable[[Summary], None]:
    from ras_triage.service.client import Summary  # noqa: PLC0415

    summaries = TypeAdapter(Summary)
    return lambda decision: write_json(summaries.dump_json(decision))


def _warn(purged: Purged) -> None:
    warn(f"up to {purged.decisions} decisions were purged before they could be told")
