"""Decisions and policies as pages to read: at any width from 80 columns, with or without colour.

What comes from a sender may hold terminal control sequences: every text passes through `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ras_triage.models.decision import Action, Decision, Rationale, Step
from ras_triage.service.api.escaping import escape
from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage
from ras_triage.service.api.syndromes import Explanation, Explanations, InjectionAnswer, SyndromeAnswer
from ras_triage.service.cli.pages.steps import describe_step, plain, returned

ACTION_COLOURS = {
    Action.HANDLED: "green",
    Action.SIGNAL: "yellow",
    Action.TRANSLATE: "yellow",
    Action.INJECT: "magenta",
    Action.PANIC: "red",
}

_MEANINGS = {
    Action.HANDLED: "the system carries on, and nobody is interrupted",
    Action.SIGNAL: "a thread is signalled, or dies",
    Action.TRANSLATE: "a guest has to be told",
    Action.INJECT: "a guest takes an exception",
    Action.PANIC: "the machine goes down",
}

DIFFERS = "≠"
"""Marks what is not the same in every column, for those who see no colour."""

_EXCEPTIONS = {"data_abort": "data abort", "serror": "SError"}
_WHEN = {"at_once": "at once", "when_unmasked": "as soon as it has SErrors unmasked"}

_ROOMY = 96
"""Columns from which three stand side by side."""

_DIFFERENT = "bold yellow"
_QUIET = "dim"
_HEADING = "bold"


def console(*, width: int | None = None) -> Console:
    """Standard output, as wide as it is."""
    return Console(width=width, highlight=False, markup=False, emoji=False)


def text(value: str, style: str = "") -> Text:
    """Text with control characters spelt out."""
    return Text(escape(value), style)


class Escaped:
    """A page whose text is escaped where it is drawn, also where it did not pass through `text`."""

    def __init__(self, page: RenderableType) -> None:
        self.page = page

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for shown, style, control in console.render(self.page, options):
            yield Segment("\n".join(map(escape, shown.split("\n"))), style, control)


def section(title: str, *body: RenderableType) -> Group:
    """A heading and what stands under it."""
    return Group(text(title, _HEADING), *(Padding(part, (0, 0, 0, 2)) for part in body), Text())


def _numbered(lines: Iterable[Text]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", style=_QUIET)
    grid.add_column()
    for number, line in enumerate(lines, 1):
        grid.add_row(str(number), line)
    return grid


def pairs(rows: Iterable[tuple[str, str]]) -> Table:
    """Names and what is to be said of each."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for name, value in rows:
        grid.add_row(text(name), text(value, _QUIET))
    return grid


def decision_page(decision: Decision) -> Group:
    """One decision: the headline, the plan, and why."""
    return Group(*_parts(decision))


def _parts(decision: Decision) -> Iterator[RenderableType]:
    yield _headline(decision)
    yield Text()
    yield section("What happens", _numbered(_steps(decision.plan)) if decision.plan else Text("nothing", _QUIET))
    if decision.next_access or (decision.action is not Action.PANIC and any(step.kind == "memory_failure" for step in decision.plan)):
        yield section("When the page is touched again", _next_access(decision))
    if decision.reasons:
        yield section("It depends", *(text(reason) for reason in decision.reasons))
    yield section("Why", _Why(decision.rationale))
    if decision.assumptions:
        yield section("Taken for granted", pairs((known.fact, known.assumed) for known in decision.assumptions))
    if decision.warnings:
        yield section("Warnings", pairs((warning.code, warning.detail) for warning in decision.warnings))


def _headline(decision: Decision) -> Group:
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    action = Text.assemble((decision.action.upper(), f"bold {ACTION_COLOURS[decision.action]}"), f"  {_MEANINGS[decision.action]}")
    head.add_row(action, text(decision.policy.name, _HEADING))
    head.add_row(text(_certainty(decision)), text(decision.policy.digest[:19], _QUIET))
    if decision.source is not None:
        head.add_row(text(f"seen by {decision.source}", _QUIET), Text())
    return Group(head, Rule(style=_QUIET))


def _certainty(decision: Decision) -> str:
    return "certain" if decision.certainty == "certain" else "depends, see below"


_LOUD = ("signal", "panic", "oops", "inject_serror", "inject_abort", "vmm_exits", "reject")

_FEW_RECORDS = 4
"""Records for guest pages in a row that are shown one by one."""


def _steps(steps: Iterable[Step]) -> Iterator[Text]:
    for kind, alike in groupby(steps, key=lambda step: step.kind):
        run = list(alike)
        shown = run[: _FEW_RECORDS - 1] if kind == "record_guest_error" and len(run) > _FEW_RECORDS else run
        for step in shown:
            yield text(describe_step(step), "bold" if kind in _LOUD else "")
        if len(run) > len(shown):
            yield text(f"{len(run) - len(shown)} more records for guest pages, the last: {describe_step(run[-1])}")


def _next_access(decision: Decision) -> RenderableType:
    return _numbered(_steps(decision.next_access)) if decision.next_access else Text("nobody is signalled", _QUIET)


class _Why:
    """Rule by rule: what it concluded, what it read, and where the kernel does so, beside it where there is room."""

    def __init__(self, rationale: Sequence[Rationale]) -> None:
        self.rationale = rationale

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= _ROOMY
        grid = Table.grid(padding=(0, 2), expand=wide)
        grid.add_column(no_wrap=True, style="cyan")
        grid.add_column(ratio=1 if wide else None)
        grid.add_column(no_wrap=True)
        for rule in self.rationale:
            concluded, mirrors = _concluded(rule), _mirrors(rule)
            if wide:
                grid.add_row(text(rule.rule), _lines(*concluded), _lines(*mirrors))
            else:
                grid.add_row(text(rule.rule), _lines(*concluded, Text("  ").join(mirrors)) if mirrors else _lines(*concluded))
        yield grid


def _lines(*lines: Text) -> Text:
    return Text("\n").join(lines)


def _concluded(rule: Rationale) -> Iterator[Text]:
    yield text(rule.outcome)
    if rule.given:
        yield text(", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in rule.given.items()), _QUIET)


def _mirrors(rule: Rationale) -> list[Text]:
    if rule.mirrors is None:
        return []
    return [text(rule.mirrors), *([text(f"since {rule.since}", _QUIET)] if rule.since else [])]


def comparison_page(decisions: Sequence[Decision]) -> Group:
    """One event under several policies, side by side; what is not the same in all of them stands out."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, padding=(0, 1), pad_edge=False)
    table.add_column("")
    for decision in decisions:
        table.add_column(text(decision.policy.name), ratio=1)
    table.add_row("action", *_alike([[text(decision.action.upper(), f"bold {ACTION_COLOURS[decision.action]}")] for decision in decisions]))
    table.add_row("", *_alike([[text(decision.certainty)] for decision in decisions]), end_section=True)
    table.add_row("plan", *_alike([list(_steps(decision.plan)) for decision in decisions], "nothing"), end_section=True)
    table.add_row("next\naccess", *_alike([list(_steps(decision.next_access)) for decision in decisions], "nobody is signalled"))
    if any(decision.reasons for decision in decisions):
        table.add_section()
        table.add_row("because", *_alike([[text(reason) for reason in decision.reasons] for decision in decisions]))
    return Group(table, section("Why they differ", _different_rules(decisions)))


def demo_page(introduction: str, decisions: Sequence[Decision]) -> Group:
    """A comparison, and what it is about."""
    return Group(text(introduction.replace("\n", " ")), comparison_page(decisions))


def _alike(columns: list[list[Text]], nothing: str = "") -> list[RenderableType]:
    """Cells of lines; a line that is not in every column is marked."""
    plains = [{line.plain for line in lines} for lines in columns]
    shared = set.intersection(*plains)
    return [_cell(lines or [Text(nothing, _QUIET)], shared, all(plains)) for lines in columns]


def _cell(lines: list[Text], shared: set[str], filled: bool) -> Table:
    grid = Table.grid(padding=(0, 1))
    for line in lines:
        differs = line.plain not in shared and (filled or line.style != _QUIET)
        grid.add_row(Text(DIFFERS if differs else " ", _DIFFERENT), line)
    return grid


def _different_rules(decisions: Sequence[Decision]) -> RenderableType:
    rows = [row for row in zip_longest(*_aligned([decision.rationale for decision in decisions])) if _is_different(row)]
    if not rows:
        return Text("the same rules fire, to the same end", _QUIET)
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="cyan", max_width=26, overflow="fold")
    for _ in decisions:
        table.add_column(ratio=1, overflow="fold")
    for row in rows:
        name = next(rule.rule for rule in row if rule is not None)
        table.add_row(text(name), *(_fired(rule) for rule in row))
    return table


def _fired(rule: Rationale | None) -> Text:
    if rule is None:
        return Text("-", _QUIET)
    return _lines(text(rule.outcome), *(Text.assemble(line, style=_QUIET) for line in _mirrors(rule)))


def _is_different(row: Sequence[Rationale | None]) -> bool:
    return len({(rule.outcome, rule.mirrors) if rule else None for rule in row}) > 1


def _aligned(rationales: Sequence[Sequence[Rationale]]) -> list[list[Rationale | None]]:
    """The rules of each column, padded so that the same rule stands in the same row; a rule that fires twice has two rows."""
    numbered = [_numbered_rules(rationale) for rationale in rationales]
    order = list(dict.fromkeys(key for column in numbered for key in column))
    return [[column.get(key) for key in order] for column in numbered]


def _numbered_rules(rationale: Sequence[Rationale]) -> dict[tuple[str, int], Rationale]:
    fired: dict[tuple[str, int], Rationale] = {}
    times: dict[str, int] = {}
    for rule in rationale:
        times[rule.rule] = times.get(rule.rule, 0) + 1
        fired[rule.rule, times[rule.rule]] = rule
    return fired


def decoded_page(decoded: dict[str, Any]) -> Group:
    """A status block or CPER record, section by section, with what its codes mean."""
    parts: list[RenderableType] = []
    if "record" in decoded:
        parts.append(section(f"CPER record, notification {decoded['notification']}", _fields(decoded["record"], {})))
    block = dict(decoded["status_block"])
    sections = block.pop("sections", [])
    parts.append(section("Status block", _fields(block, {})))
    for index, (fields, reading) in enumerate(zip(sections, decoded["readings"], strict=True)):
        parts.append(section(f"Section {index}: {reading['name']}", _fields(fields, reading)))
    return Group(*parts)


def _fields(fields: dict[str, Any], reading: dict[str, Any]) -> Table:
    """Name, value and meaning."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(min_width=36, overflow="fold")
    grid.add_column(overflow="fold", style=_QUIET)
    for name, value, meaning in _rows("", fields, reading):
        grid.add_row(text(name), text(value), text(meaning))
    return grid


def _rows(name: str, value: Any, reading: Any) -> Iterator[tuple[str, str, str]]:
    """Fields within fields, each under its whole name."""
    if isinstance(value, dict):
        yield from _members(name, value, reading if isinstance(reading, dict) else {})
    elif isinstance(value, list) and any(isinstance(member, dict) for member in value):
        for index, (member, meaning) in enumerate(zip_longest(value, reading if isinstance(reading, list) else [])):
            yield from _rows(f"{name}[{index}]", member, meaning)
    else:
        yield name, plain(value), "" if reading is None else plain(reading)


def _members(name: str, value: dict[str, Any], readings: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """An object's fields; what else is known of it follows them."""
    prefix = f"{name}." if name else ""
    for key, member in value.items():
        if (name or key != "type") and member not in ([], {}):
            yield from _rows(f"{prefix}{key}", member, readings.get(key))
    for key, meaning in readings.items():
        if key not in value and (name or key != "name"):
            yield from _rows(f"{prefix}{key}", meaning, None)


def syndrome_page(answer: SyndromeAnswer) -> Group:
    """Syndromes field by field, and where one was injected what came of it."""
    if isinstance(answer, Explanation):
        return _explained(answer)
    if isinstance(answer, Explanations):
        return Group(*(_explained(one) for one in answer.syndromes))
    return Group(*_injected(answer))


def _explained(explanation: Explanation) -> Group:
    register = "VSESR_EL2" if explanation.kind == "vsesr" else "ESR_ELx"
    head = Group(Text(f"{register} {explanation.value:#x}", _HEADING), text(explanation.summary))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("bits", "field", "value"):
        table.add_column(column, no_wrap=True, justify="right" if column == "bits" else "left")
    table.add_column("meaning", overflow="fold")
    for field in explanation.fields:
        style = _DIFFERENT if field.reserved else ""
        meaning = f"{field.meaning} (RES0, and set)" if field.reserved and field.name != "RES0" else field.meaning
        table.add_row(field.bits, text(field.name, style or "cyan"), f"{field.value:#x}", text(meaning, style))
    sections = dict.fromkeys(field.section for field in explanation.fields)
    return Group(head, table, section("Where it is defined", *(text(section, _QUIET) for section in sections)))


def _injected(answer: InjectionAnswer) -> Iterator[RenderableType]:
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    verdict = Text("ACCEPTED", "bold green") if answer.accepted else Text(f"REFUSED, {returned(-answer.errno)}", "bold red")
    head.add_row(verdict, text(answer.policy.name, _HEADING))
    head.add_row(text(answer.certainty), text(answer.policy.digest[:19], _QUIET))
    yield Group(head, Rule(style=_QUIET))
    arrivals = [text(f"{_EXCEPTIONS[arrival.exception]}, ESR_EL1 {arrival.esr:#x}, {_WHEN[arrival.when]}") for arrival in answer.arrivals]
    yield section("What the guest takes", _numbered(arrivals) if arrivals else Text("nothing", _QUIET))
    if answer.linux_guest is not None:
        yield section("A Linux guest", Text(answer.linux_guest, "bold red" if answer.linux_guest == "panics" else "bold green"))
    if answer.reasons:
        yield section("It depends", *(text(reason) for reason in answer.reasons))
    yield section("Why", _Why(answer.rationale))
    if answer.assumptions:
        yield section("Taken for granted", pairs((known.fact, known.assumed) for known in answer.assumptions))
    if answer.explanation is not None:
        yield _explained(answer.explanation)


def policy_list_page(listed: PolicyList) -> Group:
    """Every policy with a name of its own, and where kernels change."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    table.add_column("digest", style=_QUIET, no_wrap=True)
    table.add_column("what changed there")
    for entry in listed.policies:
        changes = [*entry.brings, *(f"no longer {flag}" for flag in entry.drops)]
        name = f"{entry.name} (default)" if entry.name == listed.default else entry.name
        table.add_row(text(name), text(entry.digest[7:19]), text(", ".join(changes)))
    return Group(table, Text("Every other linux-<release> resolves as well."))


def policy_page(page: PolicyPage) -> Group:
    """One policy, flag by flag."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=True)
    table.add_column("", no_wrap=True)
    table.add_column("behaviour")
    table.add_column("since", no_wrap=True, style=_QUIET)
    for flag in page.flags:
        about = _lines(text(flag.flag), *([text(flag.summary, _QUIET)] if flag.summary else []))
        table.add_row(Text("yes", "green") if flag.value else Text("no", _QUIET), about, flag.since or "")
    head = Group(text(page.name, _HEADING), text(page.digest, _QUIET), *(text(note) for note in page.notes))
    return Group(head, table)


def difference_page(difference: Difference) -> Group:
    """The flags in which two policies differ."""
    if not difference.differs:
        return Group(text(f"{difference.a.name} and {difference.b.name} behave the same"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("behaviour")
    table.add_column(text(difference.a.name))
    table.add_column(text(difference.b.name))
    for flag in difference.differs:
        about = _lines(text(flag.flag), *([text(flag.summary, _QUIET)] if flag.summary else []))
        table.add_row(about, *(_has(value, flag.since) for value in (flag.a, flag.b)))
    return Group(table)


def _has(value: bool, since: str | None) -> Text:
    if not value:
        return Text("no", _QUIET)
    return Text(f"yes, since {since}" if since else "yes", "green")
