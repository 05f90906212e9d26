"""docs/architecture.md and CONTRIBUTING.md name what exists, and leave out nothing that they list."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import pytest

from ras_triage.models.event import Event
from ras_triage.policies.catalog.policies import resolve_policy
from ras_triage.policies.decide import decide
from tests.test_architecture import FLOORS, ROOMS, ROOT, sources

ARCHITECTURE: Final = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG: Final = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")

RULE_ID: Final = re.compile(r"[a-z]+\.[a-z_0-9]+")


class Row:
    """A rule as the page or the code has it."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.functions: set[str] = set()


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows(heading: str) -> Iterator[list[str]]:
    """Yield the cells of every table row below a heading of docs/architecture.md."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    for line in section.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def documented_rules() -> dict[str, Row]:
    rules: dict[str, Row] = defaultdict(Row)
    for ids, modules, functions in rows("Rules"):
        for rule_id in quoted(ids):
            rules[rule_id].modules |= set(quoted(modules))
            rules[rule_id].functions |= set(quoted(functions))
    return rules


def constants(node: ast.expr | None) -> set[str]:
    """Return the strings that an expression names: itself, or the branches of a condition."""
    if isinstance(node, ast.IfExp):
        return constants(node.body) | constants(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (getattr(node.func, "id", None) == name or getattr(node.func, "attr", None) == name):
            yield node


def rules_of(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Yield the rules that a module fires, `rule(policy, id, outcome, function, ...)`, with the kernel functions that the call names.

    A function that adds a prefix to its argument, as in `rule(policy, f"guest.{name}", ...)`, fires the rules that its callers name.
    """
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in calls(function, "rule"):
            name, mirrors = call.args[1], call.args[3]
            if isinstance(name, ast.JoinedStr):
                prefix = "".join(part.value for part in name.values if isinstance(part, ast.Constant))
                ids = {prefix + str(user.args[0].value) for user in calls(tree, function.name) if isinstance(user.args[0], ast.Constant)}
            else:
                ids = constants(name)
            assert ids, f"line {call.lineno}: the rule id must be a string literal"
            for rule_id in ids:
                yield rule_id, constants(mirrors)


def rules_in_code() -> dict[str, Row]:
    rules: dict[str, Row] = defaultdict(Row)
    for path in sources("policies"):
        for rule_id, functions in rules_of(ast.parse(path.read_text(encoding="utf-8"))):
            rules[rule_id].modules.add(path.relative_to(ROOT).as_posix())
            rules[rule_id].functions |= functions
    return rules


def test_the_page_has_every_rule_of_the_code_with_its_module() -> None:
    documented, coded = documented_rules(), rules_in_code()
    assert len(coded) > 30
    assert all(RULE_ID.fullmatch(rule_id) for rule_id in coded)
    assert {rule_id: row.modules for rule_id, row in documented.items()} == {rule_id: row.modules for rule_id, row in coded.items()}


def test_the_page_has_every_kernel_function_that_a_rule_names() -> None:
    documented = documented_rules()
    assert {rule_id: more for rule_id, row in rules_in_code().items() if (more := row.functions - documented[rule_id].functions)} == {}


def test_every_kernel_function_of_the_page_is_in_the_module() -> None:
    for rule_id, row in documented_rules().items():
        text = "".join((ROOT / module).read_text(encoding="utf-8") for module in row.modules)
        text += (ROOT / "policies/catalog/vmms.toml").read_text(encoding="utf-8") if rule_id.startswith("guest.") else ""
        assert {function for function in row.functions if f'"{function}"' not in text} == set(), rule_id


def recorded() -> Iterator[Event]:
    for path in [ROOT / "tests/vectors/linux-7.3.4.jsonl", ROOT / "tests/vectors/random-6.1.176.jsonl"]:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield Event.model_validate(json.loads(line)["event"])
    for path in sorted((ROOT / "docs/examples").glob("*.json")):
        yield Event.model_validate_json(path.read_bytes())


def test_every_rule_of_a_decision_is_on_the_page() -> None:
    documented, fired = documented_rules(), set()
    policies = [resolve_policy(name) for name in ("linux-5.10.209", "linux-7.3.4", "uniform")]
    for number, event in enumerate(recorded()):
        for found in decide(event, policies[number % len(policies)]).rationale:
            fired.add(found.rule.partition(".")[0])
            assert found.mirrors is None or found.mirrors in documented[found.rule].functions, found
            assert found.stage == found.rule.partition(".")[0]
    assert fired == {rule_id.partition(".")[0] for rule_id in documented} - {"kvm"}


PATH: Final = re.compile(r"`((?:models|policies|service|tests|docs|deploy|bench)/[\w./-]*)`")


@pytest.mark.parametrize("text", [ARCHITECTURE, CONTRIBUTING], ids=["architecture", "contributing"])
def test_every_file_and_folder_that_a_page_names_exists(text: str) -> None:
    named = set(PATH.findall(text))
    assert len(named) > 20
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_test_that_the_recipes_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", CONTRIBUTING))
    code = "".join(path.read_text(encoding="utf-8") for path in sources("tests"))
    assert len(named) > 20
    assert {name for name in named if f"def {name}(" not in code} == set()


def test_every_target_of_make_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in re.findall(r"(?:`|    )make (\w+)", CONTRIBUTING) if f"\n{target}:" not in makefile] == []


@pytest.mark.parametrize("name", ["architecture.md", "notifications.md", "problems.md", "sections.md", "../CONTRIBUTING.md"])
def test_every_link_leads_to_a_heading_of_a_page(name: str) -> None:
    page = ROOT / "docs" / name
    for link, anchor in re.findall(r"\]\(([\w./-]+\.md)(?:#([\w-]+))?\)", page.read_text(encoding="utf-8")):
        linked = page.parent / link
        assert linked.is_file(), link
        headings = re.findall(r"^#+ (.*)", linked.read_text(encoding="utf-8"), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, (link, anchor)


def test_every_stage_has_a_module_on_the_page() -> None:
    modules = {path.relative_to(ROOT).as_posix() for folder in ("policies/pipeline", "policies/guest") for path in sources(folder)}
    named = set(PATH.findall(ARCHITECTURE))
    assert {module for module in modules if not module.endswith("__init__.py")} - named == set()


def test_the_page_has_every_layer_and_folder_with_what_it_may_import() -> None:
    table = [[quoted(cell) for cell in row] for row in rows("Folders, and what each may import")]
    rooms = [row for row in table if re.fullmatch(r"service/\w+/", row[0][0])]
    assert {row[0][0].split("/")[1]: set(row[2]) for row in rooms} == ROOMS
    named = {name.rstrip("/") for row in table for name in row[0]}
    folders = {path.parent.relative_to(ROOT).as_posix() for floor in ("models", "policies") for path in sources(floor)}
    assert folders <= named
    assert set(FLOORS) <= named


COMMANDS: Final = [
    pytest.param(command, id=name)
    for name in ("architecture.md", "notifications.md", "sections.md")
    for command in re.findall(r"^\$ ras-triage (.*)", (ROOT / "docs" / name).read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_a_page_shows_works(command: str) -> None:
    program = [sys.executable, "-m", "ras_triage.service.cli.main"]
    done = subprocess.run([*program, *shlex.split(command)], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


def test_the_changelog_is_one_that_tools_read() -> None:
    assert re.findall(r"^# .*", CHANGELOG, re.MULTILINE) == ["# Changelog"]
    assert re.findall(r"^## .*", CHANGELOG, re.MULTILINE)[0] == "## [Unreleased]"
    kinds = re.findall(r"^### (.*)", CHANGELOG, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_check_of_rules_finds_them() -> None:
    code = 'def one(p, n):\n    return rule(p, f"a.{n}", "o", "f" if n else None)\n'
    code += 'def two(p):\n    one("x")\n    rule(p, "b.c", "o", "g")\n'
    assert sorted(rules_of(ast.parse(code))) == [("a.x", {"f"}), ("b.c", {"g"})]
