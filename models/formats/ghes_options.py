"""The options of QEMU's scripts/ghes_inject.py (10.2), read as Python's argparse reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ras_triage.models.frozen import frozen

MAX_WORDS = 10_000
MAX_LENGTH = 64 << 10
"""Characters of a command line; QEMU takes a block of 1024 bytes, which it writes with five characters for each."""

_ONE = {
    "arm": ("--arm", "--arm-valid"),
    "affinity": ("-a", "--affinity", "--level", "--affinity-level"),
    "mpidr": ("-l", "--mpidr"),
    "midr": ("-i", "--midr"),
    "psci": ("--psci", "--psci-state"),
    "block_status": ("--block-status",),
    "error_severity": ("--error-severity", "--severity"),
    "gen_err_valid_bits": ("--gen-err-valid-bits", "--generic-error-validation-bits"),
    "fru_id": ("--fru-id",),
    "fru_text": ("--fru-text",),
    "timestamp": ("--timestamp",),
    "gedb_flags": ("--gedb-flags",),
}
"""Options with one value."""
_MANY = {
    "type": ("-t", "--type"),
    "flags": ("-f", "--flags"),
    "pei_valid": ("-V", "--pei-valid", "--error-valid"),
    "multiple_error": ("-m", "--multiple-error"),
    "error_info": ("-e", "--error-info"),
    "physical_address": ("-p", "--physical-address"),
    "virtual_address": ("-v", "--virtual-address"),
    "ctx_type": ("--ctx-type", "--context-type"),
    "ctx_size": ("--ctx-size", "--context-size"),
    "ctx_array": ("--ctx-array", "--context-array"),
    "vendor": ("--vendor", "--vendor-specific"),
    "raw_data": ("--raw-data",),
}
"""Options with as many values as follow."""
_SWITCHES = {
    "-r": ("running", "yes"),
    "--running": ("running", "yes"),
    "--no-running": ("running", "no"),
    "--precise": ("precise", "yes"),
    "--precise-timestamp": ("precise", "yes"),
}
"""Options without a value, and what they set."""
_NAMES = {
    name: destination for table in (_ONE, _MANY) for destination, names in table.items() for name in names
} | {name: destination for name, (destination, _) in _SWITCHES.items()}  # fmt: skip
_COMMAND = "arm"


class ScriptFails(ValueError):
    """The script would refuse the arguments, or fail on them; the text says why."""


@frozen
class Options:
    """The options that were given; None for those that were not."""

    one: dict[str, str | None]
    many: dict[str, list[str] | None]

    def has(self, name: str) -> bool:
        """Whether an option was given with something in it."""
        return bool(self.one.get(name) or self.many.get(name))

    @property
    def has_contexts(self) -> bool:
        """Whether any option asks for a processor context."""
        return any(self.many[name] is not None for name in ("ctx_type", "ctx_size", "ctx_array"))


def parse(words: Sequence[str]) -> Options:
    """The options of the `arm` command. Raises ScriptFails."""
    if len(words) > MAX_WORDS:
        raise ScriptFails(f"there are more than {MAX_WORDS} words")
    rest = list(words)
    if _COMMAND in rest and all(not word.startswith("-") or word in _MAIN for word in rest[: rest.index(_COMMAND)]):
        rest = rest[rest.index(_COMMAND) + 1 :]
    options = Options({**dict.fromkeys(_ONE), "running": None, "precise": None}, dict.fromkeys(_MANY))
    at = 0
    while at < len(rest):
        at = _take(rest, at, options)
    return options


_MAIN = {"-H", "--host", "-P", "--port", "-d", "--debug"}
"""Options before the command: where QEMU listens."""


def _take(words: list[str], at: int, options: Options) -> int:
    """Take the option at `at`; where the next one is."""
    option, glued = _option(words[at])
    if option in _SWITCHES:
        destination, setting = _SWITCHES[option]
        options.one[destination] = setting
        return at + 1
    end = at + 1
    while end < len(words) and not _is_option(words[end]):
        end += 1
    values = ([glued] if glued is not None else []) + words[at + 1 : end]
    destination = _NAMES[option]
    if destination in _MANY:
        options.many[destination] = values
    elif len(values) == 1:
        options.one[destination] = values[0]
    else:
        raise ScriptFails(f"`{option}` takes one value and has {len(values)}")
    return end


def _is_option(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not word[1:2].isdigit() and " " not in word


def _option(word: str) -> tuple[str, str | None]:
    """The option's full name, and the value glued to it."""
    name, equals, glued = word.partition("=")
    if name in _NAMES:
        return name, glued if equals else None
    if word[:2] in _NAMES:
        return word[:2], word[2:]
    # argparse takes any beginning of a long option that only one has.
    found = [full for full in _NAMES if full.startswith(name)] if name.startswith("--") and len(name) > 2 else []
    if len({_NAMES[full] for full in found}) != 1:
        raise ScriptFails(f"the script has no option `{word[:40]}`")
    return found[0], glued if equals else None


def choices(name: str, told: str, known: Mapping[str, int], suffixes: Sequence[str] = (), *, is_mask: bool = True) -> int:
    """The bits or the number of names separated by commas (`get_choice`). Raises ScriptFails."""
    found = 0
    for word in told.split(",") if told else ():
        plain = word.lower()
        for suffix in suffixes:
            plain = plain.removesuffix(suffix)
        if plain not in known:
            raise ScriptFails(f"`{word[:40]}` is none of the choices for {name}")
        if not is_mask and found:
            raise ScriptFails(f"{name} takes one value")
        found |= known[plain]
    return found


def integer(name: str, told: str) -> int:
    """A number that is not negative, in any of Python's notations. Raises ScriptFails."""
    try:
        number = int(told, 0) if len(told) < 100 else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ScriptFails(f"`{told[:40]}` is no number for {name}")
    return number


def integers(name: str, told: str, most: int | None = None) -> list[int]:
    """Numbers separated by commas, none above `most`. Raises ScriptFails."""
    numbers = [integer(name, word) for word in told.split(",")]
    if most is not None and any(number > most for number in numbers):
        raise ScriptFails(f"a number for {name} is above {most}")
    return numbers
