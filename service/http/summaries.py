"""Conversion of summaries, pages and counts to their JSON models."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from ras_triage.models.decision import PolicyRef
from ras_triage.service.api.summaries import BucketJson, PageJson, StatsJson, SummaryJson
from ras_triage.service.api.times import rfc3339
from ras_triage.service.store.port import BucketCount, Cursor, Field, Page, Summary


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


def page_json(page: Page) -> PageJson:
    """Return the JSON model of a page."""
    return PageJson(tuple(map(summary_json, page.decisions)), None if page.next is None else write_cursor(page.next), page.damaged)


def stats_json(counts: list[BucketCount], group_by: tuple[Field, ...], bucket_ms: int) -> StatsJson:
    """Return the JSON model of counts, by bucket."""
    buckets: dict[int, list[BucketCount]] = {}
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
            for start, group in buckets.items()
        ),
    )


def write_cursor(cursor: Cursor) -> str:
    """Return a cursor as text, which is opaque to clients."""
    return urlsafe_b64encode(f"{cursor.decided_at_ms}.{cursor.sequence}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> Cursor:
    """Return the cursor of a text. Raises ValueError."""
    at, _, sequence = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(".")
    cursor = Cursor(int(at), int(sequence))
    if not (0 <= cursor.decided_at_ms < 1 << 53 and 0 <= cursor.sequence < 1 << 53):
        raise ValueError("out of range")
    if write_cursor(cursor) != text:
        raise ValueError("not canonical")  # the decoder ignores characters that are not base64
    return cursor
