"""Command `config`: the effective settings of the service and their sources."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pydantic_core import to_json

from ras_triage.service.api.escaping import escape
from ras_triage.service.cli.options import add_examples, add_json, add_settings, effective_settings
from ras_triage.service.cli.output import write_json, write_text


def configure(command: ArgumentParser) -> None:
    command.description = (
        "Show the settings that `serve` uses with the same options, environment and file, and the source of each. Secrets are hidden."
    )
    add_examples(command, "ras-triage config", "ras-triage config --config /etc/ras-triage.toml --json")
    add_settings(command)
    add_json(command)


def run(options: Namespace) -> int:
    listed = effective_settings(options).listed()
    if options.json:
        write_json(to_json(listed))
        return 0
    rows = [(name, escape(_plain(entry["value"])), entry["from"]) for name, entry in listed.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, value, origin in rows:
        write_text(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {origin}")
    return 0


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
