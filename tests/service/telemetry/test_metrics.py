"""Metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ras_triage.models.frozen import frozen
from ras_triage.service.http.app import create_app
from ras_triage.service.store.port import StoreSize, StoreUnavailable
from ras_triage.service.telemetry.metrics import Metrics, policy_label
from tests.service.support.application import EVENT, client


@frozen
class Figures:
    queue_entries: int = 3
    queue_bytes: int = 4096
    oldest_unanswered_s: float = 0.25
    last_failure: str | None = None


class Writer:
    def __init__(self, figures: Figures) -> None:
        self.statistics = figures


class Store:
    def __init__(self, size: StoreSize | None) -> None:
        self._size = size

    def size(self) -> StoreSize:
        if self._size is None:
            raise StoreUnavailable("disk I/O error")
        return self._size


FULL = StoreSize(1000, 2_000_000, 1_700_000_000_000, 1_700_000_100_000, 1000)


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"ras_triage_{name}", labels)


def test_requests_are_counted_and_timed_by_template_and_status() -> None:
    metrics = Metrics()
    for duration in (0.0004, 0.004, 7.0):
        metrics.count_request("POST", "/v1/decisions", 201, duration, 100, 200)

    labels = {"method": "POST", "route": "/v1/decisions", "status": "201"}
    assert sample(metrics, "request_duration_seconds_count", **labels) == 3
    assert sample(metrics, "request_duration_seconds_bucket", **labels, le="0.001") == 1
    assert sample(metrics, "request_duration_seconds_bucket", **labels, le="0.005") == 2
    assert sample(metrics, "received_bytes_total") == 300
    assert sample(metrics, "sent_bytes_total") == 600


def test_a_method_of_somebodys_invention_makes_no_label() -> None:
    metrics = Metrics()
    for index in range(10):
        metrics.count_request(f"X{index}", "other", 405, 0.1, 0, 0)

    assert sample(metrics, "request_duration_seconds_count", method="other", route="other", status="405") == 10


def test_refusals_are_counted_by_type() -> None:
    metrics = Metrics()
    metrics.count_problem("urn:ras-triage:problem:conflict")

    assert sample(metrics, "problems_total", type="conflict") == 1


def test_decisions_are_counted_by_action_and_policy_and_repeats_apart() -> None:
    metrics = Metrics()
    metrics.count_decision("panic", "linux-6.12.107")
    metrics.count_decision("panic", "linux-6.12.42")
    metrics.count_decision("signal", "uniform")
    metrics.count_repeat()

    assert sample(metrics, "decisions_total", action="panic", policy="linux-6.12") == 2
    assert sample(metrics, "decisions_total", action="signal", policy="uniform") == 1
    assert sample(metrics, "repeats_total") == 1


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("uniform", "uniform"),
        ("linux-6.12.107", "linux-6.12"),
        ("linux-6.1.x", "linux-6.1"),
        ("linux-7.3", "linux-7.3"),
        ("linux-7.4.0", "linux-other"),
        ("linux-5.999.0", "linux-other"),
        ("ours", "custom"),
        ("linux-", "custom"),
    ],
)
def test_a_policy_counts_under_its_series(name: str, label: str) -> None:
    assert policy_label(name) == label


def test_releases_without_end_make_few_labels() -> None:
    names = [f"linux-{major}.{minor}.{patch}" for major in range(5, 999, 7) for minor in range(0, 999, 13) for patch in (0, 9)]

    assert len(set(map(policy_label, names))) < 10


def test_the_first_panic_and_the_first_defect_are_an_increase() -> None:
    metrics = Metrics()
    assert sample(metrics, "panics_total") == 0
    assert sample(metrics, "problems_total", type="internal") == 0
    assert sample(metrics, "problems_total", type="busy") == 0

    metrics.count_decision("panic", "linux-6.12.107")
    metrics.count_decision("signal", "uniform")
    metrics.count_problem("urn:ras-triage:problem:internal")
    assert sample(metrics, "panics_total") == 1
    assert sample(metrics, "problems_total", type="internal") == 1


def test_items_commits_failures_and_purges_are_counted() -> None:
    metrics = Metrics()
    metrics.count_batch_event("problem")
    metrics.observe_commit(40, 0.003)
    metrics.observe_commit(0, 0.003)
    metrics.count_store_failure(StoreUnavailable("full"))
    metrics.count_purge("age", 500)

    assert sample(metrics, "batch_items_total", outcome="problem") == 1
    assert sample(metrics, "commit_duration_seconds_count") == 1
    assert sample(metrics, "commit_entries_sum") == 40
    assert sample(metrics, "commit_entries_count") == 1
    assert sample(metrics, "store_failures_total", error="StoreUnavailable") == 1
    assert sample(metrics, "purged_decisions_total", reason="age") == 500


def test_the_queue_the_store_and_the_disk_are_read_when_somebody_asks(tmp_path: Path) -> None:
    metrics = Metrics()
    writer = Writer(Figures())
    metrics.set_store_source(writer, Store(FULL), tmp_path)
    assert sample(metrics, "queue_entries") == 3

    writer.statistics = Figures(queue_entries=7, last_failure="disk is full")
    assert sample(metrics, "queue_entries") == 7
    assert sample(metrics, "queue_bytes") == 4096
    assert sample(metrics, "oldest_unanswered_seconds") == 0.25
    assert sample(metrics, "ready") == 0
    assert sample(metrics, "store_decisions") == 1000
    assert sample(metrics, "store_bytes") == 2_000_000
    assert sample(metrics, "store_oldest_timestamp_seconds") == 1_700_000_000
    assert 0 < (sample(metrics, "disk_free_bytes") or 0) <= (sample(metrics, "disk_total_bytes") or 0)


def test_a_store_that_cannot_be_read_leaves_its_own_figures_out_and_no_others(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.set_store_source(Writer(Figures()), Store(None), tmp_path / "gone")

    assert sample(metrics, "store_bytes") is None
    assert sample(metrics, "disk_free_bytes") is None
    assert sample(metrics, "ready") == 1


def test_a_store_in_memory_has_no_disk() -> None:
    metrics = Metrics()
    metrics.set_store_source(Writer(Figures()), Store(StoreSize(0, 0, None, None, 0)), None)

    assert sample(metrics, "disk_free_bytes") is None
    assert sample(metrics, "store_oldest_timestamp_seconds") is None
    assert sample(metrics, "store_decisions") == 0


def test_applications_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.count_repeat()

    assert (sample(one, "repeats_total"), sample(other, "repeats_total")) == (1, 0)


def scrape(accept: str) -> httpx.Response:
    with client(create_app()) as call:
        call("POST", "/v1/decisions", json=EVENT)
        call("POST", "/v1/decisions", json={**EVENT, "policy": "nonsense"})
        return call("GET", "/metrics", headers={"accept": accept})


def families(answer: httpx.Response) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def test_what_prometheus_gets_is_what_happened() -> None:
    answer = scrape("*/*")

    found = families(answer)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert {"ras_triage_request_duration_seconds", "ras_triage_problems", "ras_triage_build_info", "process_open_fds"} <= set(found)
    counts = {
        sample.labels["status"]: sample.value
        for sample in found["ras_triage_request_duration_seconds"].samples
        if sample.name.endswith("_count") and sample.labels["route"] == "/v1/decisions"
    }
    assert counts == {"201": 1, "422": 1}
    problems = [sample.labels for sample in found["ras_triage_problems"].samples if sample.name.endswith("_total") and sample.value]
    assert problems == [{"type": "unknown-policy"}]
    assert found["ras_triage_requests_under_way"].samples[0].value == 1
    assert found["ras_triage_ready"].samples[0].value == 1
    assert found["ras_triage_store_decisions"].samples[0].value == 1
    assert [sample.value for sample in found["ras_triage_commit_entries"].samples if sample.name.endswith("_sum")] == [1]


def test_openmetrics_is_spoken_to_who_asks_for_it() -> None:
    answer = scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_a_route_is_told_as_the_document_writes_it() -> None:
    with client(create_app()) as call:
        call("GET", "/v1/hosts/node-1")
        found = families(call("GET", "/metrics"))

    assert {sample.labels["route"] for sample in found["ras_triage_request_duration_seconds"].samples} == {"/v1/hosts/{source}"}


def test_every_metric_says_what_it_is(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.set_store_source(Writer(Figures()), Store(FULL), tmp_path)

    assert [family.name for family in metrics.registry.collect() if not family.documentation] == []
