"""Options that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from ras_triage.policies.catalog.policies import UNIFORM
from ras_triage.service.config.settings import Settings, read_settings

if TYPE_CHECKING:
    from ras_triage.service.config.sources import EffectiveSettings

_FLAGS = (
    ("--host", "host", str, "ADDRESS", "address to listen on (default: 127.0.0.1); beyond loopback only with API keys or an OIDC issuer"),
    ("--store", "store", str, "URL", "store of the decisions: sqlite:///PATH, or memory: (default: in the state folder of this user)"),
    ("--tls-cert", "tls_certificate", Path, "FILE", "certificate chain in PEM; enables TLS"),
    ("--tls-key", "tls_key", Path, "FILE", "private key in PEM, unless it is in the certificate file"),
    ("--tls-client-ca", "tls_client_ca", Path, "FILE", "CA certificates in PEM; clients must have a certificate that one of them signed"),
    ("--keys-file", "keys_file", Path, "FILE", "hashed API keys in TOML, in addition to those in the store"),
    ("--default-policy", "default_policy", str, "NAME", "policy for events that name neither policy nor kernel"),
)
"""Options of the service: option, setting, type, placeholder, help. Other settings come from file or environment."""


def settings_of(options: Namespace) -> Settings:
    """Return the settings of a command that decides locally. Raises InvalidSetting."""
    return read_settings(options.policy_file, getattr(options, "default_policy", UNIFORM))


def effective_settings(options: Namespace) -> EffectiveSettings:
    """Return the settings of a service with their sources. Raises InvalidSetting."""
    from ras_triage.service.config.sources import load_settings  # noqa: PLC0415 - commands that decide locally start faster without it

    flags = {name: getattr(options, name) for _, name, *_ in _FLAGS}
    return load_settings({**flags, "port": options.port, "policy_files": options.policy_file}, options.config)


def port(text: str) -> int:
    """Return the TCP port that a text names. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise ArgumentTypeError(f"invalid port `{text}`; expected 0 to 65535")
    return int(text)


def add_settings(command: ArgumentParser) -> None:
    """Add the settings of a service."""
    add_config(command)
    for flag, name, kind, metavar, description in _FLAGS:
        command.add_argument(flag, dest=name, type=kind, metavar=metavar, help=description)
    command.add_argument("--port", type=port, help="port to listen on (default: 8080)")
    add_policy_file(command)


def add_config(command: ArgumentParser) -> None:
    """Add the option for the settings file."""
    command.add_argument("--config", type=Path, metavar="FILE", help="settings file in TOML (default: $RAS_TRIAGE_CONFIG)")


def add_policy_file(command: ArgumentParser) -> None:
    """Add the option for custom policies."""
    command.add_argument("--policy-file", action="append", type=Path, metavar="FILE", help="custom policy in TOML; may be repeated")


def add_json(command: ArgumentParser) -> None:
    """Add the option for JSON output."""
    command.add_argument("--json", action="store_true", help="print JSON as the HTTP interface returns it")


def add_examples(command: ArgumentParser, *examples: str) -> None:
    """Add example command lines after the options."""
    command.formatter_class = _HelpFormatter
    command.epilog = "\n  ".join(("examples:" if len(examples) > 1 else "example:", *examples))


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Help formatter that keeps the lines of examples and fills the lines of descriptions."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return super()._fill_text(text, width, indent)
        return HelpFormatter._fill_text(self, text, width, indent)
