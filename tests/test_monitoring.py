"""Monitoring under deploy/: alerts, scraping and the OpenTelemetry Collector, against the service and the tools that read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import httpx
import pytest
import yaml
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ras_triage.service.config.settings import Settings
from tests.generate_reference import observed_metrics
from tests.paths import ROOT
from tests.service.support.application import run
from tests.service.support.server_process import serving
from tests.tools import missing_programs, require

KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
MONITORING: Final = KUBERNETES / "monitoring"
COLLECTOR: Final = ROOT / "deploy" / "otel" / "collector.yaml"


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


RULES: Final[list[dict[str, Any]]] = load(MONITORING / "prometheusrule.yaml")["spec"]["groups"][0]["rules"]
CASES: Final[list[dict[str, Any]]] = load(ROOT / "tests" / "alerts.yaml")["tests"]


def promtool(*arguments: str, given: bytes = b"") -> None:
    require(missing_programs("promtool"), "prometheus")
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


# Alerts


def test_each_alert_fires_when_it_must(tmp_path: Path) -> None:
    rules = [{**rule, "annotations": {}} for rule in RULES]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump({"groups": [{"name": "ras-triage", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", "--lint-fatal", str(tmp_path / "alerts.yaml"))
    shutil.copy(ROOT / "tests" / "alerts.yaml", tmp_path / "tests.yaml")
    promtool("test", "rules", str(tmp_path / "tests.yaml"))


@pytest.mark.parametrize("alert", [rule["alert"] for rule in RULES])
def test_each_alert_has_series_that_fire_it_and_series_that_do_not(alert: str) -> None:
    expected = [bool(test["exp_alerts"]) for case in CASES for test in case["alert_rule_test"] if test["alertname"] == alert]
    assert set(expected) == {True, False}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_reads_metrics_and_labels_that_the_service_has_from_the_start(rule: dict[str, Any]) -> None:
    samples = [sample for family in observed_metrics().registry.collect() for sample in family.samples]
    selectors = re.findall(r"(ras_triage_\w+)(?:\{(\w+)=\"([^\"]+)\"\})?", rule["expr"])
    assert selectors
    for name, label, value in selectors:
        assert [sample for sample in samples if sample.name == name and (not label or sample.labels[label] == value)], name


# Prometheus Operator


@pytest.mark.parametrize(("name", "model"), [("servicemonitor", ServiceMonitor), ("prometheusrule", PrometheusRule)])
def test_a_resource_of_the_operator_has_only_fields_that_it_knows(name: str, model: Any) -> None:
    document = load(MONITORING / f"{name}.yaml")
    assert model.model_validate(document).model_dump(mode="json", by_alias=True, exclude_none=True) == document


def test_the_service_monitor_selects_the_service_and_its_port() -> None:
    spec, service = load(MONITORING / "servicemonitor.yaml")["spec"], load(KUBERNETES / "service.yaml")
    (endpoint,) = spec["endpoints"]
    assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_every_resource_is_in_its_kustomization() -> None:
    for folder in (KUBERNETES, MONITORING):
        listed = load(folder / "kustomization.yaml")["resources"]
        assert {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"} == set(listed)


def test_prometheus_accepts_what_the_service_answers_to_a_key_with_the_scope_read(tmp_path: Path) -> None:
    created = run("keys", "create", "--hash-only", "--name", "prometheus", "--scope", "read")
    (tmp_path / "keys.toml").write_bytes(created.stdout)
    (secret,) = re.findall(r"rt_\w+\S+", created.stderr.decode())
    with serving("--store", "memory:", "--keys-file", str(tmp_path / "keys.toml")) as service:
        assert httpx.get(f"{service.url}/metrics").status_code == 401
        answer = httpx.get(f"{service.url}/metrics", headers={"authorization": f"Bearer {secret}"})
    assert answer.status_code == 200
    promtool("check", "metrics", given=answer.content)


# OpenTelemetry Collector


def test_the_collector_uses_what_it_defines_and_defines_what_it_uses() -> None:
    config = load(COLLECTOR)
    for kind in ("receivers", "processors", "exporters"):
        assert {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]} == set(config[kind])
    assert all(pipeline["processors"][0] == "memory_limiter" for pipeline in config["service"]["pipelines"].values())


def test_prometheus_accepts_what_the_collector_scrapes(tmp_path: Path) -> None:
    scraped = load(COLLECTOR)["receivers"]["prometheus"]["config"]
    (job,) = scraped["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"ras-triage:{Settings().port}"]
    job["authorization"]["credentials_file"] = __file__  # any that exists
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(scraped), encoding="utf-8")
    promtool("check", "config", str(tmp_path / "prometheus.yaml"))


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[str, ExportTraceServiceRequest]]]]:
    """A server in the collector's place: its address, and paths and spans that it received."""
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def test_a_service_with_the_documented_variables_sends_its_spans_to_the_collector(
    receiver: tuple[str, list[tuple[str, ExportTraceServiceRequest]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, received = receiver
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    port = load(COLLECTOR)["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]
    variables = dict(re.findall(r"^    ((?:RAS_TRIAGE_)?OTEL\w*)=(\S+)$", page, re.MULTILINE))
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://otel-collector:{port}"
    for name, value in {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "50"}.items():
        monkeypatch.setenv(name, value)
    with serving("--store", "memory:") as service:
        assert httpx.post(f"{service.url}/v1/decisions", json={"notification": "polled"}).status_code == 201
        service.process.terminate()
        service.process.wait(timeout=30)
    assert {path for path, _ in received} == {"/v1/traces"}
    spans = [
        span for _, request in received for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]
    assert "POST /v1/decisions" in {span.name for span in spans}
