"""Clients generated from the OpenAPI document, as they are, against a running service; and the linter of Redocly."""

from __future__ import annotations

import compileall
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from ras_triage.service.config.settings import Settings
from ras_triage.service.http.server.run import running
from tests.service.support.application import EVENT
from tests.service.support.npm import INSTALLED, SOURCES, npm_program, require_npm

PACKAGE = "generated_ras_triage_client"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(Settings(store="memory:")) as url:
        yield url


@pytest.fixture(scope="module")
def folder(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(httpx.get(f"{url}/openapi.json").content)
    return folder


@pytest.fixture(scope="module")
def generated(folder: Path) -> Iterator[str]:
    """Generate the Python client; return what the generator printed. The package can be imported then."""
    (folder / "config.yaml").write_text("post_hooks: []\n", encoding="utf-8")  # else it looks for ruff
    program = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--config", "config.yaml"]
    done = subprocess.run(
        [*program, "--output-path", PACKAGE, "--meta", "none"], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    sys.path.insert(0, str(folder))
    yield done.stdout + done.stderr
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def part(name: str) -> ModuleType:
    return importlib.import_module(f"{PACKAGE}.{name}")


def test_the_python_client_lacks_nothing_but_ndjson(generated: str, folder: Path) -> None:
    unsupported = re.findall(r"(?:Unsupported|Unable|Cannot|Could not).*", generated)

    assert [line for line in unsupported if "application/x-ndjson" not in line] == []
    assert compileall.compile_dir(folder / PACKAGE, quiet=1)


@pytest.mark.usefixtures("generated")
def test_the_python_client_decides_lists_pages_on_and_reads_a_problem(url: str) -> None:
    client, models = part("client").Client(base_url=url), part("models")
    events = [models.Event.from_dict({**EVENT, "source": "python", "id": f"e-{number}"}) for number in range(2)]

    decided = [part("api.decisions.decide").sync(client=client, body=event) for event in events]
    assert [type(step).__name__ for step in decided[0].plan if isinstance(step, models.Signal)] == ["Signal"]
    assert decided[0].policy.name == "linux-6.12.107"

    listing: Any = part("api.decisions.list_decisions")
    pages = [listing.sync(client=client, limit=1)]
    while pages[-1].next_ is not None:
        pages.append(listing.sync(client=client, limit=1, cursor=pages[-1].next_))
    ids = [page.decisions[0].id for page in pages if page.decisions[0].source == "python"]
    assert ids[::-1] == [one.id for one in decided]

    problem = part("api.decisions.get_decision").sync("unknown", client=client)
    assert isinstance(problem, models.Problem)
    assert (problem.type_, problem.status) == ("urn:ras-triage:problem:not-found", 404)


@pytest.mark.usefixtures("generated")
def test_the_python_client_sends_no_default_as_if_it_were_known() -> None:
    models = part("models")
    event = models.Event.from_dict({"notification": "gsiv", "host": {"tasks": [{"pid": 1}]}})

    assert event.to_dict() == {"notification": "gsiv", "host": {"tasks": [{"pid": 1}]}}


def test_the_typescript_client_decides_lists_pages_on_and_reads_a_problem(url: str, folder: Path) -> None:
    require_npm()
    (folder / "node_modules").symlink_to(INSTALLED)
    for source in SOURCES.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    made = npm_program("openapi-typescript", "openapi.json", "--output", "api.ts", folder=folder)
    assert made.returncode == 0, made.stderr
    compiled = npm_program("tsc", folder=folder)
    assert compiled.returncode == 0, compiled.stdout
    done = subprocess.run(["node", "client.js", url], cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["decided"]) == 2
    assert found["listed"] == found["decided"][::-1]
    assert found["signals"] == ["0xffff897d5000"]
    assert found["problem"] == {"type": "urn:ras-triage:problem:not-found", "status": 404}


def test_the_document_passes_the_recommended_rules_of_redocly(folder: Path) -> None:
    require_npm()
    done = npm_program("redocly", "lint", "openapi.json", f"--config={SOURCES / 'redocly.yaml'}", "--format=json", folder=folder)

    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, found["problems"][:5]
