"""Tests of the names that `ras_triage` exports, and of what importing them loads."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import ras_triage
from tests.generate_client import SOURCE, TARGET, synchronous
from tests.paths import ROOT

SERVER = ("fastapi", "starlette", "uvicorn")
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.DOTALL)
EXAMPLE = ROOT / "examples" / "decide_under_two_kernels.py"


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def loaded_by(statement: str) -> list[str]:
    """Return the modules that a fresh interpreter has after a statement."""
    return run("-c", f"import sys\n{statement}\nprint(*sorted(sys.modules))").split()


@pytest.mark.parametrize("name", ras_triage.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(ras_triage, name).__name__ == name
    assert name in dir(ras_triage)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module `ras_triage` has no attribute `decode`"):
        ras_triage.decode  # noqa: B018 - reading it is what is tested


def test_importing_the_package_loads_no_submodule() -> None:
    assert [name for name in loaded_by("import ras_triage; dir(ras_triage)") if name.startswith("ras_triage.")] == []


@pytest.mark.parametrize("statement", ["import ras_triage.service.client", "from ras_triage import AsyncClient, Client"])
def test_the_client_loads_neither_the_rules_nor_the_server(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "ras_triage.service.client" in loaded
    assert [name for name in loaded if name.startswith("ras_triage.policies") or name.partition(".")[0] in SERVER] == []


def test_deciding_loads_neither_the_service_nor_a_network_library() -> None:
    loaded = loaded_by("from ras_triage import Decision, Event, Policy, decide, resolve_policy")
    assert [name for name in loaded if name.startswith("ras_triage.service") or name.partition(".")[0] in (*SERVER, "httpx")] == []


def test_the_example_of_the_library_guide_runs() -> None:
    assert "linux-6.12.107: signal (certain)" in run(str(EXAMPLE))


def test_every_snippet_of_the_library_guide_runs() -> None:
    assert len(SNIPPETS) == 1
    assert run("-c", SNIPPETS[0]).startswith("signal certain\n")


def test_the_synchronous_client_is_generated_from_the_asynchronous_one() -> None:
    assert TARGET.read_text(encoding="utf-8") == synchronous(SOURCE.read_text(encoding="utf-8")), "run `make client`"
