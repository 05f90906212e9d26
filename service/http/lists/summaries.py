"""Conversion of summaries, pages and counts to their JSON models."""

from __future__ import annotations

from typing import Final

from ras_triage.models.decision import PolicyRef
from ras_triage.service.api.csv_rows import csv_rows
from ras_triage.service.api.summaries import BucketJson, PageJson, StatsJson, SummaryJson
from ras_triage.service.api.times import rfc3339
from ras_triage.service.store.port import BucketCount, Field, Page, Summary


def summary_json(summary: Summary) -> SummaryJson:
    """Return the JSON model of a summary."""
    return SummaryJson(
        summary.id,
        rfc3339(summary.decided_at_ms),
        summary.source,
        summary.event_id,
        summary.event_key,
        PolicyRef(summary.policy, summary.policy_digest),
        summary.action,
        summary.certainty,
        summary.notification,
        summary.severity,
        summary.sections,
        tuple(map(hex, summary.physical_addresses)),
    )


def page_json(page: Page, following: str | None) -> PageJson:
    """Return the JSON model of a page; `following` is the cursor of the next one."""
    return PageJson(tuple(map(summary_json, page.decisions)), following, page.damaged)


def stats_json(counts: list[BucketCount], group_by: tuple[Field, ...], bucket_ms: int, filled: range) -> StatsJson:
    """Return the JSON model of counts, by bucket. `filled`: starts of buckets to include even if they are empty."""
    buckets: dict[int, list[BucketCount]] = {start: [] for start in filled}
    for count in counts:
        buckets.setdefault(count.bucket_ms, []).append(count)
    return StatsJson(
        bucket_ms // 1000,
        group_by,
        tuple(
            BucketJson(
                rfc3339(start),
                sum(count.count for count in group),
                tuple({**dict(zip(group_by, count.group, strict=True)), "count": count.count} for count in group),
            )
            for start, group in sorted(buckets.items())
        ),
    )


_DECISION_COLUMNS: Final = (
    *("id", "decided_at", "source", "event_id", "event_key", "policy", "policy_digest", "action", "certainty"),
    *("notification", "severity", "sections", "physical_addresses"),
)


def decisions_csv(page: PageJson) -> bytes:
    """Return the decisions of a page as CSV, with spaces between several sections or addresses."""
    return csv_rows(_DECISION_COLUMNS, map(_decision_row, page.decisions))


def _decision_row(found: SummaryJson) -> tuple[object, ...]:
    return (
        *(found.id, found.decided_at, found.source, found.event_id, found.event_key, found.policy.name, found.policy.digest),
        *(found.action, found.certainty, found.notification, found.severity),
        " ".join(found.sections),
        " ".join(found.physical_addresses),
    )


def stats_csv(stats: StatsJson) -> bytes:
    """Return counts as CSV, a row for each group of each bucket; an empty bucket has one row without a group."""
    nothing = {"count": 0}
    rows = (
        (bucket.start, *(group.get(name) for name in (*stats.group_by, "count")))
        for bucket in stats.buckets
        for group in bucket.groups or (nothing,)
    )
    return csv_rows(("start", *stats.group_by, "count"), rows)
