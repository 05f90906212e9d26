"""Commands of the command line, one module each.

A module is imported when its command runs. It has `configure` (adds description, options and examples to the parser) and `run` (returns the
exit status).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple, Protocol, cast


class Command(Protocol):
    """Interface of a command module."""

    def configure(self, command: ArgumentParser) -> None:
        """Add the description, options and examples of the command to its parser."""

    def run(self, options: Namespace) -> int:
        """Run the command and return its exit status: 0 done, 2 bad input. Raises ProblemError, InvalidSetting."""


class CommandEntry(NamedTuple):
    """A command in the help of the program."""

    module: str
    """Relative to this package."""
    help: str
    """One line in the imperative."""


COMMANDS: Final[Mapping[str, CommandEntry]] = {
    "decide": CommandEntry("decide", "decide an event, a status block or a CPER record"),
    "decode": CommandEntry("decode", "decode a status block, a CPER record or a HEST"),
    "import": CommandEntry("import_", "import kernel logs, CPER, Redfish, rasdaemon, QEMU files, and decide each error"),
    "export": CommandEntry("export", "export errors as CPER records, Redfish entries, QEMU injections or events"),
    "compare": CommandEntry("compare", "compare the decisions of the errors in files under two policies"),
    "syndrome": CommandEntry("syndrome", "decode an ESR or VSESR value, or predict its injection by KVM"),
    "policies": CommandEntry("policies", "list policies and VMMs, show a policy, or compare two"),
    "check-tables": CommandEntry("check_tables", "check that every combination of inputs has exactly one outcome under a policy"),
    "serve": CommandEntry("serve", "run the HTTP service"),
    "config": CommandEntry("config", "show the settings of the service and their sources"),
    "keys": CommandEntry("keys", "create, list and revoke API keys"),
    "store": CommandEntry("store", "check, repair and purge a store"),
    "submit": CommandEntry("remote.submit", "send a file of events to a service"),
    "query": CommandEntry("remote.query", "list or count the decisions that a service stores"),
    "replay": CommandEntry("remote.replay", "decide the stored events of a service again under another policy"),
    "show": CommandEntry("remote.show", "show a stored decision, or its event"),
    "watch": CommandEntry("remote.watch", "print decisions as a service makes them"),
    "demo": CommandEntry("demo", "compare the decisions of two kernels for a recorded error"),
    "completion": CommandEntry("completion", "print a completion script for bash, zsh or fish"),
}
"""In the order of the help."""


def load_command(name: str) -> Command:
    """Import the module of a command."""
    return cast("Command", import_module(f"{__name__}.{COMMANDS[name].module}"))
