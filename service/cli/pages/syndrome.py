"""Pages with syndromes and virtual SError injections."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ras_triage.service.api.syndromes import Explanation, Explanations, InjectionResult, SyndromeResponse
from ras_triage.service.cli.pages.decision import RationaleTable
from ras_triage.service.cli.pages.layout import DIM, HEADING, HIGHLIGHT, numbered, pairs, section, text
from ras_triage.service.cli.pages.steps import return_value

_EXCEPTIONS = {"data_abort": "data abort", "serror": "SError"}
_WHEN = {"at_once": "at once", "when_unmasked": "when it unmasks SErrors"}


def syndrome_page(answer: SyndromeResponse) -> Group:
    """Return the page with syndromes field by field, and with the result of an injection."""
    if isinstance(answer, Explanation):
        return _explanation(answer)
    if isinstance(answer, Explanations):
        return Group(*(_explanation(one) for one in answer.syndromes))
    return Group(*_injection_parts(answer))


def _explanation(explanation: Explanation) -> Group:
    register = "VSESR_EL2" if explanation.kind == "vsesr" else "ESR_ELx"
    head = Group(Text(f"{register} {explanation.value:#x}", HEADING), text(explanation.summary))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("bits", "field", "value"):
        table.add_column(column, no_wrap=True, justify="right" if column == "bits" else "left")
    table.add_column("meaning", overflow="fold")
    for field in explanation.fields:
        style = HIGHLIGHT if field.reserved else ""
        meaning = f"{field.meaning} (RES0, but set)" if field.reserved and field.name != "RES0" else field.meaning
        table.add_row(field.bits, text(field.name, style or "cyan"), f"{field.value:#x}", text(meaning, style))
    sections = dict.fromkeys(field.section for field in explanation.fields)
    return Group(head, table, section("Defined in", *(text(section, DIM) for section in sections)))


def _injection_parts(answer: InjectionResult) -> Iterator[RenderableType]:
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    verdict = Text("ACCEPTED", "bold green") if answer.accepted else Text(f"REFUSED, {return_value(-answer.errno)}", "bold red")
    head.add_row(verdict, text(answer.policy.name, HEADING))
    head.add_row(text(answer.certainty), text(answer.policy.digest[:19], DIM))
    yield Group(head, Rule(style=DIM))
    arrivals = [text(f"{_EXCEPTIONS[arrival.exception]}, ESR_EL1 {arrival.esr:#x}, {_WHEN[arrival.when]}") for arrival in answer.arrivals]
    yield section("Exceptions that the guest takes", numbered(arrivals) if arrivals else Text("nothing", DIM))
    if answer.linux_guest is not None:
        yield section("A Linux guest", Text(answer.linux_guest, "bold red" if answer.linux_guest == "panics" else "bold green"))
    if answer.reasons:
        yield section("Depends on", *(text(reason) for reason in answer.reasons))
    yield section("Why", RationaleTable(answer.rationale))
    if answer.assumptions:
        yield section("Assumptions", pairs((known.fact, known.assumed) for known in answer.assumptions))
    if answer.explanation is not None:
        yield _explanation(answer.explanation)
