"""Examples of the client's guide."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.paths import ROOT
from tests.service.support.server_process import Service, serving

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "client.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with serving("--store", "memory:") as service:
        yield service


def test_every_example_of_the_guide_runs_as_it_stands_in_order(service: Service) -> None:
    for snippet in SNIPPETS:
        code = snippet.replace("http://127.0.0.1:8080", service.url)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), snippet
