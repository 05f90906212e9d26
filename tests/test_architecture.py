"""Layout of the project: what may import what, and what the folders and modules look like."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.paths import ROOT

FLOORS: Final = ("models", "policies", "service")
"""Lowest first: a floor imports itself and those below it."""

ROOMS: Final[dict[str, set[str]]] = {
    "api": set(),
    "client": {"api"},
    "config": {"api"},
    "page": set(),
    "telemetry": {"api", "config"},
    "security": {"api", "config", "telemetry", "store"},
    "store": {"api", "config", "telemetry"},
    "importing": {"api", "config", "telemetry"},
    "engine": {"api", "config", "importing", "store", "telemetry"},
    "http": {"api", "config", "engine", "importing", "page", "security", "store", "telemetry"},
    "cli": {"api", "client", "config", "engine", "http", "importing", "security", "store", "telemetry"},
}
"""What each folder of `service/` may import of the others."""

WITHOUT_RULES: Final = ("api", "client", "security", "store")
"""Folders of `service/` that know no rule."""

MOST_MODULES: Final = 15

SHARED_NAMES: Final[dict[str, str]] = {
    "configure": "every command has it",
    "run": "every command has it",
    "show": "routes that return one item",
    "to_found_error": "of every format",
    "Health": "the response, as the service sends and the client reads it",
    "Page": "of decisions, in the store and as the client reads it",
    "Purge": "in the store and as the client reads it",
    "StreamedDecision": "in the store and as the client reads it",
    "Summary": "of a decision, in the store and as the client reads it",
}
"""Public names that several modules of a floor share, because they mean the same there."""

ACROSS_FOLDERS: Final[dict[str, str]] = {
    "policies/test_caches.py": "caches of every floor",
    "policies/test_event_growth.py": "from the event to the decision",
    "policies/test_matrix.py": "decisions, as the stages make them together",
    "policies/test_recordings.py": "decisions, as the stages make them together",
    "service/test_crashes.py": "a service that is killed",
    "service/test_torture.py": "a service under everything at once",
}
"""Test modules that lie above the folders, because they test what goes across them."""

HELPERS: Final = {"support"}
"""Folders of tests without a folder that they test."""

NEVER_IN_POLICIES: Final = {
    "asyncio", "datetime", "fastapi", "httpx", "io", "logging", "os", "pathlib", "random", "secrets", "socket", "sqlite3", "subprocess",
    "sys", "threading", "time", "urllib", "uuid", "uvicorn",
}  # fmt: skip


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the modules that a module imports; for `from package import name` also `package.name`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def parts_of(names: set[str], depth: int) -> set[str]:
    """Return part `depth` of the project's own modules among these."""
    own = (name.split(".") for name in names if name.startswith("ras_triage."))
    return {parts[depth] for parts in own if len(parts) > depth}


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_imports_only_itself_and_those_below_it(floor: str) -> None:
    above = set(FLOORS[FLOORS.index(floor) + 1 :])
    assert {path.name: found for path in sources(floor) if (found := parts_of(imported(path), 1) & above)} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_a_folder_of_the_service_imports_only_those_that_it_may(room: str) -> None:
    others = set(ROOMS) - ROOMS[room] - {room}
    for path in sources(f"service/{room}"):
        names = {name for name in imported(path) if name.startswith("ras_triage.service.")}
        assert not parts_of(names, 2) & others, f"{path} imports from {parts_of(names, 2) & others}"


@pytest.mark.parametrize("room", WITHOUT_RULES)
def test_what_needs_no_rules_loads_none(room: str) -> None:
    assert {path.name for path in sources(f"service/{room}") if "policies" in parts_of(imported(path), 1)} == set()


def test_every_folder_of_the_service_has_its_place() -> None:
    folders = {path.name for path in (ROOT / "service").iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(ROOMS)
    assert [path.name for path in (ROOT / "service").glob("*.py")] == ["__init__.py"]


def test_no_folder_has_more_modules_than_one_can_oversee() -> None:
    modules: dict[Path, int] = defaultdict(int)
    for path in (path for floor in FLOORS for path in sources(floor) if path.name != "__init__.py"):
        modules[path.parent] += 1
    assert {folder: count for folder, count in modules.items() if count > MOST_MODULES} == {}


@pytest.mark.parametrize("floor", FLOORS)
def test_the_folders_of_tests_are_those_of_what_they_test(floor: str) -> None:
    tests = ROOT / "tests" / floor
    folders = {path.parent.relative_to(tests) for path in tests.rglob("*.py")}
    assert {
        str(folder) for folder in folders if folder.name not in HELPERS and not (ROOT / floor / folder / "__init__.py").is_file()
    } == set()


def is_test_of_a_loose_module(path: Path) -> bool:
    """Return whether a test module is named after a module that lies beside the folders of its floor."""
    return (ROOT / path.parent.name / path.name.removeprefix("test_")).is_file()


def test_no_test_lies_loose_that_does_not_go_across_folders() -> None:
    loose = {path for floor in FLOORS for path in (ROOT / "tests" / floor).glob("test_*.py") if not is_test_of_a_loose_module(path)}
    assert {path.relative_to(ROOT / "tests").as_posix() for path in loose} == set(ACROSS_FOLDERS)


def test_nothing_is_imported_by_a_name_that_other_programs_may_have() -> None:
    files = [path for folder in (*FLOORS, "ras_triage", "tests", "bench", "examples", "deploy") for path in sources(folder)]
    assert {str(path): found for path in files if (found := {name for name in imported(path) if name.partition(".")[0] in FLOORS})} == {}


def test_policies_touch_no_clock_no_chance_and_no_input_or_output() -> None:
    roots = {path.name: {name.partition(".")[0] for name in imported(path)} for path in sources("policies")}
    assert {name: found for name, names in roots.items() if (found := names & NEVER_IN_POLICIES)} == {}


def test_rules_know_no_format() -> None:
    assert {
        path.name for path in sources("policies") if any(name.startswith("ras_triage.models.formats") for name in imported(path))
    } == set()


def test_the_import_check_sees_a_breach(tmp_path: Path) -> None:
    breach = tmp_path / "breach.py"
    breach.write_text("def late():\n    from ras_triage.service import http\n    from time import monotonic\n", encoding="utf-8")
    assert parts_of(imported(breach), 1) == {"service"}
    assert parts_of(imported(breach), 2) == {"http"}
    assert "time" in imported(breach)


def test_no_rule_asks_for_a_release() -> None:
    asking = ("series", "patch", "release")
    for path in sources("policies"):
        if path.parent.name == "catalog":
            continue
        attributes = {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)}
        found = attributes & set(asking)
        assert not found, f"{path.name} asks for {found}"


def docstrings() -> Iterator[tuple[Path, str]]:
    for path in (path for floor in FLOORS for path in sources(floor)):
        yield path, ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def test_every_module_says_what_it_is_in_one_noun_phrase() -> None:
    for path, docstring in docstrings():
        first = docstring.partition("\n")[0]
        assert 0 < len(first) <= 80, f"{path}: {first}"
        assert first.endswith("."), f"{path}: {first}"
        assert not re.match(r"(What|Which|Whether|How|Why|Where|Who|When|From)\b", first), f"{path}: {first}"


def public_names(path: Path) -> set[str]:
    """Return the classes, functions and type aliases that a module defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and re.fullmatch("[A-Z][a-z]\\w*", node.targets[0].id):
            names.add(node.targets[0].id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("floor", FLOORS)
def test_a_public_name_means_one_thing_on_its_floor(floor: str) -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for path in sources(floor):
        for name in public_names(path):
            modules[name].append(path.relative_to(ROOT).as_posix())
    assert {name: found for name, found in modules.items() if len(found) > 1 and name not in SHARED_NAMES} == {}


def test_every_test_that_proves_a_bound_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_/]*test_\w+\.py)`", text))
    assert len(named) > 30
    assert {path for path in named if not (ROOT / "tests" / path).is_file()} == set()
