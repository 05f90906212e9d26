"""Command `store`: check, repair and purge of a store."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import closing
from math import isfinite
from pathlib import Path
from typing import Final

from pydantic import ByteSize, TypeAdapter, ValidationError
from pydantic_core import to_json

from ras_triage.service.api.problems import ProblemError
from ras_triage.service.api.times import now_ms, rfc3339
from ras_triage.service.cli.counts import plural
from ras_triage.service.cli.options import add_config, add_examples, add_json
from ras_triage.service.cli.output import warn, write_json, write_text
from ras_triage.service.config.loading import load_settings
from ras_triage.service.config.settings import InvalidSetting
from ras_triage.service.config.store_address import sqlite_path
from ras_triage.service.engine.evaluation import EventDocument, parse_event
from ras_triage.service.engine.retention import AT_ONCE_BYTES, portion
from ras_triage.service.store.maintenance.check import EventFields, Finding
from ras_triage.service.store.maintenance.offline import CheckReport, accept_loss, check
from ras_triage.service.store.port import Loss, StoreError
from ras_triage.service.store.sqlite import SqliteStore

DAMAGED: Final = 1
"""Exit status: damage or loss."""

_DAY_MS: Final = 24 * 60 * 60 * 1000


def configure(command: ArgumentParser) -> None:
    command.description = "Check, repair and purge a store. Only `purge` works while a service has the store open."
    add_examples(
        command,
        "ras-triage store check --store sqlite:////var/lib/ras-triage/store.db",
        "ras-triage store purge --older-than 90",
    )
    actions = command.add_subparsers(required=True, dest="action", metavar="ACTION")
    checking = actions.add_parser(
        "check",
        help="verify every row, column and index",
        description="Verify every row, column and index. Exit status: 0 no damage, or repaired without loss; 1 damage or loss; "
        "2 not checked: no store, in use, or the disk cannot be read.",
    )
    checking.add_argument("--repair", action="store_true", help="copy all valid rows to a new file; the old file is kept beside it")
    _add_store(checking)
    add_json(checking)
    accepting = actions.add_parser(
        "accept-loss",
        help="let a service start although committed decisions are missing",
        description="Let a service start although committed decisions are missing. The loss is recorded in the store.",
    )
    _add_store(accepting)
    add_json(accepting)
    purging = actions.add_parser(
        "purge",
        help="delete the oldest decisions",
        description="Delete the oldest decisions, record the purge, and return the space to the file system; works on a full disk, too.",
    )
    limit = purging.add_mutually_exclusive_group(required=True)
    limit.add_argument("--older-than", type=_days, metavar="DAYS", help="purge decisions that are older")
    limit.add_argument(
        "--larger-than", type=_bytes, metavar="BYTES", help="purge the oldest decisions until the rest takes less, such as 2GiB"
    )
    _add_store(purging)


def _add_store(command: ArgumentParser) -> None:
    command.add_argument("--store", metavar="URL", help="store, sqlite:///PATH (default: see `ras-triage config`)")
    add_config(command)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not (isfinite(days) and days >= 0):
        raise ArgumentTypeError(f"invalid number of days `{text}`; expected a number of at least 0")
    return days


def _bytes(text: str) -> int:
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ArgumentTypeError(f"invalid size `{text}`; expected bytes such as 1000000 or 2GiB") from None


def run(options: Namespace) -> int:
    actions: dict[str, Callable[[Namespace, Path], int]] = {"check": _check, "accept-loss": _accept_loss, "purge": _purge}
    try:
        return actions[options.action](options, _path(options))
    except StoreError as error:
        raise InvalidSetting(str(error)) from None


def _path(options: Namespace) -> Path:
    """Return the store file that the options name. Raises InvalidSetting."""
    store = load_settings({"store": options.store}, options.config).settings.store
    path = sqlite_path(store)
    if path is None:
        raise InvalidSetting(f"`{store}` is not a file; use `--store sqlite:///PATH`")
    if not path.exists():
        raise InvalidSetting(f"no store at `{path}`")
    return path


# check


def _check(options: Namespace, path: Path) -> int:
    report = check(path, read_stored_event, repair=options.repair, at_ms=now_ms())
    repaired = report.set_aside is not None
    sound = report.total == 0 or (repaired and not any(_remains(finding) for finding in report.findings) and not report.lost)
    if options.json:
        write_json(to_json(_described(path, report, sound=sound)))
    else:
        _print(path, report)
    return 0 if sound else DAMAGED


def _remains(finding: Finding) -> bool:
    """Return whether a repair does not restore what a finding is about."""
    return finding.kind in ("lost", "event_lost", "incomplete")


def read_stored_event(data: bytes) -> EventFields | None:
    """Return the columns that are derived from an event; None for an event that this release refuses."""
    try:
        keys = parse_event(EventDocument(data)).keys
    except ProblemError:
        return None
    return EventFields(keys.event_id, keys.repeat_key, keys.notification, keys.severity, keys.sections, keys.physical_addresses)


def _described(path: Path, report: CheckReport, *, sound: bool) -> dict[str, object]:
    return {
        "store": str(path),
        "sound": sound,
        "decisions": report.decisions,
        "lost": report.lost,
        "findings": report.findings,
        "more_findings": report.total - len(report.findings),
        "set_aside": report.set_aside,
    }


def _print(path: Path, report: CheckReport) -> None:
    for finding in report.findings:
        write_text(_line(finding))
    if (more := report.total - len(report.findings)) > 0:
        write_text(f"and {more} more")
    outcome = "no damage" if not report.total else f"{plural(report.total, 'problem')}, {plural(report.lost, 'decision')} lost"
    write_text(f"{path}: {plural(report.decisions, 'decision')}, {outcome}")
    if report.set_aside is not None:
        write_text(f"repaired; the old file is {report.set_aside}")


def _line(finding: Finding) -> str:
    """Return a finding as one line."""
    place = "" if finding.sequence is None else f"sequence {finding.sequence}"
    parts = [finding.kind, finding.table, place, finding.id or "", finding.detail]
    return "  ".join(part for part in parts if part)


# accept-loss


def _accept_loss(options: Namespace, path: Path) -> int:
    loss = accept_loss(path, now_ms())
    if options.json:
        write_json(to_json(None if loss is None else _loss_json(loss)))
    elif loss is None:
        write_text("nothing is missing")
    else:
        span = "" if loss.first_sequence is None else f" (sequence {loss.first_sequence} to {loss.last_sequence})"
        write_text(f"loss recorded: {plural(loss.decisions, 'decision')}{span}, {plural(loss.changes, 'other change')}")
    return 0


def _loss_json(loss: Loss) -> dict[str, object]:
    return {
        "at": rfc3339(loss.at_ms),
        "reason": loss.reason,
        "decisions": loss.decisions,
        "first_sequence": loss.first_sequence,
        "last_sequence": loss.last_sequence,
        "changes": loss.changes,
    }


# purge


def _purge(options: Namespace, path: Path) -> int:
    total = 0
    with closing(SqliteStore(path, exclusive=False)) as store:
        at_ms = now_ms()
        while count := _purge_some(store, options, at_ms):
            total += count
            store.maintain(0)
        store.maintain(0)
    warn(f"{plural(total, 'decision')} purged")
    return 0


def _purge_some(store: SqliteStore, options: Namespace, at_ms: int) -> int:
    """Purge a part, so that a running service can write in between. Return the number of decisions."""
    usage = store.usage()
    if options.older_than is not None:
        limit_ms = at_ms - round(min(at_ms, options.older_than * _DAY_MS))
        return store.purge_older(limit_ms, at_ms, portion(usage, AT_ONCE_BYTES))
    excess = usage.live_bytes - options.larger_than
    return store.purge_larger(options.larger_than, at_ms, portion(usage, min(AT_ONCE_BYTES, excess)))
