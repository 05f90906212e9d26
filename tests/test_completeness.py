"""Mappings over an enumeration are complete: a new member without its reader, rule or documentation fails here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from io import BytesIO
from typing import Final

import pytest

from ras_triage.models.event import Event
from ras_triage.models.formats.hest import notifications, read_hest
from ras_triage.models.formats.kernel_log import grammar
from ras_triage.models.formats.kernel_log.reader import read_kernel_log
from ras_triage.models.formats.results import FoundError
from ras_triage.models.notification import DELIVERY, HEST_TYPES, NotificationType
from ras_triage.models.records.guid import SECTION_NAMES, guid_text
from ras_triage.models.records.status_block import parse_block
from ras_triage.models.sections.registry import SECTIONS
from ras_triage.policies.catalog.behaviours import FLAGS
from ras_triage.policies.catalog.policies import NEWEST_SERIES, change_ledger, flag_meanings, resolve_policy
from ras_triage.policies.catalog.vmms import EXIT_CAUSES, vmms
from ras_triage.policies.catalog.vmms import FLAGS as VMM_FLAGS
from ras_triage.policies.decide import decide
from ras_triage.service.api.problem_types import PROBLEM_TYPES
from ras_triage.service.config.settings import Settings, all_settings
from ras_triage.service.importing.format_detection import STREAMED, InputFormat, detect_format
from ras_triage.service.importing.readers import find_in
from ras_triage.service.importing.source import ImportSource
from tests.models.formats.test_hest import generic, table
from tests.policies.vectors import name_of, recordings
from tests.test_architecture import ROOT, sources


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_cells(text: str) -> Iterator[str]:
    """Yield the names in backticks in the first cell of every table row."""
    for cell in re.findall(r"^\|([^|]*)\|", text, re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", cell)


def table_of(text: str) -> dict[str, list[str]]:
    """Return the cells of every table row, without the header, by the first name in backticks."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\| `(?!.*\n\|--).*", text, re.MULTILINE):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0].split("`")[1]] = cells[1:]
    return found


# Kernel releases and flags


def test_the_newest_series_is_one_that_was_recorded_and_is_described() -> None:
    newest = ".".join(map(str, NEWEST_SERIES))
    recorded = {name_of(path).partition("-")[2] for path in recordings("linux")}
    assert any(release.startswith(f"{newest}.") for release in recorded)
    assert all(release in page("tests/vectors/README.md") for release in recorded)


def test_no_policy_of_a_recorded_kernel_has_unknowns() -> None:
    for path in recordings("*"):
        assert resolve_policy(f"linux-{name_of(path).rpartition('-')[2]}").unknowns == (), path


def test_every_flag_has_a_meaning_and_is_used_by_a_rule() -> None:
    meanings = flag_meanings()
    assert set(meanings) == set(FLAGS)
    assert all(meaning and (mirrors is None or mirrors) for meaning, mirrors in meanings.values())
    code = "".join(path.read_text(encoding="utf-8") for path in sources("policies") if path.parent.name != "catalog")
    assert {flag for flag in FLAGS if f".{flag}" not in code and f'"{flag}"' not in code} == set()


def test_every_flag_that_no_kernel_has_is_explained_with_the_uniform_policy() -> None:
    principles = set(FLAGS) - {change.flag for change in change_ledger()}
    assert {flag for flag in principles if f"`{flag}`" not in page("docs/uniform.md")} == set()


# Notification types


def test_every_notification_type_has_a_delivery() -> None:
    assert set(DELIVERY) == set(NotificationType)


@pytest.mark.parametrize(("number", "kind"), list(enumerate(HEST_TYPES)))
def test_every_notification_type_is_that_of_an_error_source(number: int, kind: NotificationType) -> None:
    assert notifications(read_hest(table(generic(7, number)))).get(7).type is kind
    assert set(NotificationType) - set(HEST_TYPES) == {NotificationType.BERT}


@pytest.mark.parametrize("kind", NotificationType)
@pytest.mark.parametrize("policy", ["linux-5.10.209", "linux-7.3.4", "uniform"])
def test_every_notification_type_is_admitted_or_rejected_with_a_reason(kind: NotificationType, policy: str) -> None:
    decision = decide(Event.model_validate({"notification": kind.value}), resolve_policy(policy))
    admitted = [rule for rule in decision.rationale if rule.rule == "admit.notification"]
    assert len(admitted) == 1
    assert admitted[0].given["notification"] == kind.value
    assert admitted[0].outcome


def test_every_notification_type_is_documented_as_it_is_decided() -> None:
    documented = table_of(page("docs/notifications.md"))
    assert list(documented) == [kind.value for kind in NotificationType]
    for hest_number, kind in enumerate(NotificationType):
        number, context, linux = documented[kind.value]
        decision = decide(Event.model_validate({"notification": kind.value}), resolve_policy("linux-7.3.4"))
        rejected = all(rule.stage != "read" for rule in decision.rationale)
        shown = ("none" if kind is NotificationType.BERT else str(hest_number), DELIVERY[kind].value, rejected)
        assert (number, context, linux.startswith("rejects")) == shown, kind


# Section types


def test_every_section_type_is_documented_with_its_layout() -> None:
    documented = table_of(page("docs/sections.md"))
    assert {name: row[0] for name, row in documented.items()} == {name: guid_text(value) for value, name in SECTION_NAMES.items()}
    with_layout = {name: [row[1], row[3]] for name, row in documented.items() if len(row) > 1}
    modules = {name: section.__module__.removeprefix("ras_triage.").replace(".", "/") for name, section in SECTIONS.items()}
    assert with_layout == {name: [str(section.LAYOUT.size), f"`{modules[name]}.py`"] for name, section in SECTIONS.items()}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_type_can_be_sent_by_name_and_has_the_documented_rule(name: str) -> None:
    block = {"severity": "recoverable", "sections": [{"type": name, "severity": "recoverable"}]}
    event = Event.model_validate({"notification": "sea", "status_block": block})
    fired = [rule.rule for rule in decide(event, resolve_policy("linux-7.3.4")).rationale if rule.stage == "sections"]
    assert table_of(page("docs/sections.md"))[name][-1] == f"`{fired[0]}`"


@pytest.mark.parametrize(("words", "kind"), [(words, kind) for words, (_, kind) in grammar.SECTION_TYPES.items()])
def test_every_section_that_a_kernel_log_names_is_read_as_its_type(words: str, kind: bytes) -> None:
    record = ["Hardware error from APEI Generic Hardware Error Source: 2", "event severity: recoverable"]
    record += [" Error 0, type: recoverable", f"  section_type: {words}"]
    (found,) = read_kernel_log(f"{{1}}[Hardware Error]: {line}\n".encode() for line in record)
    assert isinstance(found, FoundError)
    assert found.event.status_block is not None
    assert [entry.section_type for entry in parse_block(found.event.status_block).entries] == [kind]


# Input formats

EXAMPLES: Final = {
    InputFormat.EVENT: b'{"notification":"gpio"}\n',
    InputFormat.CPER: b"CPER" + bytes(124),
    InputFormat.REDFISH: b'{"@odata.type":"#LogEntry.v1_16_0.LogEntry"}\n',
    InputFormat.LIBCPER: b'{"sectionDescriptor":{},"section":{}}\n',
    InputFormat.QMP: b'{"execute":"inject-ghes-v2-error","arguments":{"cper":""}}\n',
    InputFormat.KERNEL_LOG: b"[    0.000000] Linux version 6.12.107\n",
    InputFormat.JOURNAL: b'{"_TRANSPORT":"kernel","__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1","MESSAGE":"x"}\n',
    InputFormat.COLLECTED_LOG: b'{"log":"x","stream":"stdout","time":"2026-11-29T00:00:00Z"}\n',
    InputFormat.RAS_TRACE: b"<idle>-0 [000] d.h1. 12.5: mc_event: 1 Corrected error:\n",
    InputFormat.RAS_MC_CTL: b"No Memory errors.\n\nNo PCIe AER errors.\n",
    InputFormat.RASDAEMON: b"SQLite format 3\0" + bytes(84),
}
"""The beginning of a file of each format that is detected."""


def test_every_format_is_detected_or_named_as_one_that_is_not() -> None:
    assert set(EXAMPLES) == set(InputFormat) - {InputFormat.QEMU_ARGUMENT}
    assert {form: detect_format(head) for form, head in EXAMPLES.items()} == {form: form for form in EXAMPLES}


@pytest.mark.parametrize("form", InputFormat)
def test_every_format_has_a_reader(form: InputFormat) -> None:
    list(find_in(ImportSource(BytesIO(EXAMPLES.get(form, b"AAAA"))), form, None))


def test_every_format_is_documented() -> None:
    documented = set(first_cells(page("docs/import.md")))
    assert {form.value for form in InputFormat} - documented == set()
    assert set(InputFormat) >= STREAMED


# Virtual machine monitors


def test_every_vmm_with_its_flags_and_causes_is_documented() -> None:
    text = page("docs/guest.md")
    documented = set(re.findall(r"`(\w+)`", text))
    assert set(vmms()) - documented == set()
    table = table_of(text)
    assert {*VMM_FLAGS, *EXIT_CAUSES} <= set(table)


# Problem types


def problem_types() -> Iterator[tuple[str, int | None]]:
    """Yield every problem type that the code makes, with its status where that is a constant."""
    for path in sources("service"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield from _made_by(node)
            elif isinstance(node, ast.Tuple) and path.name == "problems.py":
                yield from _in_table(node)


def _made_by(call: ast.Call) -> Iterator[tuple[str, int | None]]:
    name = getattr(call.func, "id", None)
    if name == "invalid" and len(call.args) > 2 and isinstance(call.args[2], ast.Constant):
        yield f"invalid-{call.args[2].value}", 422
    if name != "Problem" or not isinstance(call.args[0], ast.JoinedStr):
        return
    kind = call.args[0].values[1:]
    status = call.args[2].value if isinstance(call.args[2], ast.Constant) else None
    if len(kind) == 1 and isinstance(kind[0], ast.Constant):
        yield str(kind[0].value), status if isinstance(status, int) else None


def _in_table(node: ast.Tuple) -> Iterator[tuple[str, None]]:
    """Yield the type of an entry `status: (type, title)`."""
    words = [part.value for part in node.elts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    if len(words) == len(node.elts) == 2 and re.fullmatch(r"[a-z-]+", words[0]):
        yield words[0], None


def test_every_problem_type_is_declared_with_its_status() -> None:
    made, declared = dict(problem_types()), {kind.name: kind.status for kind in PROBLEM_TYPES}
    assert len(made) > 35
    assert len(declared) == len(PROBLEM_TYPES)
    assert set(declared) == set(made)
    assert {kind: declared[kind] for kind, status in made.items() if status and declared[kind] != status} == {}


# Settings


def test_the_details_of_settings_are_those_of_settings() -> None:
    assert set(first_cells(page("docs/settings.md"))) == set(all_settings())


def test_every_setting_is_used() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sources("service") if path.parent.name != "config")
    assert {field.name for field in fields(Settings) if not re.search(rf"\.{field.name}\b", code)} == set()
