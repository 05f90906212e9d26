"""Reference pages against the code that they are generated from."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.generate_reference import BLOCKS, DOCS, generated
from tests.service.support.server_process import serving


@pytest.mark.parametrize("name", BLOCKS)
def test_every_reference_page_is_as_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == generated(name), "run `make reference`"


def test_a_running_service_has_the_metrics_of_the_page(tmp_path: Path) -> None:
    rows = re.findall(r"^\| `(ras_triage_\w+)` \| (\w+)", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE)
    with serving("--store", f"sqlite:///{tmp_path}/store.db") as service:
        httpx.post(f"{service.url}/v1/decisions", json={"notification": "polled"})
        exposed = {family.name: family.type for family in text_string_to_metric_families(httpx.get(f"{service.url}/metrics").text)}
    documented = {name.removesuffix("_total"): kind for name, kind in rows}
    assert {name: kind for name, kind in exposed.items() if not name.startswith("process_")} == documented
