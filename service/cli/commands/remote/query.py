"""Command `query`: list and statistics of stored decisions."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from itertools import islice
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from ras_triage.service.cli.filter_options import FILTER_OPTIONS, add_filters, filters_of
from ras_triage.service.cli.options import add_examples, add_json
from ras_triage.service.cli.output import print_page, write_json
from ras_triage.service.cli.server_options import add_server, call_service
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client

_LARGEST_PAGE: Final = 1000


def configure(command: ArgumentParser) -> None:
    command.description = "List the decisions that a service stores, newest first, or count them over time with --stats."
    add_examples(
        command,
        "ras-triage query --source node-17 --since 2026-11-22T00:00:00Z",
        "ras-triage query --stats --group-by action,policy --bucket day",
    )
    command.add_argument("--limit", type=_limit, metavar="N", help="maximum number of decisions (default: 20; with --json: all)")
    command.add_argument("--stats", action="store_true", help="count the decisions instead of listing them")
    command.add_argument("--group-by", metavar="FIELD[,FIELD]", help="with --stats: group by one or two fields (default: action)")
    command.add_argument("--bucket", metavar="SPAN", help="with --stats: minute, hour, day or a number of seconds (default: hour)")
    add_json(command)
    add_filters(command)
    add_server(command)


def run(options: Namespace) -> int:
    if not options.stats and (options.group_by or options.bucket):
        raise InvalidSetting("`--group-by` and `--bucket` need `--stats`")
    if options.stats and options.limit:
        raise InvalidSetting("`--limit` and `--stats` exclude each other")
    parameters = {**FILTER_OPTIONS, "group_by": "--group-by", "bucket": "--bucket"}
    return call_service(options, lambda client: _count(client, options) if options.stats else _list(client, options), parameters=parameters)


def _list(client: Client, options: Namespace) -> int:
    limit = options.limit or (None if options.json else 20)
    decisions = islice(client.decisions(page_size=min(limit or _LARGEST_PAGE, _LARGEST_PAGE), **filters_of(options)), limit)
    if not options.json:
        from ras_triage.service.cli.pages.decision_list import list_page  # noqa: PLC0415 - JSON output starts faster without it

        print_page(list_page(list(decisions)))
        return 0
    from ras_triage.service.client import Summary  # noqa: PLC0415

    summaries = TypeAdapter(Summary)
    for decision in decisions:
        write_json(summaries.dump_json(decision))
    return 0


def _count(client: Client, options: Namespace) -> int:
    group_by = (options.group_by or "action").split(",")
    stats = client.stats(group_by=group_by, bucket=options.bucket or "hour", **filters_of(options))
    if options.json:
        from ras_triage.service.client import Stats  # noqa: PLC0415

        write_json(TypeAdapter(Stats).dump_json(stats))
    else:
        from ras_triage.service.cli.pages.decision_list import stats_page  # noqa: PLC0415

        print_page(stats_page(stats))
    return 0


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"invalid limit `{text}`; expected a number above 0")
    return int(text)
