"""Pages with policies, and with the differences between two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ras_triage.service.api.policy_pages import Difference, PolicyList, PolicyPage, VmmEntry
from ras_triage.service.cli.pages.layout import DIM, HEADING, join_lines, text


def policy_list_page(listed: PolicyList) -> Group:
    """Return the page with all named policies, the changes at each release, and all VMMs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    table.add_column("digest", style=DIM, no_wrap=True)
    table.add_column("changes")
    for entry in listed.policies:
        changes = [*entry.brings, *(f"no longer {flag}" for flag in entry.drops)]
        name = f"{entry.name} (default)" if entry.name == listed.default else entry.name
        table.add_row(text(name), text(entry.digest[7:19]), text(", ".join(changes)))
    return Group(table, Text("Any other linux-<release> is valid, too."), _vmm_table(listed.vmms))


def _vmm_table(entries: Iterable[VmmEntry]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("VMM", no_wrap=True)
    table.add_column("digest", style=DIM, no_wrap=True)
    table.add_column("behaviours")
    for entry in entries:
        about = [text(entry.summary, DIM)] if entry.summary else []
        table.add_row(text(entry.name), text(entry.digest[7:19]), join_lines(text(", ".join(entry.flags) or "none"), *about))
    return table


def policy_page(page: PolicyPage) -> Group:
    """Return the page with one policy, flag by flag."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=True)
    table.add_column("", no_wrap=True)
    table.add_column("behaviour")
    table.add_column("since", no_wrap=True, style=DIM)
    table.add_column("evidence", no_wrap=True, style=DIM)
    for flag in page.flags:
        about = join_lines(text(flag.flag), *([text(flag.summary, DIM)] if flag.summary else []))
        table.add_row(Text("yes", "green") if flag.value else Text("no", DIM), about, flag.since or "", flag.evidence or "")
    counts = Counter(flag.evidence for flag in page.flags if flag.evidence)
    evidence = "evidence: " + ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), reverse=True))
    head = Group(text(page.name, HEADING), text(page.digest, DIM), text(evidence, DIM), *(text(note) for note in page.notes))
    return Group(head, table)


def difference_page(difference: Difference) -> Group:
    """Return the page with the flags in which two policies differ."""
    if not difference.differs:
        return Group(text(f"{difference.a.name} and {difference.b.name} behave the same"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("behaviour")
    table.add_column(text(difference.a.name))
    table.add_column(text(difference.b.name))
    for flag in difference.differs:
        about = join_lines(text(flag.flag), *([text(flag.summary, DIM)] if flag.summary else []))
        table.add_row(about, *(_flag_value(value, flag.since) for value in (flag.a, flag.b)))
    return Group(table)


def _flag_value(value: bool, since: str | None) -> Text:
    if not value:
        return Text("no", DIM)
    return Text(f"yes, since {since}" if since else "yes", "green")
