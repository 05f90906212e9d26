"""Command `query`: list and statistics of stored decisions."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from ras_triage.service.cli.filter_options import FILTER_OPTIONS, add_filters, filters_of
from ras_triage.service.cli.options import add_examples
from ras_triage.service.cli.output import is_terminal, print_page, warn
from ras_triage.service.cli.server_options import add_server, call_service
from ras_triage.service.config.settings import InvalidSetting

if TYPE_CHECKING:
    from ras_triage.service.client import Client

_LARGEST_PAGE: Final = 1000
_SHOWN: Final = 20
"""Decisions that a person is shown without `--limit`."""


def configure(command: ArgumentParser) -> None:
    command.description = (
        "List the decisions that a service stores, newest first, one per line, or count them over time with --stats. On a terminal the list"
        " is a table. Elsewhere it has columns with tabs between them: time, id, action, source, notification, severity, sections,"
        " addresses, policy."
    )
    add_examples(
        command,
        "ras-triage query --source node-17 --since 1h",
        "ras-triage query --action panic --since 7d --format csv > panics.csv",
        "ras-triage query --stats --group-by action,policy --bucket day",
    )
    command.add_argument("--limit", type=_limit, metavar="N", help="maximum number of decisions (default: 20; as JSON or CSV: all)")
    command.add_argument("--stats", action="store_true", help="count the decisions instead of listing them")
    command.add_argument("--group-by", metavar="FIELD[,FIELD...]", help="with --stats: group by up to three fields (default: action)")
    command.add_argument(
        "--bucket", metavar="SPAN", help="with --stats: minute, hour, day, a number of seconds, or all: no buckets (default: hour)"
    )
    forms = command.add_mutually_exclusive_group()
    forms.add_argument("--format", choices=["table", "json", "ndjson", "csv"], help="output format (default: table or columns, see above)")
    forms.add_argument("--json", action="store_true", help="the same as --format ndjson, with --stats as --format json")
    add_filters(command)
    add_server(command)


def run(options: Namespace) -> int:
    if not options.stats and (options.group_by or options.bucket):
        raise InvalidSetting("`--group-by` and `--bucket` need `--stats`")
    if options.stats and options.limit:
        raise InvalidSetting("`--limit` and `--stats` exclude each other")
    parameters = {**FILTER_OPTIONS, "group_by": "--group-by", "bucket": "--bucket"}
    return call_service(options, lambda client: _count(client, options) if options.stats else _list(client, options), parameters=parameters)


def _format(options: Namespace) -> str | None:
    """Return the output format; None: columns."""
    if options.json:
        return "json" if options.stats else "ndjson"
    return options.format or ("table" if is_terminal() else None)


def _list(client: Client, options: Namespace) -> int:
    form = _format(options)
    limit = options.limit or (_SHOWN if form in (None, "table") else None)
    size = _LARGEST_PAGE if limit is None else min(limit + 1, _LARGEST_PAGE)
    found = client.decisions(page_size=size, **filters_of(options))
    decisions = islice(found, limit)
    if form == "table":
        from ras_triage.service.cli.pages.decision_list import list_page  # noqa: PLC0415 - other formats start faster without it

        print_page(partial(list_page, list(decisions)))
    else:
        from ras_triage.service.cli.list_formats import write_decisions  # noqa: PLC0415 - with the client

        write_decisions(decisions, form)
    if options.limit is None and limit is not None and next(found, None) is not None:
        warn(f"the newest {limit} decisions are shown; more with `--limit`")
    return 0


def _count(client: Client, options: Namespace) -> int:
    group_by = (options.group_by or "action").split(",")
    stats = client.stats(group_by=group_by, bucket=options.bucket or "hour", **filters_of(options))
    form = _format(options)
    if form == "table":
        from ras_triage.service.cli.pages.decision_list import stats_page  # noqa: PLC0415 - other formats start faster without it

        print_page(stats_page(stats))
    else:
        from ras_triage.service.cli.list_formats import write_counts  # noqa: PLC0415 - with the client

        write_counts(stats, form)
    return 0


def _limit(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"invalid limit `{text}`; expected a number above 0")
    return int(text)
