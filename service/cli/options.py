"""Options that several commands share."""

from __future__ import annotations

from argparse import ArgumentParser, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from ras_triage.policies.catalog.choice import find_policy
from ras_triage.policies.catalog.policies import Policy, UnknownPolicy, kernel_policy
from ras_triage.service.api.problems import ProblemError, unknown_policy
from ras_triage.service.cli.option_names import name_options
from ras_triage.service.config.declaration import DeclaredSetting
from ras_triage.service.config.files import read_settings
from ras_triage.service.config.settings import Settings, all_settings

if TYPE_CHECKING:
    from ras_triage.service.config.loading import EffectiveSettings


def settings_of(options: Namespace) -> Settings:
    """Return the settings of a command that decides locally. Raises InvalidSetting."""
    return read_settings(options.policy_files or (), getattr(options, "vmm_files", None) or ())


def effective_settings(options: Namespace) -> EffectiveSettings:
    """Return the settings of a service with their sources. Raises InvalidSetting."""
    from ras_triage.service.config.loading import load_settings  # noqa: PLC0415 - commands that decide locally start faster without it

    flags = {name: getattr(options, name) for name, setting in all_settings().items() if setting.declaration.option is not None}
    return load_settings(flags, options.config)


def known_policy(name: str, settings: Settings, option: str) -> Policy:
    """Return the policy that an option names. Raises ProblemError."""
    try:
        return find_policy(name, settings.custom_policies)
    except UnknownPolicy as error:
        raise ProblemError(name_options(unknown_policy(str(error), option), {option: option})) from None


def require_known_kernel(release: str | None) -> None:
    """Raise ProblemError if the option for the kernel release names none."""
    try:
        if release is not None:
            kernel_policy(release)
    except UnknownPolicy as error:
        raise ProblemError(name_options(unknown_policy(str(error), "--kernel"), {"--kernel": "--kernel"})) from None


def add_settings(command: ArgumentParser) -> None:
    """Add the settings of a service."""
    add_config(command)
    for setting in all_settings().values():
        if setting.declaration.option is not None:
            _add_setting(command, setting)


def _add_setting(command: ArgumentParser, setting: DeclaredSetting) -> None:
    """Add the option of a setting. Values are checked with those of the other sources."""
    declared = setting.declaration
    ending = f" (default: {setting.default_text})" if setting.default and declared.service_default is None else ""
    ending = "; may be repeated" if setting.is_list else ending
    command.add_argument(
        declared.option or "",
        dest=setting.name,
        type=Path if setting.is_path else str,
        metavar=declared.metavar,
        action="append" if setting.is_list else "store",
        help=(declared.help + ending).replace("`", "").replace("%", "%%"),
    )


def add_config(command: ArgumentParser) -> None:
    """Add the option for the settings file."""
    command.add_argument("--config", type=Path, metavar="FILE", help="settings file in TOML (default: $RAS_TRIAGE_CONFIG)")


def add_policy_file(command: ArgumentParser) -> None:
    """Add the option for custom policies."""
    _add_setting(command, all_settings()["policy_files"])


def add_vmm_file(command: ArgumentParser) -> None:
    """Add the option for custom VMMs."""
    _add_setting(command, all_settings()["vmm_files"])


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
