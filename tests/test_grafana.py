"""Grafana dashboards under deploy/: against Grafana's types, a real Prometheus and the API of a service."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from ras_triage.service.config.settings import Settings
from tests.paths import ROOT
from tests.service.support.npm import INSTALLED, npm_program, require_npm
from tests.service.support.raw_connections import wait_until
from tests.service.support.server_process import Service, serving
from tests.tools import missing_programs, require

GRAFANA: Final = ROOT / "deploy" / "grafana"
NAMES: Final = ("service", "decisions")
COLUMNS: Final = 24
"""Width of a dashboard."""


def dashboard(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    return document


def targets(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return title and query of every panel."""
    return [(panel["title"], target) for panel in dashboard(name)["panels"] for target in panel.get("targets", ())]


def provisioned(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((GRAFANA / "provisioning" / f"{name}.yaml").read_text(encoding="utf-8"))
    return document


# Grafana


def test_grafana_knows_every_field_and_value_of_a_dashboard(tmp_path: Path) -> None:
    require_npm()
    lines = ["import type { Dashboard } from '@grafana/schema';"]
    lines.append("type Literal<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Literal<T[K]> } : T;")
    lines += [f"export const {name}: Literal<Dashboard> = {json.dumps(dashboard(name))};" for name in NAMES]
    (tmp_path / "dashboards.ts").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "node_modules").symlink_to(INSTALLED)
    options = ("--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--moduleResolution", "nodenext")
    done = npm_program("tsc", *options, "dashboards.ts", folder=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_distinct_ids_and_do_not_overlap(name: str) -> None:
    panels = dashboard(name)["panels"]
    cells = [
        (x, y)
        for panel in panels
        for grid in [panel["gridPos"]]
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < COLUMNS
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_uses_a_data_source_that_the_reader_chooses(name: str) -> None:
    document = dashboard(name)
    chosen = {f"${{{one['name']}}}": one["query"] for one in document["templating"]["list"] if one["type"] == "datasource"}
    used = [panel["datasource"] for panel in document["panels"] if panel["type"] != "row"]
    used += [target["datasource"] for _, target in targets(name)]
    assert {(one["uid"], one["type"]) for one in used} == set(chosen.items())


def test_provisioned_data_sources_are_those_that_the_dashboards_use() -> None:
    sources = {one["type"]: one for one in provisioned("datasources")["datasources"]}
    used = {one["query"] for name in NAMES for one in dashboard(name)["templating"]["list"] if one["type"] == "datasource"}
    assert used == set(sources)
    api = sources["yesoreyeram-infinity-datasource"]
    assert api["url"] == f"http://ras-triage:{Settings().port}"
    assert api["jsonData"]["allowedHosts"] == [api["url"]]
    assert api["secureJsonData"] == {"bearerToken": "$RAS_TRIAGE_TOKEN"}, "no secret in the file"


# Prometheus

_PANIC: Final = b'{"source": "node-9", "notification": "sea", "status_block": {"severity": "fatal", "sections": []}}\n'
_EVENTS: Final = (ROOT / "examples" / "events.ndjson").read_bytes() + _PANIC + b'{"notification": "bad"}\n'
_NDJSON: Final = {"content-type": "application/x-ndjson"}
_INTERVAL: Final = "[1m]"
_LISTENING: Final = re.compile(r'msg="Listening on" address=(127\.0\.0\.1:[1-9]\d*)')


def expression(target: dict[str, Any]) -> str:
    """Return the expression of a query as Grafana sends it."""
    text = re.sub(r"\[\$__(?:rate_interval|range)\]", _INTERVAL, target["expr"])
    return text.replace("$job", ".*").replace("$instance", ".*")


@contextmanager
def scraping(service: Service, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes the service every second: its address."""
    require(missing_programs("prometheus"), "prometheus")
    job = {"job_name": "ras-triage", "static_configs": [{"targets": [service.url.removeprefix("http://")]}]}
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    log = folder / "log"
    options = (f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0")
    with log.open("w") as file:
        process = subprocess.Popen(["prometheus", *options], stderr=file)
    try:
        wait_until(lambda: _LISTENING.search(log.read_text()))
        yield f"http://{_LISTENING.findall(log.read_text())[0]}"
    finally:
        process.kill()
        process.wait()


def ask(prometheus: str, expr: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expr})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def scrapes(prometheus: str) -> int:
    """Return how often the service was scraped."""
    found = ask(prometheus, "count_over_time(ras_triage_ready[1m])")
    return int(found[0]["value"][1]) if found else 0


def test_every_panel_of_metrics_shows_something_of_a_service_that_works(tmp_path: Path) -> None:
    with serving("--store", f"sqlite:///{tmp_path / 'store.db'}") as service, scraping(service, tmp_path) as prometheus:
        wait_until(lambda: scrapes(prometheus) >= 1)
        for _ in range(2):  # a rate needs two samples
            before = scrapes(prometheus)
            assert httpx.post(f"{service.url}/v1/decisions/batch", content=_EVENTS, headers=_NDJSON).status_code == 207
            assert httpx.post(f"{service.url}/v1/decisions", json={"notification": "polled"}).status_code == 201
            wait_until(lambda before=before: scrapes(prometheus) >= before + 2)
        empty = [(title, target["expr"]) for title, target in targets("service") if not ask(prometheus, expression(target))]
        label = httpx.get(f"{prometheus}/api/v1/label/instance/values", params={"match[]": "ras_triage_ready"}).json()["data"]
    assert empty == []
    assert label == [service.url.removeprefix("http://")]


# The API


def url(target: dict[str, Any]) -> str:
    """Return the URL of a query as Grafana asks for it."""
    values = {"${__from:date:iso}": "2020-01-01T00:00:00.000Z", "${__to:date:iso}": "2100-01-01T00:00:00.000Z", "$bucket": "hour"}
    text: str = target["url"]
    for variable, value in values.items():
        text = text.replace(variable, value)
    assert "$" not in text
    return text


def test_every_panel_of_decisions_reads_columns_that_the_api_answers() -> None:
    with serving("--store", "memory:") as service:
        httpx.post(f"{service.url}/v1/decisions/batch", content=_EVENTS, headers=_NDJSON)
        for title, target in targets("decisions"):
            answer = httpx.get(service.url + url(target))
            assert answer.status_code == 200, (title, answer.text)
            rows = list(csv.DictReader(answer.text.splitlines()))
            assert rows, title
            for column in target["columns"]:
                texts = [row[column["selector"]] for row in rows]
                if column["type"] == "number":
                    assert all(text.isdecimal() for text in texts), title
                if column["type"] == "timestamp":
                    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", text) for text in texts), title
