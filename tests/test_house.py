"""The rules of the house: who may import whom, and what the project may not lean on."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = ("models", "policies", "service")
"""Lowest first: a floor imports itself and those below it."""

NEVER_IN_POLICIES = {
    "asyncio", "datetime", "fastapi", "httpx", "io", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess",
    "sys", "threading", "time", "urllib", "uuid", "uvicorn",
}  # fmt: skip


def sources(floor: str) -> list[Path]:
    return sorted((ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The top-level names of the packages that a module imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_itself_and_those_below_it(floor: str) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "bench"}
    assert {path.name: found for path in sources(floor) if (found := imported(path) & above)} == {}


def test_policies_touch_no_clock_no_chance_and_no_input_or_output() -> None:
    assert {path.name: found for path in sources("policies") if (found := imported(path) & NEVER_IN_POLICIES)} == {}


def test_the_import_check_sees_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("def late():\n    import service.app\n    from time import monotonic\n", encoding="utf-8")
    assert imported(breach) == {"service", "time"}


def test_no_rule_asks_for_a_release() -> None:
    asking = ("series", "patch", "release")
    data = {"catalog.py", "release.py", "choose.py", "landmarks.py"}
    for path in sources("policies"):
        if path.name in data:
            continue
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)}
        found = attributes & set(asking)
        assert not found, f"{path.name} asks for {found}"


def test_every_module_says_what_it_is() -> None:
    modules = [path for floor in FLOORS for path in sources(floor) if path.stat().st_size]
    assert [path for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))] == []


def test_every_test_that_proves_a_bound_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]*test_\w+\.py)`", text))
    assert len(named) > 30
    assert {path for path in named if not (ROOT / "tests" / path).is_file()} == set()
