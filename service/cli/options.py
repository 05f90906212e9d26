"""Options that several commands have, and what they stand for."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ras_triage.policies.catalog.policies import UNIFORM
from ras_triage.service.config.settings import Settings, read_settings

if TYPE_CHECKING:
    from ras_triage.service.config.sources import EffectiveSettings

_FLAGS = (
    ("--host", "host", str, "ADDRESS", "address to listen on (default: 127.0.0.1); beyond loopback only with API keys or an OIDC issuer"),
    ("--store", "store", str, "URL", "where decisions are kept: sqlite:///PATH, or memory: (default: in the state folder of this user)"),
    ("--tls-cert", "tls_certificate", Path, "FILE", "answer over TLS with this certificate chain, PEM"),
    ("--tls-key", "tls_key", Path, "FILE", "its key, PEM, where it is not in the same file"),
    ("--tls-client-ca", "tls_client_ca", Path, "FILE", "ask clients for a certificate that one of these signed, PEM"),
    ("--keys-file", "keys_file", Path, "FILE", "hashed API keys, in TOML, beside those of the store"),
    ("--default-policy", "default_policy", str, "NAME", "for events that name neither policy nor kernel"),
)
"""Flags of a service: what each is called, its setting, how it is read, and what help says. The rest is for file and environment."""


def settings_of(options: Namespace) -> Settings:
    """The settings of a command that decides by itself. Raises InvalidSetting."""
    return read_settings(options.policy_file, getattr(options, "default_policy", UNIFORM))


def effective(options: Namespace) -> EffectiveSettings:
    """The settings of a service, with where each came from. Raises InvalidSetting."""
    from ras_triage.service.config.sources import load_settings  # noqa: PLC0415 - commands that decide by themselves start faster without it

    flags = {name: getattr(options, name) for _, name, *_ in _FLAGS}
    return load_settings({**flags, "port": options.port, "policy_files": options.policy_file}, options.config)


def port(text: str) -> int:
    """A TCP port from its text. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 0xFFFF:
        raise ArgumentTypeError(f"`{text}` is not a port number")
    return int(text)


def add_settings(command: ArgumentParser) -> None:
    """What a service can be told by flags."""
    add_config(command)
    for flag, name, kind, metavar, told in _FLAGS:
        command.add_argument(flag, dest=name, type=kind, metavar=metavar, help=told)
    command.add_argument("--port", type=port, help="port to listen on (default: 8080)")
    add_policy_file(command)


def add_config(command: ArgumentParser) -> None:
    """The file that holds what flags and environment leave open."""
    command.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML (default: what RAS_TRIAGE_CONFIG names)")


def add_policy_file(command: ArgumentParser) -> None:
    """The operator's own policies."""
    command.add_argument("--policy-file", action="append", type=Path, metavar="FILE", help="a policy of your own, in TOML; may be repeated")


def add_json(command: ArgumentParser) -> None:
    """Machine-readable results."""
    command.add_argument("--json", action="store_true", help="answer as the HTTP interface does")
