"""Generator of the reference pages and of the tutorial's output: `make reference` writes both."""

from __future__ import annotations

import re
import sys
from argparse import Action as Argument
from argparse import ArgumentParser, HelpFormatter, _SubParsersAction
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import gettempdir
from typing import Final

import yaml

from ras_triage.models.decision import Evidence
from ras_triage.policies.catalog.evidence import SeriesEvidence, flag_evidence, series_evidence
from ras_triage.policies.catalog.policies import NEWEST_SERIES, change_ledger
from ras_triage.policies.catalog.release import Release
from ras_triage.service.api.problem_types import PROBLEM_TYPES
from ras_triage.service.api.problems import URN
from ras_triage.service.cli.parser import build_parser
from ras_triage.service.config.settings import all_settings
from ras_triage.service.http.app import create_app
from ras_triage.service.store.port import StoreSize
from ras_triage.service.telemetry.metrics import Metrics
from tests import tutorial
from tests.paths import ROOT

DOCS: Final = ROOT / "docs"


def table(header: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = header.split(" | ")
    return "\n".join([f"| {header} |", "|---" * len(names) + "|", *(f"| {' | '.join(cells)} |" for cells in rows)])


def as_text(help_text: str) -> str:
    """Return a help text as Markdown, with what would be markup escaped."""
    return re.sub(r"([|<>*])", r"\\\1", help_text)


# Settings and problem types


def settings() -> str:
    """Return all settings, in the order of their declarations."""
    rows = []
    for name, setting in all_settings().items():
        declared = setting.declaration
        option = f"`{declared.option}`" if declared.option else ""
        rows.append((f"`{name}`", setting.default_text, option, "yes" if declared.reloadable else "no", declared.help))
    return table("setting | default | option | reload | description", rows)


def problems() -> str:
    """Return all problem types."""
    rows = ((f"`{kind.name}`", str(kind.status), kind.meaning, kind.action) for kind in PROBLEM_TYPES)
    return table("type | status | meaning | action", rows)


# Metrics


class _Writer:
    """An idle writer."""

    queue_entries = queue_bytes = 0
    oldest_unanswered_s = 0.0
    last_failure = None

    @property
    def statistics(self) -> _Writer:
        return self


class _Store:
    """A store with one decision."""

    def size(self) -> StoreSize:
        return StoreSize(1, 1, 1, 1, 1)


def observed_metrics() -> Metrics:
    """Return metrics that have a sample of every kind."""
    metrics = Metrics()
    metrics.count_request("GET", "/healthz", 200, 0.1, 1, 1)
    metrics.count_problem(f"{URN}busy")
    metrics.count_decision("panic", "uniform")
    metrics.count_batch_event("decided")
    metrics.count_store_failure(OSError())
    metrics.count_purge("age", 1)
    metrics.set_store_source(_Writer(), _Store(), Path(gettempdir()))
    return metrics


def metrics() -> str:
    """Return the service's metrics, without those of the process."""
    rows = []
    for family in sorted(observed_metrics().registry.collect(), key=lambda family: family.name):
        if family.name.startswith("ras_triage_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
            rows.append((f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), as_text(family.documentation)))
    return table("metric | type | labels | meaning", rows)


def alerts() -> str:
    """Return the alerts of deploy/kubernetes/monitoring."""
    document = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/prometheusrule.yaml").read_text(encoding="utf-8"))
    rules = document["spec"]["groups"][0]["rules"]
    rows = (
        (rule["alert"], f"`{rule['expr']}`", rule.get("for", ""), rule["labels"]["severity"], rule["annotations"]["summary"])
        for rule in rules
    )
    return table("alert | expression | for | severity | meaning", rows)


# Command line


def commands() -> str:
    """Return every command with its arguments, options and examples."""
    (subcommands,) = _subcommands(build_parser())
    overview = table(
        "command | does",
        ((f"[{action.dest}](#ras-triage-{action.dest})", as_text(action.help or "")) for action in subcommands._choices_actions),
    )
    details = (part for name, parser in subcommands.choices.items() for part in _command(f"ras-triage {name}", parser, "##"))
    return "\n\n".join([overview, *details])


def _subcommands(parser: ArgumentParser) -> list[_SubParsersAction[ArgumentParser]]:
    return [action for action in parser._actions if isinstance(action, _SubParsersAction)]


def _command(name: str, parser: ArgumentParser, heading: str) -> Iterator[str]:
    yield f"{heading} {name}"
    if parser.description:
        yield as_text(parser.description)
    if rows := [_option(parser, action) for group in parser._action_groups for action in group._group_actions if _is_own(action)]:
        yield table("argument | meaning", rows)
    if parser.epilog:
        lines = parser.epilog.splitlines()[1:]
        yield "\n".join(["```", *(line.strip() for line in lines), "```"])
    for subcommands in _subcommands(parser):
        for action, subparser in subcommands.choices.items():
            yield from _command(f"{name} {action}", subparser, "###")


def _is_own(action: Argument) -> bool:
    return not isinstance(action, _SubParsersAction) and action.dest != "help"


def _option(parser: ArgumentParser, action: Argument) -> tuple[str, str]:
    """Return the row of an argument: how it is written, and its help."""
    formatter = HelpFormatter(parser.prog)
    value = "" if action.nargs == 0 else formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    written = [f"`{name} {value}`" if value else f"`{name}`" for name in action.option_strings] or [f"`{value}`"]
    return ", ".join(written).replace("|", r"\|"), as_text(formatter._expand_help(action)) if action.help else ""


# HTTP interface


def operations() -> str:
    """Return all operations of the HTTP interface with their names and summaries."""
    rows = (
        (f"`{method.upper()} {path}`", f"`{operation['operationId']}`", operation["summary"])
        for path, methods in create_app().openapi()["paths"].items()
        for method, operation in methods.items()
    )
    return table("call | name | does", rows)


# Evidence for the policies


def evidence() -> str:
    """Return each series with what was recorded and read, and how its last known release is known."""
    series = [(5, minor) for minor in range(10, 20)] + [(6, minor) for minor in range(20)] + [(7, minor) for minor in range(4)]
    assert series[-1] == NEWEST_SERIES
    rows = ([f"`{major}.{minor}`", *_evidence_of((major, minor))] for major, minor in series)
    return table("series | recorded | changelogs read | sources read | flags", rows)


def _evidence_of(series: tuple[int, int]) -> list[str]:
    known = series_evidence().get(series, SeriesEvidence(None, (), ()))
    changes = [release for change in change_ledger() for release in (*change.stable, *change.ended, *change.absent)]
    releases = [*(known.changelogs or ()), *known.sources, *known.booted, *changes]
    last = max((release for release in releases if release.series == series), default=Release(*series, None))
    counts = Counter(flag_evidence(change.flag, last) for change in change_ledger())
    changelogs = " to ".join(map(str, known.changelogs or ()))
    return [
        ", ".join(map(str, known.booted)),
        changelogs,
        ", ".join(map(str, known.sources)),
        f"{last}: " + ", ".join(f"{counts[kind]} {kind.value}" for kind in Evidence if counts[kind]),
    ]


# Pages

BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "api.md": operations,
    "cli.md": commands,
    "metrics.md": metrics,
    "operations.md": alerts,
    "policies.md": evidence,
    "problems.md": problems,
    "settings.md": settings,
}
"""What is generated in each page of docs/, between the two comments."""

_START: Final = "<!-- written by `make reference` -->\n"
_END: Final = "\n<!-- end -->"


def generated(name: str) -> str:
    """Return a page of docs/ with what is generated in it as it must be."""
    before, start, rest = (DOCS / name).read_text(encoding="utf-8").partition(_START)
    _, end, after = rest.partition(_END)
    assert start, f"{name} has no line {_START}"
    assert end, f"{name} has no line {_END}"
    return f"{before}{start}\n{BLOCKS[name]()}\n{end}{after}"


def main() -> int:
    """Write all pages."""
    for name in BLOCKS:
        (DOCS / name).write_text(generated(name), encoding="utf-8")
    page = tutorial.PAGE.read_text(encoding="utf-8")
    if tutorial.comparable(new := tutorial.played(page)) != tutorial.comparable(page):
        tutorial.PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
